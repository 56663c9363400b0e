"""What a run is resumed from: whole, or not there.

Orbax writes a step to a folder of another name and renames it when it is complete.
Then each file's digest is taken and written beside it: a step whose digest is missing
was not completed, and one that does not fit its digest was damaged. Neither is loaded;
the one before it is, and it is told.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from grpo_jax import config, crossing, learner, tree, workdir

METRIC = "eval/accuracy"


class Checkpoints:
    """Those of one run; `tell` is given what a person should know."""

    def __init__(self, folder: pathlib.Path, keep: config.Keep, tell: Callable):
        self.folder, self.tell = folder.absolute(), tell
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
            cleanup_tmp_directories=True,
        )
        self.saving: tuple[int, Any] | None = None

    def save(
        self,
        step: int,
        state: learner.State,
        host: dict[str, Any],
        accuracy: float | None,
    ):
        """Begins to; the state may be used up as soon as this returns."""
        self.wait()
        items = _items(state) | {HOST: host}
        metrics = {METRIC: -1.0 if accuracy is None else accuracy}
        saving = self.orbax.save_checkpointables_async(step, items, metrics=metrics)
        self.saving = step, saving

    def wait(self):
        """Until what was begun is complete, and its digests are written."""
        if self.saving is None:
            return
        (step, saving), self.saving = self.saving, None
        saving.result()
        if crossing.place()[0] == 0:
            found = json.dumps(_digests(self.folder / str(step)), indent=1)
            workdir.replace(self._digest(step), found + "\n")
            steps = {str(one) for one in self.steps()}
            for old in self._digest(step).parent.glob("*.json"):
                if old.stem not in steps:
                    old.unlink()

    def close(self):
        self.wait()
        self.orbax.close()

    def steps(self) -> list[int]:
        return sorted(found.step for found in self.orbax.checkpoints)

    def settle(self) -> int | None:
        """The last step that is whole; what is behind it is taken away."""
        found = None
        for step in reversed(self.steps()):
            wrong = self._wrong(step)
            if not wrong:
                found = step
                break
            self.tell(f"checkpoint {step} is not used: {wrong}")
        crossing.agreed(0)  # all have looked before any is taken away
        for step in self.steps():
            if found is None or step > found:
                self.orbax.delete(step)
        return found

    def best(self) -> int:
        """The step with the highest accuracy, of those that are there."""

        def accuracy(step):
            return self.orbax.checkpointables_metadata(step).metrics[METRIC]

        return max(self.steps(), key=lambda step: (accuracy(step), step))

    def host(self, step: int) -> dict[str, Any]:
        return self.orbax.load_checkpointables(step, {HOST: None})[HOST]

    def load(self, step: int, like: learner.State) -> learner.State:
        """Each array where `like` has it, wherever it was when it was saved."""
        items = self.orbax.load_checkpointables(step, _items(like))
        named = {name: x for item in items.values() for name, x in item.items()}
        return jax.tree.map(named.get, _names(like))

    def policy(self, step: int, place: Callable[[Any], Any]) -> dict[str, Any]:
        """What is trained of the policy, and what adapters adapt: {path: array}.

        `place` gives shapes their shardings.
        """
        found = self.orbax.checkpointables_metadata(step).metadata
        there = {name: found[name] for name in (POLICY, FROZEN) if name in found}
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), there)
        return self.orbax.load_checkpointables(step, place(shapes))

    def _digest(self, step: int) -> pathlib.Path:
        return self.folder.parent / "digests" / f"{step}.json"

    def _wrong(self, step: int) -> str:
        """What is wrong with it; nothing, if it is as it was written."""
        path = self._digest(step)
        if not path.is_file():
            return "it was not completed"
        expected, found = (
            json.loads(path.read_text()),
            _digests(self.folder / str(step)),
        )
        differing = [k for k in expected if found.get(k) != expected[k]]
        if differing:
            missing = [k for k in differing if k not in found]
            how = "is missing" if missing else "was changed"
            return f"{(missing or differing)[0]} {how} since it was written"
        return ""


POLICY, FROZEN, REST, HOST = "policy", "frozen", "rest", "host"


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
