"""Questions asked of a model once: each answer a row of a file as soon as it is there.

The first row of the file says all that the answers depend on. Killed and started again,
only what is missing is asked, and the file comes out the same.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo_jax import (
    config,
    crossing,
    display,
    evaluate,
    prng,
    runs,
    sharding,
    stage,
    stopping,
    task,
    workdir,
)
from grpo_jax.data.problem import Problem
from grpo_jax.section import Refused


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
    """A row for each question, in their order; asks what is missing in the file.

    Processes share the questions; the first writes, and says how far it is.
    """
    path, is_first = rows_of(out), crossing.place()[0] == 0
    tell = print if is_first and not is_quiet else lambda *said, flush: None
    begun = crossing.listed(_begun(path, chosen) if is_first else [])
    done = {row["number"]: row for row in begun}
    missing = [i for i in range(len(chosen.problems)) if i not in done]
    if missing:
        of_all = f"{len(missing)} of {len(chosen.problems)} questions to ask"
        tell(f"{chosen.name}: {of_all}", flush=True)
        for row in _ask(chosen, missing, tell):
            done[row["number"]] = row
            if is_first:
                workdir.append(path, row)
    return [done[i] for i in range(len(chosen.problems))]


def _ask(chosen: Examination, missing: Sequence[int], tell: Callable) -> Iterator[dict]:
    """The rows of questions, as soon as their batch is answered."""
    settings, known, problems = chosen.settings, chosen.task, chosen.problems
    mesh = sharding.of_axes(settings.training.mesh)
    asking = dataclasses.replace(settings.evaluation, questions=len(problems))
    settings = dataclasses.replace(settings, evaluation=asking)
    root, spec = prng.root(settings.seed), chosen.found.base.spec
    run = stage.Run(settings, spec, known, None, mesh, root)
    examiner = evaluate.Examiner(run, problems)
    dtype = settings.model.numerics.compute
    key = run.key(prng.Stream.INIT, 0)
    given = chosen.found, dtype, key, mesh, examiner.greedy.sampler.mesh
    params = runs.published(*given, step=chosen.step)
    process, processes = crossing.place()
    stop, said = stopping.Stop(float("inf")), time.monotonic()
    with contextlib.closing(stop):
        for first in range(0, len(missing), asking.batch_size):
            numbers = missing[first : first + asking.batch_size]
            own, rows = numbers[process::processes], []
            found, texts = examiner.batch(params, own) if own else (np.zeros(0), [])
            for i, row, text in zip(own, found.tolist(), texts, strict=True):
                asked = {"number": i, "question": problems[i].question}
                asked |= {"answer": problems[i].answer, "completion": text}
                rows.append(asked | dict(zip(chosen.names, row, strict=True)))
            yield from sorted(crossing.listed(rows), key=lambda row: row["number"])
            count = first + len(numbers)
            if time.monotonic() > said + display.EVERY:
                said = time.monotonic()
                tell(f"{count} of {len(missing)} asked", flush=True)
            if count < len(missing) and stop.is_asked(count):
                raise stopping.Stopped(count, "question")


def described(chosen: Examination) -> dict[str, Any]:
    """All that the answers depend on: read once, for a run may go on meanwhile."""
    settings, weights = chosen.settings, None
    if chosen.step is not None:
        weights = runs.identity(chosen.found, chosen.step)
    asked = [(p.question, p.answer) for p in chosen.problems]
    return {
        "model": None if weights else chosen.name,
        "weights": weights,
        "asked": _digest(json.dumps(asked)),
        "seed": settings.seed,
        "data": dataclasses.asdict(settings.data),
        "sampling": dataclasses.asdict(settings.sampling),
        "numerics": dataclasses.asdict(settings.model.numerics),
        "batch_size": settings.evaluation.batch_size,  # it may change the last bits
        "samples": settings.evaluation.samples,
        "temperature": settings.evaluation.temperature,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def place(chosen: Examination) -> pathlib.Path:
    """Another for everything else that is asked."""
    found, data = chosen.found, pathlib.Path(chosen.settings.data.name).stem
    own = _digest(json.dumps(chosen.described))[:8]
    if chosen.step is None:
        stem = pathlib.Path(chosen.name).stem
        return pathlib.Path("runs/evaluations", f"{stem}-{data}-{own}.json")
    return found.folder / "evaluations" / f"{data}-{chosen.step}-{own}.json"


def rows_of(out: pathlib.Path) -> pathlib.Path:
    return out.with_suffix(".jsonl")


def _begun(path: pathlib.Path, chosen: Examination) -> list[dict]:
    """The rows of questions that are done; of nothing else than this.

    Of a batch that a kill cut short all are asked again, together as they were.
    """
    asked, at_once = chosen.described, chosen.settings.evaluation.batch_size
    out = path.with_suffix(".json")
    if not path.exists():
        if out.exists():
            raise Refused(f"{out} is there, and no {path}. Give another --out.")
        _write(path, workdir.line(asked))
        return []
    before, rows = read(out)
    changed = workdir.differing(before, asked)
    if changed:
        listed = "; ".join(f"{k} was {a!r}, is {b!r}" for k, (a, b) in changed.items())
        raise Refused(f"{path} holds other answers: {listed}. Give another --out.")
    if len(rows) < len(chosen.problems):
        rows = rows[: len(rows) - len(rows) % at_once]
    _write(path, "".join(map(workdir.line, [before, *rows])))
    return rows


def _write(path: pathlib.Path, text: str):
    try:
        workdir.replace(path, text)
    except OSError as error:
        raise Refused(
            f"{path} cannot be written ({error}). Give another --out."
        ) from error


def read(out: pathlib.Path) -> tuple[dict[str, Any], list[dict]]:
    """What was asked, and the rows of an evaluation."""
    found = list(workdir.rows(rows_of(out)))
    if not found or "asked" not in found[0]:
        raise Refused(f"{rows_of(out)} holds no answers of `evaluate`. Name others.")
    return found[0], found[1:]
