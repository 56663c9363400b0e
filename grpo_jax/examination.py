"""Questions asked of a model once, for the command `evaluate`: whom, what, and where.

Each answer is a row of a file as soon as its batch is there (see `resumed`).
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from grpo_jax import (
    config,
    evaluate,
    prng,
    programs,
    resumed,
    runs,
    sharding,
    stage,
    task,
)
from grpo_jax.data.problem import Problem
from grpo_jax.models import transformer


class Examination(NamedTuple):
    """Whom to ask what, and where it is written."""

    name: str
    found: runs.Found
    step: int | None  # of a run
    settings: config.Config
    task: task.Task
    problems: list[Problem]
    described: dict[str, Any] | None = None  # all that the answers depend on

    @property
    def names(self) -> list[str]:
        """Of what is found out about a question."""
        ks = evaluate.ks(self.settings.evaluation.samples)
        known, votes = self.task.is_final, not self.task.judges_programs
        return evaluate.names(ks, known, votes=votes)


def answered(
    chosen: Examination, out: pathlib.Path, is_quiet: bool = False
) -> list[dict]:
    """A row for each question, in their order; asks what is missing in the file."""
    work = resumed.Work(
        "evaluate",
        chosen.name,
        chosen.described,
        len(chosen.problems),
        chosen.settings.evaluation.batch_size,
        rows_of(out),
        [out],
    )
    return resumed.rows(work, lambda: _asking(chosen), is_quiet)


def _asking(chosen: Examination) -> resumed.Batch:
    settings, known, problems = chosen.settings, chosen.task, chosen.problems
    mesh = sharding.of_axes(settings.training.mesh)
    asking = dataclasses.replace(settings.evaluation, questions=len(problems))
    settings = dataclasses.replace(settings, evaluation=asking)
    root, spec = prng.root(settings.seed), chosen.found.base.spec
    run = stage.Run(settings, spec, known, None, mesh, root)
    examiner = evaluate.Examiner(run, problems)
    params = published(run, chosen.found, chosen.step)
    params = sharding.own(params, examiner.greedy.sampler.mesh)

    def batch(numbers: Sequence[int]) -> list[dict]:
        found, texts = examiner.batch(params, numbers)
        rows = []
        for i, row, text in zip(numbers, found.tolist(), texts, strict=True):
            asked = {"number": i, "question": problems[i].question}
            asked |= {"answer": problems[i].answer, "completion": text}
            rows.append(asked | dict(zip(chosen.names, row, strict=True)))
        return rows

    return batch


def published(
    run: stage.Run, found: runs.Found, step: int | None
) -> transformer.Params:
    """What a name stands for, laid out to decode on the run's mesh."""
    dtype, mesh = run.settings.model.numerics.compute, run.mesh
    key = run.key(prng.Stream.INIT, 0)
    params = runs.read(found, dtype, key, mesh, step=step).params
    return programs.publish(params, dtype, mesh, spends=True)


def described(chosen: Examination) -> dict[str, Any]:
    """All that the answers depend on: read once, for a run may go on meanwhile."""
    settings = chosen.settings
    asked = [(p.question, p.answer) for p in chosen.problems]
    return named(chosen.name, chosen.found, chosen.step) | {
        "asked": digest(json.dumps(asked)),
        "seed": settings.seed,
        "data": dataclasses.asdict(settings.data),
        "sampling": dataclasses.asdict(settings.sampling),
        "numerics": dataclasses.asdict(settings.model.numerics),
        "batch_size": settings.evaluation.batch_size,  # it may change the last bits
        "samples": settings.evaluation.samples,
        "temperature": settings.evaluation.temperature,
    }


def named(name: str, found: runs.Found, step: int | None) -> dict[str, Any]:
    """A model by its name, what a run has learned by its digest."""
    weights = None if step is None else runs.identity(found, step)
    return {"model": None if weights else name, "weights": weights}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def place(chosen: Examination) -> pathlib.Path:
    """Another for everything else that is asked."""
    found, data = chosen.found, pathlib.Path(chosen.settings.data.name).stem
    own = digest(json.dumps(chosen.described))[:8]
    if chosen.step is None:
        stem = pathlib.Path(chosen.name).stem
        return pathlib.Path("runs/evaluations", f"{stem}-{data}-{own}.json")
    return found.folder / "evaluations" / f"{data}-{chosen.step}-{own}.json"


def rows_of(out: pathlib.Path) -> pathlib.Path:
    return out.with_suffix(".jsonl")


def read(out: pathlib.Path) -> tuple[dict[str, Any], list[dict]]:
    """What was asked, and the rows of an evaluation."""
    return resumed.read(rows_of(out), "evaluate")
