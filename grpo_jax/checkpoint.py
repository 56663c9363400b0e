"""What a run is resumed from: whole, or not there.

Orbax writes a step to a folder of another name and renames it when it is complete.
Then each file's digest is taken and written beside it: a step whose digest is missing
was not completed, and one that does not fit its digest was damaged. Neither is loaded;
the one before it is, and it is told.
"""

import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from grpo_jax import config, crossing, learner, tree, workdir
from grpo_jax.section import Refused

METRIC = "eval/accuracy"


class Checkpoints:
    """Those of one run; `tell` is given what a person should know.

    One that only `reads` leaves alone what another process is writing.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep: config.Keep,
        tell: Callable,
        *,
        reads: bool = False,
    ):
        self.folder = folder.absolute()
        if not reads:
            if crossing.place()[0] == 0:
                _settle(self.folder, tell)
            crossing.agreed(0)  # nobody looks before that is done
        self.latest = max(_steps(self.folder), default=None)
        preserve = ocp.training.preservation_policies
        kept = [preserve.LatestN(keep.latest)]
        if keep.best:
            best = preserve.BestN(get_metric_fn=lambda m: m[METRIC], n=keep.best)
            kept.append(best)
        always = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        self.orbax = ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=always,
            preservation_policy=preserve.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=not reads,
        )
        self.pool = ThreadPoolExecutor(1)
        self.saving: Future | None = None
        self.seconds = 0.0  # that the last one took, from its beginning to its digests

    def save(
        self,
        step: int,
        state: learner.State,
        host: dict[str, Any],
        accuracy: float | None,
        *,
        again: bool = False,
    ):
        """Begins to; the state may be used up as soon as this returns."""
        self.wait()
        began = time.monotonic()
        items = _items(state) | {HOST: host}
        metrics = {METRIC: -1.0 if accuracy is None else accuracy}
        given = {"metrics": metrics, "overwrite": again}
        saving = self.orbax.save_checkpointables_async(step, items, **given)
        self.saving = self.pool.submit(self._complete, step, saving, began)

    def wait(self):
        """Until what was begun is complete."""
        if self.saving is not None:
            saving, self.saving = self.saving, None
            saving.result()

    def _complete(self, step: int, saving: Any, began: float):
        """Writes the digests of what Orbax wrote; those of steps that are gone go."""
        saving.result()
        if crossing.place()[0] == 0:
            found = json.dumps(_digests(self.folder / str(step)), indent=1)
            workdir.replace(_digest(self.folder, step), found + "\n")
            steps = {str(one) for one in self.steps()}
            for old in _digest(self.folder, step).parent.glob("*.json"):
                if old.stem not in steps:
                    old.unlink()
        self.seconds = time.monotonic() - began

    def close(self):
        self.pool.shutdown()
        self.wait()
        self.orbax.close()

    def steps(self) -> list[int]:
        return sorted(found.step for found in self.orbax.checkpoints)

    def rank(self, step: int) -> tuple[float, int]:
        """How good it was, and how late; all not examined are equally good."""
        return self.orbax.checkpointables_metadata(step).metrics[METRIC], step

    def host(self, step: int) -> dict[str, Any]:
        return self.orbax.load_checkpointables(step, {HOST: None})[HOST]

    def load(self, step: int, like: learner.State) -> learner.State:
        """Each array where `like` has it, wherever it was when it was saved."""
        items = self.orbax.load_checkpointables(step, _items(like))
        named = {name: x for item in items.values() for name, x in item.items()}
        return jax.tree.map(named.get, _names(like))

    def need_alike(self, step: int, like: learner.State):
        """Refuses a step that holds other arrays than a state of these settings."""
        found = self.orbax.checkpointables_metadata(step).metadata
        there = {k for item in (POLICY, FROZEN, REST) for k in found.get(item) or ()}
        ours = {name for item in _items(like).values() for name in item}
        if there != ours:
            some = ", ".join(sorted(there ^ ours)[:3])
            raise Refused(
                f"checkpoint {step} in {self.folder} is of other settings: it holds "
                f"{len(there - ours)} arrays that these do not have, and lacks "
                f"{len(ours - there)} ({some}, ...). Keep the optimizer, the adapters, "
                "the critic, and whether there is a reference (algorithm.beta)."
            )

    def policy(self, step: int, place: Callable[[Any], Any]) -> dict[str, Any]:
        """What is trained of the policy, and what adapters adapt: {path: array}.

        `place` gives shapes their shardings.
        """
        found = self.orbax.checkpointables_metadata(step).metadata
        there = {name: found[name] for name in (POLICY, FROZEN) if name in found}
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), there)
        return self.orbax.load_checkpointables(step, place(shapes))


POLICY, FROZEN, REST, HOST = "policy", "frozen", "rest", "host"


def whole(folder: pathlib.Path) -> list[int]:
    """The steps in a folder of checkpoints that are as they were written."""
    return [step for step in _steps(folder) if not wrong(folder, step)]


def copy(source: pathlib.Path, target: pathlib.Path, step: int):
    """One step, from one folder of checkpoints to another that has none."""
    shutil.copytree(source / str(step), target / str(step), dirs_exist_ok=True)
    _digest(target, step).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_digest(source, step), _digest(target, step))


def _settle(folder: pathlib.Path, tell: Callable) -> int | None:
    """The last step that is whole; what is behind it is taken away."""
    for step in reversed(_steps(folder)):
        reason = wrong(folder, step)
        if not reason:
            return step
        tell(f"checkpoint {step} is not used: {reason}")
        shutil.rmtree(folder / str(step))
    return None


def _steps(folder: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdecimal())


def _digest(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder.parent / "digests" / f"{step}.json"


def wrong(folder: pathlib.Path, step: int) -> str:
    """What is wrong with it; nothing, if it is as it was written."""
    path = _digest(folder, step)
    if not path.is_file():
        return "it was not completed"
    try:
        expected = json.loads(path.read_text())
    except ValueError:
        expected = None
    if not isinstance(expected, dict) or not expected:
        return f"its digests, {path.name}, were changed since they were written"
    found = _digests(folder / str(step))
    differing = [k for k in expected if found.get(k) != expected[k]]
    if differing:
        missing = [k for k in differing if k not in found]
        how = "is missing" if missing else "was changed"
        return f"{(missing or differing)[0]} {how} since it was written"
    return ""


def _items(state: learner.State) -> dict[str, dict[str, Any]]:
    """What is needed of it for what: arrays by their paths."""
    items: dict[str, dict[str, Any]] = {}
    names = jax.tree.leaves(_names(state))
    for name, x in zip(names, jax.tree.leaves(state), strict=True):
        item = REST
        if name.startswith("policy.params."):
            item = POLICY
        elif name.startswith("frozen."):
            item = FROZEN
        items.setdefault(item, {})[name] = x
    return items


def _names(state: learner.State) -> Any:
    return jax.tree.map(lambda path: path.replace("/", "."), tree.paths(state))


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """Of every file, by its path."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[str(path.relative_to(folder))] = digest
    return digests
