"""The command `evaluate`: how often a model or a run is right; and against another."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from rich import box
from rich.console import Console
from rich.table import Table

from grpo_jax import (
    config,
    crossing,
    evaluate,
    examination,
    inquiry,
    line,
    processes,
    runs,
    task,
    workdir,
)
from grpo_jax.data.settings import Instruction, Wrapping, asked
from grpo_jax.examination import Examination
from grpo_jax.models import settings
from grpo_jax.section import Refused


class Options(NamedTuple):
    """How often a model's answers are right, and how sure that is.

    The likeliest answer to each question, and pass@k and maj@k of k that are drawn. Of
    a run, data, prompts and max-new are the run's own, where they are not given.
    """

    model: line.Model  # tiny, smollm2-135m, a folder, a .gguf, a hub id, or a run's
    # gsm8k, math, svamp, cmath, mgsm, mgsm-zh, humaneval, sums, chains, series-6 (six
    # steps), a .jsonl or .parquet file, or a hub id; None: what the run was made for
    data: str | None = None
    split: str | None = None  # None: test; of the run's own data, what it held out
    question: str | None = None  # columns of a file, or of a set of the hub ...
    answer: str | None = None  # ... what is right
    k: int = 0  # answers drawn to each question besides the likeliest
    temperature: float = 0.7  # of those
    questions: int | None = None  # the first so many; None: all
    # what is said behind a question; None: of a model, to reason in steps and to box
    instruction: Instruction | None = None
    # what is written around both; None: of a model, its chat template, if it has one
    wrapping: Wrapping | None = None
    shots: int | None = None  # solved examples before each, the first of `train`
    max_new: int | None = None  # tokens of an answer; None: 256 of a model
    checkpoint: str = "best"  # of a run: best, latest, or the number of a step
    # another model or run, asked the same in the same way; or the .json that this
    # command wrote for one
    against: str | None = None
    out: pathlib.Path | None = None  # a .json; None: a new one in `evaluations`
    batch_size: int = 64  # questions at once
    dtype: Literal["float32", "bfloat16"] | None = None  # of computation
    mesh: tuple[int, int, int] | None = None  # data, fsdp, model; None: all are fsdp
    quiet: bool = False  # say nothing but warnings and the result


def main(words: list[str]) -> int:
    given = line.parse("evaluate", Options, words)
    processes.join()
    chosen = _examination(given.model, given.checkpoint, given)
    out, other, theirs = given.out or examination.place(chosen), None, None
    if out.suffix != ".json":
        raise Refused(f"--out is {out}; it must end in .json.")
    if given.against is not None:
        if given.against.endswith(".json"):
            _, theirs = examination.read(pathlib.Path(given.against))
        else:
            other = _examination(given.against, "best", given, chosen.settings)
    rows = examination.answered(chosen, out, given.quiet)
    samples = evaluate.ks(given.k)
    found = evaluate.examined(chosen.names, _numbers(chosen.names, rows))
    result = {
        "model": given.model,
        "checkpoint": chosen.step,
        "asked": chosen.described,
        "questions": len(rows),
        "left_out": len(chosen.task.left_out),
        "metrics": evaluate.summary(samples, found),
    }
    if given.against is not None:
        if other is not None:
            theirs = examination.answered(other, examination.place(other), given.quiet)
        result["against"] = given.against
        result["compared"] = _compared(chosen.names, rows, theirs)
    if crossing.place()[0] == 0:
        workdir.replace(out, json.dumps(result, indent=1) + "\n")
        _show(result, samples)
        print(f"{out}; what was answered: {examination.rows_of(out)}")
    crossing.agreed(0)  # none leaves while the first is still needed
    return 0


def _examination(
    name: str, which: str, given: Options, settings_: config.Config | None = None
) -> Examination:
    """With its own settings, or as another was asked."""
    found = runs.find(settings.Model(name=name))
    chosen = settings_ or _settings(given, found)
    step = runs.step(found, which, _warn)
    known = task.make(chosen, found.base.spec, found.base.tokenizer)
    if not known.has_answers:
        raise Refused(
            f"{chosen.data.name} prefers answers, and says of none that it is right. "
            "Give --data another set."
        )
    problems = task.to_ask(known, is_named=given.data is not None)[: given.questions]
    if not problems:
        raise Refused(f"{chosen.data.name} holds nothing to ask. Choose another split.")
    made = Examination(name, found, step, chosen, known, problems)
    return made._replace(described=examination.described(made))


def _settings(given: Options, found: runs.Found) -> config.Config:
    own = found.settings and found.settings.data
    data = _data(given, own, inquiry.prompts(given, own, found.base.tokenizer))
    evaluation = config.Evaluation(
        samples=given.k,
        temperature=given.temperature,
        batch_size=given.batch_size,
        **{} if given.questions is None else {"questions": given.questions},
    )
    return inquiry.chosen(given, found, data, evaluation)


def _data(given: Options, own: config.Data | None, prompts: dict) -> config.Data:
    """What a run held out; of other data what they have to ask."""
    name = inquiry.named(given, own)
    if own is not None and own.name == name:
        changed = prompts | ({"test": given.split} if given.split else {})
        data = dataclasses.replace(own, **changed)
    else:
        data = asked(name, given.split, **prompts)
    return inquiry.with_columns(given, data)


def _numbers(names: Sequence[str], rows: Sequence[dict]) -> Float[np.ndarray, "N R"]:
    return np.array([[row[name] for name in names] for row in rows])


def _compared(
    names: Sequence[str], ours: Sequence[dict], theirs: Sequence[dict]
) -> dict[str, float]:
    """On the questions that both were asked, by what is known of both."""
    of_question = {row["question"]: row for row in theirs}
    pairs = [(a, of_question.get(a["question"])) for a in ours]
    pairs = [(a, b) for a, b in pairs if b is not None]
    if not pairs:
        raise Refused("the two were asked no question in common. Ask both the same.")
    names = [name for name in names if name in pairs[0][1]]
    found = [_numbers(names, side) for side in zip(*pairs, strict=True)]
    return {"questions": len(pairs)} | evaluate.compared(names, *found)


def _show(result: dict[str, Any], ks: Sequence[int]):
    metrics, other = result["metrics"], result.get("compared")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    titles = ["", "right", "95%"]
    if other:
        titles += [f"of {result['against']}", "gain", "95%"]
    for title in titles:
        table.add_column(title, justify="right" if title else "left")
    of_samples = [f"{kind}@{k}" for kind in ("pass", "maj") for k in ks]
    gradings = {"accuracy": "right", "accuracy_paper": "right_paper"}
    for name in [*gradings, *of_samples]:
        if evaluate.PREFIX + name not in metrics:
            continue  # programs have no vote, and sums are not the paper's
        key = gradings.get(name, name)
        row = [
            name.replace("_", ", as in the "),
            *_interval(metrics, evaluate.PREFIX + name),
        ]
        if other and key in other:
            row += [f"{other[key]:.1%}", *_interval(other, f"{key}_gain")]
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
    data = result["asked"]["data"]
    split = data["test"] or f"held out of {data['split']}"
    print(
        f"{result['questions']} questions of {data['name']} ({split}), "
        f"{result['left_out']} of the data left out; the likeliest answers have "
        f"{metrics['eval/length']:.1f} tokens, {metrics['eval/truncated']:.1%} are cut "
        f"short, {metrics['eval/format']:.1%} give an answer"
    )
    if other:
        print(
            f"of {other['questions']} questions asked of both, {other['only_ours']} "
            f"only the first got right, {other['only_theirs']} only the other: "
            f"p = {other['mcnemar_p']:.2g} (McNemar)"
        )


def _interval(numbers: dict[str, float], name: str) -> tuple[str, str]:
    low, high = numbers[f"{name}_low"], numbers[f"{name}_high"]
    return f"{numbers[name]:.1%}", f"{low:.1%} to {high:.1%}"


def _warn(text: str):
    print(text, file=sys.stderr)
