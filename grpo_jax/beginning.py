"""Where a run begins: its stages, and a folder that is new, its own, or forked."""

import contextlib
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from grpo_jax import __version__, checkpoint, config, workdir
from grpo_jax.section import Refused

Tell = Callable[[str], None]


class Leg(NamedTuple):
    """One stage of the list, and its steps: first + 1, ..., last."""

    number: int
    name: str
    first: int
    last: int


def legs(settings: config.Config) -> list[Leg]:
    found, first = [], 0
    for number, name in enumerate(settings.stages):
        steps = settings.of_stage(name).steps
        found.append(Leg(number, name, first, first + steps))
        first += steps
    return found


def leg(known: Sequence[Leg], step: int, name: str, first: int) -> Leg:
    """Where a checkpoint is that was saved in a stage of that name and beginning."""
    for one in known:
        if (one.name, one.first) == (name, first) and first <= step <= one.last:
            return one
    listed = ", ".join(f"{x.name} to {x.last}" for x in known)
    raise Refused(
        f"the run is at step {step}, of a stage {name} that began after step {first}; "
        f"these settings have {listed}. Give them the same stages up to there, and no "
        "fewer steps, or begin anew in another folder."
    )


def settle(
    settings: config.Config,
    folder: pathlib.Path,
    fork_from: pathlib.Path | None,
    fits: Callable[[checkpoint.Checkpoints, int], Any],  # refuses what does not
    tell: Tell,
    *,
    problems: str = "",  # a digest of what is asked
    is_given: bool = False,  # the model: no name says which it is
    judged_by: str | None = None,  # the weights of a reward model, whatever its name
):
    """Makes the folder that of these settings, or refuses it."""
    begun, source, at = workdir.begun(folder), fork_from and str(fork_from), {}
    if begun is None and fork_from is not None:
        step = _fork(settings, folder, fork_from, fits, tell)
        since = _judged_since(settings, fork_from, step, judged_by)
        at = {"forked_at": step, "judged_since": since}
    if begun is not None:
        at = {k: begun[k] for k in ("forked_at", "judged_since") if k in begun}
        source = source or begun.get("forked_from")
    described = {"config": dataclasses.asdict(settings), "is_model_given": is_given}
    described |= {"problems": problems, "forked_from": source, **at}
    if judged_by and (begun is None or "judged_by" in begun):
        described["judged_by"] = judged_by
    circumstances = _circumstances()
    described |= circumstances
    # How long, how often examined, what is kept and where: no update changes by that,
    # but for its last bits on other devices.
    on = ("mesh", "parts", "packed", "deterministic")
    may_change = ["evaluation.", "keep.", *(f"training.{name}" for name in on)]
    may_change += circumstances
    if settings.optimizer.schedule == "constant":
        last = settings.stages[-1]
        may_change.append(f"{'training' if last == 'online' else last}.steps")
    changed = workdir.settle(folder, described, may_change)
    for name, (before, now) in changed.items():
        tell(f"{name} was {before!r}, and is {now!r} from here on")
    if any(name.startswith(tuple(circumstances)) for name in changed):
        tell("so what it finds may differ, in last bits at least")


def judged_since(folder: pathlib.Path, step: int | None) -> int:
    """The step behind which rewards were given as they are now: −1, or where a run was
    forked that changed that. Refused if nothing is left of a run that was forked: it
    must not begin anew where it was to go on.
    """
    begun = workdir.begun(folder) or {}
    if step is None and "forked_at" in begun:
        raise Refused(
            f"{folder} went on from step {begun['forked_at']} of "
            f"{begun['forked_from']}, and none of its checkpoints is whole. Move the "
            "folder away; the same command forks it again."
        )
    return begun.get("judged_since", begun.get("forked_at", -1))


def _judged_since(
    settings: config.Config, source: pathlib.Path, step: int, judged_by: str | None
) -> int:
    """A fork at that step looks back as far as its rewards meant the same."""
    before = workdir.begun(source) or {}
    known = json.loads(json.dumps(dataclasses.asdict(settings)))
    is_same = before.get("judged_by") == judged_by
    is_same &= _rewards(before.get("config", {})) == _rewards(known)
    return before.get("judged_since", before.get("forked_at", -1)) if is_same else step


def _rewards(chosen: dict[str, Any]) -> tuple:
    """All that says what reward an answer gets, but for the reward model's name."""
    model = {k: x for k, x in chosen.get("reward_model", {}).items() if k != "name"}
    weights = chosen.get("algorithm", {}).get("advantage", {}).get("reward_weights")
    return chosen.get("rewards"), model, weights


def _fork(settings, folder, source, fits, tell: Tell) -> int:
    """Begins a run where another one is, at that step; that one stays as it is."""
    at = source / workdir.CHECKPOINTS
    steps = checkpoint.whole(at)
    if not steps:
        raise Refused(f"--fork-from is {source}, where no checkpoint is whole.")
    theirs = checkpoint.Checkpoints(at, settings.keep, tell, reads=True)
    with contextlib.closing(theirs):
        fits(theirs, steps[-1])
    checkpoint.copy(at, folder / workdir.CHECKPOINTS, steps[-1])
    tables = source / workdir.SAMPLES
    if tables.is_dir():
        shutil.copytree(tables, folder / workdir.SAMPLES, dirs_exist_ok=True)
    rows = workdir.rows(source / workdir.METRICS)
    kept = [workdir.line(row) for row in rows if row["step"] <= steps[-1]]
    workdir.replace(folder / workdir.METRICS, "".join(kept))
    tell(f"{folder} goes on from step {steps[-1]} of {source}")
    return steps[-1]


def _circumstances() -> dict[str, Any]:
    """With what the run was made."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    names += ("transformers", "tokenizers", "datasets")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {
        "code": workdir.digest(pathlib.Path(__file__).parent),
        "versions": {"grpo_jax": __version__, **versions},
        "python": platform.python_version(),
        "devices": [jax.devices()[0].device_kind, jax.device_count()],
        "processes": jax.process_count(),
    }
