"""Rows of a file, in batches: each row is there as soon as its batch is done.

The first row says all that the others depend on, and nothing else is written to such a
file. Killed and started again, only what is missing is done, and the file comes out the
same.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from grpo_jax import crossing, display, stopping, workdir
from grpo_jax.section import Refused

# The rows of some questions, in their order: of those of this process.
Batch = Callable[[Sequence[int]], list[dict]]


class Work(NamedTuple):
    """Questions that a command asks, and where it writes what came of each."""

    command: str
    name: str  # of what is asked
    described: dict[str, Any]  # all that the rows depend on
    questions: int
    at_once: int  # questions of a batch
    path: pathlib.Path  # the rows
    results: Sequence[pathlib.Path] = ()  # made of them: never there without them


def rows(work: Work, begin: Callable[[], Batch], is_quiet: bool = False) -> list[dict]:
    """A row for each question, in their order; does what is missing in the file.

    Processes share the questions; the first writes, and says how far it is. `begin`
    makes what the questions are asked of, if any is missing.
    """
    is_first = crossing.place()[0] == 0
    tell = print if is_first and not is_quiet else lambda *said, flush: None
    begun = crossing.listed(_begun(work) if is_first else [])
    done = {row["number"]: row for row in begun}
    missing = [i for i in range(work.questions) if i not in done]
    if missing:
        of_all = f"{len(missing)} of {work.questions} questions to ask"
        tell(f"{work.name}: {of_all}", flush=True)
        for row in _asked(begin(), missing, work.at_once, tell):
            done[row["number"]] = row
            if is_first:
                workdir.append(work.path, row)
    return [done[i] for i in range(work.questions)]


def _asked(
    batch: Batch, missing: Sequence[int], at_once: int, tell: Callable
) -> Iterator[dict]:
    process, processes = crossing.place()
    stop, said = stopping.Stop(float("inf")), time.monotonic()
    with contextlib.closing(stop):
        for first in range(0, len(missing), at_once):
            numbers = missing[first : first + at_once]
            own = numbers[process::processes]
            found = crossing.listed(batch(own) if own else [])
            yield from sorted(found, key=lambda row: row["number"])
            count = first + len(numbers)
            if time.monotonic() > said + display.EVERY:
                said = time.monotonic()
                tell(f"{count} of {len(missing)} asked", flush=True)
            if count < len(missing) and stop.is_asked():
                raise stopping.Stopped(count, "question")


def _begun(work: Work) -> list[dict]:
    """The rows of questions that are done; of nothing else than this.

    Of a batch that a kill cut short all are asked again, together as they were.
    """
    path = work.path
    if not path.exists():
        for out in work.results:
            if out.exists():
                raise Refused(f"{out} is there, and no {path}. Give another --out.")
        _write(path, workdir.line(work.described))
        return []
    before, found = read(path, work.command)
    changed = workdir.differing(before, work.described)
    if changed:
        listed = "; ".join(f"{k} was {a!r}, is {b!r}" for k, (a, b) in changed.items())
        raise Refused(f"{path} holds other answers: {listed}. Give another --out.")
    if len(found) < work.questions:
        found = found[: len(found) - len(found) % work.at_once]
    _write(path, "".join(map(workdir.line, [before, *found])))
    return found


def _write(path: pathlib.Path, text: str):
    try:
        workdir.replace(path, text)
    except OSError as error:
        raise Refused(
            f"{path} cannot be written ({error}). Give another --out."
        ) from error


def read(path: pathlib.Path, command: str) -> tuple[dict[str, Any], list[dict]]:
    """What was asked, and the rows that a command wrote."""
    found = list(workdir.rows(path))
    if not found or "asked" not in found[0]:
        raise Refused(f"{path} holds no answers of `{command}`. Name others.")
    return found[0], found[1:]
