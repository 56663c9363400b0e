"""The command `label`: labels for the steps of a model's solutions (Math-Shepherd).

    python -m grpo_jax label runs/chains --solutions 15 --completions 8 --out labels

What it writes stage reward reads: --stages reward --reward.labels steps --data.name
labels/hard.jsonl. Questions that the run held out are not among them, so such a run
holds some out only with a larger data.held_out.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any, Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from grpo_jax import (
    config,
    crossing,
    examination,
    inquiry,
    labeller,
    line,
    plots,
    processes,
    resumed,
    runs,
    shepherd,
    task,
    workdir,
)
from grpo_jax.data.settings import STEPWISE, Instruction, Wrapping, generated
from grpo_jax.examination import Examination
from grpo_jax.labeller import Completer, Labelling
from grpo_jax.models import settings
from grpo_jax.section import Refused

RAW, SUMMARY, FIGURE = "raw.jsonl", "summary.json", "figure.png"
KINDS = "hard", "soft"


class Options(NamedTuple):
    """Labels for the steps of a model's solutions, by what completions come to.

    Solutions are drawn to the questions that are trained on; those that are held out
    are not asked. Behind every step but the last N completions are drawn: its hard
    label is 1 if any of them is right, its soft label is the share that is. Of a run,
    data, prompts, max-new, temperature and seed are its own, where they are not given.
    """

    model: line.Model  # tiny, smollm2-135m, a folder, a .gguf, a hub id, or a run's
    completer: str | None = None  # another that completes; None: the same
    # gsm8k, math, svamp, cmath, mgsm, mgsm-zh, humaneval, sums, chains, series, or of
    # some sizes, series-3-4, a .jsonl or .parquet file, or a hub id; None: what the run
    # was made for
    data: str | None = None
    split: str | None = None  # None: the run's own, or train
    question: str | None = None  # columns of a file, or of a set of the hub ...
    answer: str | None = None  # ... what is right
    solutions: int = 15  # drawn to each question; equal ones count once
    completions: int = 8  # N, of each prefix; one that several solutions share, once
    questions: int | None = None  # the first so many of the stream; None: all
    temperature: float | None = None  # of both; None: 0.7 of a model
    seed: int | None = None  # every draw and the questions' order; None: 0 of a model
    # what is said behind a question; None: of a model, to reason in steps and to box
    instruction: Instruction | None = None
    # what is written around both; None: of a model, its chat template, if it has one
    wrapping: Wrapping | None = None
    shots: int | None = None  # solved examples before each, the first of `train`
    max_new: int | None = None  # tokens of a whole solution; None: 256 of a model
    checkpoint: str = "best"  # of a run: best, latest, or the number of a step
    out: pathlib.Path | None = None  # a folder; None: a new one in `labels`
    batch_size: int = 16  # questions at once: what a kill may lose
    rows: int = 256  # answers decoded at once
    # share of answers asked at once whose grading may fail; above it stops
    most_faults: float = config.Rewarding().most_faults
    # share of them that may get no grade; as above
    most_unscored: float = config.Rewarding().most_unscored
    dtype: Literal["float32", "bfloat16"] | None = None  # of computation
    mesh: tuple[int, int, int] | None = None  # data, fsdp, model; None: all are fsdp
    quiet: bool = False  # say nothing but warnings and the result


def main(words: list[str]) -> int:
    given = line.parse("label", Options, words)
    processes.join()
    chosen = _chosen(given)
    chosen.check()
    out, solver = given.out or _place(chosen.solver), chosen.solver
    is_first = crossing.place()[0] == 0
    with workdir.locked(out, is_first=is_first, option="--out"):
        results = [out / f"{kind}.jsonl" for kind in KINDS]
        results += [out / SUMMARY, out / FIGURE]
        work = resumed.Work(
            "label",
            solver.name,
            solver.described,
            len(solver.problems),
            solver.settings.evaluation.batch_size,
            out / RAW,
            results,
        )
        rows = resumed.rows(work, lambda: labeller.batch(chosen), given.quiet)
        if is_first:
            _write(out, chosen, rows)
        crossing.agreed(0)  # none leaves while the first is still needed
    return 0


def _write(out: pathlib.Path, chosen: Labelling, rows: list[dict]):
    solver = chosen.solver
    knows_steps = solver.settings.data.name in STEPWISE
    found = shepherd.summary(rows, chosen.completions, knows_steps)
    known = shepherd.solutions(rows)
    for kind in KINDS:
        text = "".join(map(workdir.line, shepherd.labelled(known, kind)))
        workdir.replace(out / f"{kind}.jsonl", text)
    plots.labels(found, out / FIGURE)
    told = {"model": solver.name, "checkpoint": solver.step}
    told |= {"asked": solver.described, "left_out": len(solver.task.left_out)} | found
    workdir.replace(out / SUMMARY, json.dumps(told, indent=1, allow_nan=False) + "\n")
    _show(found)
    print(f"{out}: {', '.join(f'{kind}.jsonl' for kind in KINDS)}, {RAW}, {SUMMARY}")


def _chosen(given: Options) -> Labelling:
    found = runs.find(settings.Model(name=given.model))
    step = runs.step(found, given.checkpoint, _warn)
    chosen = _settings(given, found)
    known = task.make(chosen, found.base.spec, found.base.tokenizer)
    examples = {p.question for p in known.train[: chosen.data.shots]}
    stream = [known.problem(chosen.seed, i) for i in range(len(known.train))]
    problems = [p for p in stream if p.question not in examples]
    if given.questions is not None and given.questions < 1:
        raise Refused(f"--questions is {given.questions}; it must be at least one.")
    problems = problems[: given.questions]
    if not problems:
        raise Refused(f"{chosen.data.name} holds nothing to ask. Choose another split.")
    solver = Examination(given.model, found, step, chosen, known, problems)
    completer, told = None, None
    if given.completer is not None:
        other = runs.find(settings.Model(name=given.completer))
        at = runs.step(other, "best", _warn)
        completer = Completer(given.completer, other, at)
        told = examination.named(*completer)
    numbers = {k: getattr(given, k) for k in ("solutions", "completions", "rows")}
    common = examination.described(solver)
    unread = {"samples", "temperature"}  # of evaluation
    described = {k: x for k, x in common.items() if k not in unread}
    described |= {"completer": told} | numbers
    return Labelling(solver._replace(described=described), completer, **numbers)


def _settings(given: Options, found: runs.Found) -> config.Config:
    own = found.settings and found.settings.data
    data = _data(given, own, inquiry.prompts(given, own, found.base.tokenizer))
    evaluation = config.Evaluation(batch_size=given.batch_size)
    changed = {"rows": None}  # what is decoded at once is said by --rows
    if given.temperature is not None:
        changed["temperature"] = given.temperature
    chosen = inquiry.chosen(given, found, data, evaluation, **changed)
    seed = chosen.seed if given.seed is None else given.seed
    limits = config.Rewarding(
        most_faults=given.most_faults, most_unscored=given.most_unscored
    )
    return dataclasses.replace(chosen, seed=seed, rewards=limits)


def _data(given: Options, own: config.Data | None, prompts: dict) -> config.Data:
    """What is trained on; the same questions are held out as in training."""
    name = inquiry.named(given, own)
    split = {} if given.split is None else {"split": given.split}
    if own is not None and own.name == name:
        return inquiry.with_columns(given, dataclasses.replace(own, **prompts, **split))
    known = generated(name)
    if known and given.questions:  # there are as many as one wants
        known["count"] = max(config.Data().count, 2 * given.questions)
    data = config.Data(**known or {"name": name}, **prompts, **split)
    return inquiry.with_columns(given, data)


def _place(solver: Examination) -> pathlib.Path:
    """Another for everything else that is asked."""
    data = pathlib.Path(solver.settings.data.name).stem
    own = examination.digest(json.dumps(solver.described))[:8]
    if solver.step is None:
        return pathlib.Path(
            "runs/labels", f"{pathlib.Path(solver.name).stem}-{data}-{own}"
        )
    return solver.found.folder / "labels" / f"{data}-{solver.step}-{own}"


def _show(found: dict[str, Any]):
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("", "share", "95%", "of"):
        table.add_column(title, justify="right" if title else "left")

    def add(name: str, one: dict[str, Any], of: Any = ""):
        of = one.get("of", of)
        if one["value"] is None:
            table.add_row(name, "none", "", str(of))
            return
        shares = f"{one['value']:.1%}", f"{one['low']:.1%} to {one['high']:.1%}"
        table.add_row(name, *shares, str(of))

    add("solutions that are right", found["right"])
    add("steps that are good", found["good"])
    for row in found["by_place"][:PLACES]:
        add(f"  step {row['place']}", row)
    add("of steps behind a bad one, good", found["good_behind_bad"])
    add("solutions with such a step", found["solutions_with_good_behind_bad"])
    for which, one in found.get("truth", {}).items():
        where = {"all": "", "before_last": " before the last"}[which]
        add(f"hard labels{where} that are the truth", one["agreement"])
        add("  of true steps, good", one["good_of_true"])
        add("  of false steps, good", one["good_of_false"])
        add("  area of soft labels", one["auc"], one["agreement"]["of"])
    Console(highlight=False, markup=False).print(table)
    print(
        f"{found['questions']} questions, {found['drawn']} solutions drawn, "
        f"{found['ended']} ended, {found['solutions']} of them different; "
        f"{found['steps']} steps, {found['labelled']} labelled by "
        f"{found['completions']} completions of {found['prefixes']} prefixes"
    )


PLACES = 8  # that are shown


def _warn(text: str):
    print(text, file=sys.stderr)
