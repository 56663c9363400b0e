"""What the trainer adds to a step: a run's steps beside bare ones, before and after.

    python -m grpo_jax bench trainer [--model DIR] [--prompts 4] [--group 8] ...

A run reads its questions, cuts texts into tokens and back, calls a reward for each
sample and writes its rows, and it draws and learns as `bench step` does. The last line
is one JSON object.
"""

import dataclasses
import json
import pathlib
import statistics
import tempfile

import numpy as np

from grpo_jax import config, display, line, run, workdir
from grpo_jax.bench import sampling, step
from grpo_jax.models import load
from grpo_jax.text.tokenizer import Bytes

WARM = 2  # steps that compile


def main(words: list[str]) -> int:
    told = "What a run adds to its steps: beside bare ones, before and after."
    options = line.parse("bench trainer", step.Options, words, description=told)
    before = _bare(options)
    steps = _of_run(options)
    after = _bare(options)
    bare = statistics.mean((before, after))
    result = {"bare_s": [before, after]}
    result["trainer_s"] = statistics.median(row["time/step"] for row in steps)
    result["over_bare"] = result["trainer_s"] / bare
    result["recompiles"] = sum(row["perf/compiled"] for row in steps)
    print(json.dumps(sampling.rounded(result)))
    return 0


def _bare(options: step.Options) -> float:
    """Seconds of a step that nothing stands around."""
    bench = step.Bench(options, *sampling.model_of(options.model, "float32"))
    return bench.measure(samples=True)["step_s"]


def _of_run(options: step.Options) -> list[dict]:
    """The rows of a run's steps, but for the first, that compile."""
    spec, params = sampling.model_of(options.model, "float32")
    plain = step.Bench.settings_of(options)
    never = 10**6
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data = folder / "questions.jsonl"
        data.write_text("".join(_questions(options)))
        settings = dataclasses.replace(
            plain,
            data=config.Data(name=str(data), held_out=0.0),
            rewards=config.Rewarding(functions=("even",)),
            training=dataclasses.replace(plain.training, steps=WARM + options.runs),
            keep=config.Keep(every=never, samples=never),
        )
        run.train(
            settings,
            folder / "run",
            rewards={"even": _even},
            model=load.Model(spec, params, Bytes(), None),
            screen=display.Screen(is_quiet=True),
        )
        rows = list(workdir.rows(folder / "run" / workdir.METRICS))
    return rows[1 + WARM :]


def _questions(options: step.Options) -> list[str]:
    """Of as many letters as they should have tokens."""
    letters = np.random.default_rng(0).integers(97, 123, (64, options.prompt_tokens))
    asked = (bytes(row.tolist()).decode() for row in letters)
    return [json.dumps({"question": text, "answer": "0"}) + "\n" for text in asked]


def _even(question: str, completion: str, answer: str) -> float:
    return float(len(completion) % 2)
