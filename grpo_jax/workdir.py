"""A run's folder: who writes to it, with which settings, and a row for each step.

    config.json     the resolved settings, and with what they were run
    metrics.jsonl   a row a step; equal runs differ under time/ and perf/ alone
    samples/        questions, completions, rewards
    checkpoints/  figures/

Row k is on disk before checkpoint k may be. A run that goes on from checkpoint k drops
the rows behind it, a half-written one among them: it will write the same ones again.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from grpo_jax.section import Refused

CONFIG, METRICS, LOCK = "config.json", "metrics.jsonl", "lock"
SAMPLES, CHECKPOINTS = "samples", "checkpoints"


@contextlib.contextmanager
def locked(
    folder: pathlib.Path, *, is_first: bool = True, option: str = "--workdir"
) -> Iterator[None]:
    """While this run writes there, no other does. The lock goes with its process.

    Of several processes the first has it for all.
    """
    if not is_first:
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise Refused(f"{option} is {folder}, a file. Give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise Refused(f"{folder} cannot be written ({error}). Give another.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Refused(
                f"{folder} is being written by process {file.read().strip()}. Wait for "
                f"it, stop it, or give another {option}."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def differing(
    before: dict[str, Any], now: dict[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Field by its path → its value before and now, where these differ."""
    before, now = _flat(before), _flat(now)
    gone = object()
    return {
        name: (before.get(name), now.get(name))
        for name in sorted(before.keys() | now.keys())
        if before.get(name, gone) != now.get(name, gone)
    }


def begun(folder: pathlib.Path) -> dict[str, Any] | None:
    """What is written of the run there, if there is one."""
    path = folder / CONFIG
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def settle(
    folder: pathlib.Path, settings: dict[str, Any], may_change: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Writes the settings of a new run, or compares them with those that it began with.

    What may change proceeds and is returned; all else is refused, with both values.
    Settings stand under `config`; all other things by their own names.
    """
    text = json.dumps(settings, indent=2, sort_keys=True)
    path, before = folder / CONFIG, begun(folder)
    if before is None:
        replace(path, text + "\n")
        return {}
    ours, theirs = ({**x, **x["config"], "config": 0} for x in (settings, before))
    changed = differing(theirs, ours)
    wrong = {k: x for k, x in changed.items() if not k.startswith(tuple(may_change))}
    if wrong:
        listed = "; ".join(f"{k} was {a!r}, is {b!r}" for k, (a, b) in wrong.items())
        raise Refused(
            f"{folder} holds a run with other settings: {listed}. Use those, give "
            "another --workdir, or begin one from it with --fork-from."
        )
    if changed:
        replace(path, text + "\n")
    return changed


def replace(path: pathlib.Path, text: str):
    """The file is the old one or the new one at any instant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def line(row: dict[str, Any]) -> str:
    """As JSON, with null for what is no number."""
    known = {k: None if x != x else x for k, x in row.items()}
    return json.dumps(known, allow_nan=False) + "\n"


def append(path: pathlib.Path, row: dict[str, Any]):
    """One row more, on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line(row))
        file.flush()
        os.fsync(file.fileno())


def rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """All whole rows; a last line that a kill cut short is none."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise Refused(
                    f"{path}, line {number} is not JSON ({error}). The file was "
                    "changed by something else; mend the line, or move the file away."
                ) from error


def keep_until(path: pathlib.Path, step: int):
    """Drops the rows of later steps, and half a row at the end."""
    if path.exists():
        kept = "".join(line(row) for row in rows(path) if row["step"] <= step)
        if kept != path.read_text(encoding="utf-8"):
            replace(path, kept)


def digest(folder: pathlib.Path, pattern: str = "**/*.py") -> str:
    """Of such files in it; or of that file."""
    found = hashlib.sha256()
    if folder.is_file():
        found.update(folder.read_bytes())
    for path in sorted(filter(pathlib.Path.is_file, folder.glob(pattern))):
        found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = list(value) if isinstance(value, tuple) else value
    return out
