"""A run's folder where a model is named: what the run has learned, read from it.

    runs/quickstart, runs/quickstart@40, runs/quickstart@best

Only the policy is loaded, or the reward model with its head, of a checkpoint whose
every file is as it was written; of a run with adapters what they adapt as well, and
both become one. Nothing is written, so the run may go on meanwhile.
"""

import contextlib
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from grpo_jax import checkpoint, config, programs, sharding, tree, workdir
from grpo_jax.models import heads, load, memory, settings, transformer
from grpo_jax.section import Refused


class Found(NamedTuple):
    """A model that was named: the one that a run began with, and what came of it."""

    base: load.Found
    settings: config.Config | None = None  # of the run; None: it is a model
    folder: pathlib.Path = pathlib.Path()
    which: str = ""  # the checkpoint that the name asks for

    @property
    def is_reward_model(self) -> bool:
        return self.settings is not None and "reward" in self.settings.stages

    @property
    def exact(self) -> str:
        """The narrowest of our dtypes that holds the weights unrounded."""
        if self.settings is not None:
            return self.settings.model.dtype
        return self.base.source.exact if self.base.source else "float32"


Kind = Literal["policy", "reward", "either"]  # what is meant by a name


def find(chosen: settings.Model, kind: Kind = "policy") -> Found:
    """The model or the run; no weights are read yet."""
    name, mark, which = chosen.name.rpartition("@")
    if not mark or pathlib.Path(chosen.name).exists():
        name, which = chosen.name, ""
    folder = pathlib.Path(name)
    begun = _settings(folder)
    if begun is None:
        if kind == "reward":
            raise Refused(
                f"reward_model.name is {chosen.name}, where no run is. Give the folder "
                "of a run whose stage was reward."
            )
        return Found(load.find(chosen))
    if begun.makes_several:
        one = folder / ("judge-0" if kind == "reward" else "policy-0")
        raise Refused(f"{folder} holds several runs. Name one of them, like {one}.")
    own = "reward" if "reward" in begun.stages else "policy"
    if kind not in (own, "either"):
        what, where = "a reward model, which answers nothing", "reward_model.name"
        if own == "policy":
            listed = ", ".join(begun.stages)
            what, where = f"a policy, with stages {listed}", "model.name"
        raise Refused(
            f"{folder} is the run of {what}. Name it in {where}, and another here."
        )
    base = find(begun.model, "either" if own == "reward" else "policy").base
    return Found(base, begun, folder, which)


def _settings(folder: pathlib.Path) -> config.Config | None:
    """With which a run is made there; None: there is none."""
    path = folder / workdir.CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # whatever else is there, `load` says it
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        return None
    if found.get("is_model_given"):
        raise Refused(
            f"the run in {folder} began with a model that a program gave it; no name "
            "says which. Use what that program's train() returned."
        )
    return config.of(found["config"])


def step(found: Found, which: str, tell: Callable[[str], None]) -> int | None:
    """The checkpoint of a run that is meant: latest, best, or one by its number.

    One that is damaged is told, and the next in order is taken in its place.
    """
    which, folder = found.which or which, found.folder
    if found.settings is None:
        return None
    if not (folder / workdir.CHECKPOINTS).is_dir():
        raise Refused(f"{folder} is a run without checkpoints yet. Wait for its first.")
    with contextlib.closing(_opened(found)) as kept:
        steps = kept.steps()
        if which == "best":
            steps.sort(key=kept.rank)
        elif which != "latest":
            steps = [one for one in steps if str(one) == which]
        for one in reversed(steps):
            wrong = checkpoint.wrong(kept.folder, one)
            if not wrong:
                return one
            tell(f"{folder}: checkpoint {one} is not used: {wrong}")
        listed = ", ".join(map(str, kept.steps())) or "none"
    raise Refused(
        f"{folder} has no whole checkpoint {which}; there are {listed}. Give one of "
        "these, latest or best, or let the run go on."
    )


def identity(found: Found, step: int) -> str:
    """Of what a run had learned at a step: equal for the same weights alone."""
    path = found.folder / "digests" / f"{step}.json"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read(
    found: Found,
    dtype: str,
    key: Key[Array, ""],
    mesh: Mesh | None = None,
    *,
    step: int | None = None,  # what `step` gave
) -> load.Model:
    """With its parameters, on the mesh or on one device; the key is for `tiny`."""
    base = found.base
    shapes = transformer.abstract(base.spec)
    if found.settings is None:
        return load.read(base, dtype, key, _layout(shapes, mesh))
    memory.check(base.spec, dtype, _layout(shapes, mesh))
    with contextlib.closing(_opened(found)) as kept:
        items = kept.policy(step, functools.partial(_placed, mesh=mesh))
    params = _nested(items[checkpoint.POLICY])
    head = params.pop("head", None)
    if head is not None and found.is_reward_model:
        shapes = heads.trunk(shapes)
    if checkpoint.FROZEN in items:
        frozen = _nested(items[checkpoint.FROZEN])
        params = programs.merged(frozen, params, chosen=found.settings.model.lora)
    tree.need_alike(f"the policy in {found.folder}", params, shapes)
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    if found.is_reward_model and head is not None:
        params |= {"head": head}  # small; one of a critic is left behind
    return load.Model(base.spec, params, base.tokenizer, base.generation)


def _opened(found: Found) -> checkpoint.Checkpoints:
    kept, folder = found.settings.keep, found.folder / workdir.CHECKPOINTS
    return checkpoint.Checkpoints(folder, kept, lambda text: None, reads=True)


Items = dict[str, dict[str, Any]]


def _placed(items: Items, mesh: Mesh | None) -> Items:
    """The shapes, each where a parameter of its path belongs."""
    flat = {_path(name): x for item in items.values() for name, x in item.items()}
    where = _layout(flat, mesh)

    def one(name, x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where[_path(name)])

    return {
        key: {name: one(name, x) for name, x in item.items()}
        for key, item in items.items()
    }


def _path(name: str) -> str:
    """policy.params.layers.wq → layers/wq"""
    path = name.removeprefix("policy.params.").removeprefix("frozen.")
    return path.replace(".", "/")


def _nested(named: dict[str, Any]) -> dict[str, Any]:
    """As a tree of parameters."""
    return config.nested(
        {_path(name).replace("/", "."): x for name, x in named.items()}
    )


def _layout(params: Any, mesh: Mesh | None) -> Any:
    if mesh is None:
        return sharding.one_device(params)
    return sharding.of_params(params, mesh)[0]
