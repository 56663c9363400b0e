"""The command `plan`: what an experiment takes of machines that need not be here.

    python -m grpo_jax plan FILE --topology v5p-16 h200x8 [--SETTING VALUE ...]

In GiB of each device: what a step of online learning holds, by arithmetic on shapes and
how they are cut, and what each of its programs takes on top, compiled for the machine.
See `topology` for what must be installed, and for the machines; `cpu` is this one.
"""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jax
import tyro
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered
from rich.console import Console
from rich.table import Table

from grpo_jax import (
    config,
    experiment,
    learner,
    plan,
    pool,
    reference,
    runs,
    sharding,
    topology,
    workdir,
)
from grpo_jax.models import load, memory, sizes, transformer
from grpo_jax.models.settings import Model
from grpo_jax.models.spec import Spec
from grpo_jax.sampling import shapes
from grpo_jax.section import Refused

Programs = Literal["all", "sampling", "learning"]

# The copy to sample with is held while samples are drawn, and not while it learns.
COPY, SAMPLING = "copy", ("publish", "prefill", "decode", "decode fewer", "grow")
GIVEN = {  # what each program is given of what is held
    **dict.fromkeys(("prefill", "decode", "decode fewer"), (COPY,)),
    "score": ("parameters",),
    "critic": ("critic", "its moments"),
    "update": ("parameters", "moments"),
}


@dataclasses.dataclass(frozen=True)
class Order:
    """Says what an experiment takes of machines that are not here: of each device,
    what is held and what each program adds."""

    config: Annotated[
        config.Config, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff
    ]
    topology: tuple[str, ...] = ()  # v5p-16, h200x8, ...; cpu: this one
    programs: Programs = "all"  # which of them are compiled
    preset: str | None = None  # start `algorithm` from a known method's settings
    out: pathlib.Path | None = None  # a file for the numbers, as JSON


def main(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        raise Refused("plan needs an experiment file first. See `plan FILE --help`.")
    if not jax.config.jax_platforms:  # or plugins would look for their own hardware
        jax.config.update("jax_platforms", "cpu")
    path, *overrides = words
    given = experiment.parse(experiment.load(path), overrides, "plan", Order)
    if not given.topology:
        raise Refused("--topology names no machine. Try cpu, v5e-8 or h200x8.")
    spec = spec_of(given.config)
    meshes = {name: mesh_of(name, given.config) for name in given.topology}
    found = []
    for name, mesh in meshes.items():
        one = planned(spec, given.config, mesh, name, given.programs)
        found.append(one)
        Console().print(table(one), verdict(one), soft_wrap=True)
    if given.out is not None:
        workdir.replace(given.out, json.dumps(found) + "\n")
    return 0


def spec_of(chosen: config.Config) -> Spec:
    """Of a model known by name, which then need not be here, or of one that is."""
    if "online" not in chosen.stages:
        raise Refused(
            f"stages is {chosen.stages}; the programs that are compiled are those of "
            "online learning. Add it."
        )
    if chosen.sampling.max_prompt is None:
        raise Refused(
            "sampling.max_prompt is None, and shapes are compiled for it. Set it to "
            "the tokens of the longest question, as 512."
        )
    if chosen.model.name in sizes.SPECS:
        return sizes.SPECS[chosen.model.name]
    try:
        return load.find(chosen.model).spec
    except Refused as error:
        raise Refused(
            f"{error} Or plan for one that is known by name (`models` lists them), as "
            "--model.name qwen2.5-1.5b."
        ) from error


def mesh_of(machine: str, chosen: config.Config | None = None) -> Mesh:
    """Of a machine's devices; where no axes are chosen, parameters are cut over all."""
    devices = jax.devices()[:1] if machine == "cpu" else topology.devices(machine)
    axes = chosen.training.mesh if chosen else None
    return sharding.mesh(*(axes or (1, len(devices), 1)), devices)


def planned(
    spec: Spec, chosen: config.Config, mesh: Mesh, machine: str, programs: Programs
) -> dict[str, Any]:
    """All that is said of a machine."""
    devices = mesh.devices.flatten().tolist()
    found = {"machine": machine, "device": devices[0].device_kind}
    found |= {"devices": len(devices), "room": room(machine)}
    parts, seconds = held(spec, chosen, mesh), {}
    beside = standing(spec, chosen, mesh)
    adds = {"publish": beside["publish"]} if programs != "learning" else {}
    for name, program in lowered(spec, chosen, mesh, programs=programs):
        row, _ = measured(program, machine)
        given = sum(parts["held"][x] for x in GIVEN.get(name, ()))
        given = min(given, row["arguments_gib"])  # reading does not need all of it
        adds[name] = row["in_all_gib"] - given + beside.get(name, 0.0)
        seconds[name] = row["compile_s"]
    return found | parts | {"adds": adds, "compile_s": seconds}


def standing(spec: Spec, chosen: config.Config, mesh: Mesh) -> dict[str, float]:
    """What stands beside a program, and is neither held nor given to it."""
    sampler = sampler_of(spec, chosen, mesh)
    asked = chosen.training.batch_size, chosen.sampling.max_prompt
    stored = {k: gib(x) for k, x in plan.stored(sampler, *asked).items()}
    state = learner.abstract(learner.make(spec, chosen, chosen.training.steps, mesh))
    return {
        # Adapters are multiplied out first.
        "publish": 0.0 if state.frozen is None else gib(state.frozen),
        "prefill": sum(stored.values()),
        "grow": stored["questions"],
        # What hosts hold is here while it scores.
        "score": gib(state.reference, of_host=True),
    }


def lowered(
    spec: Spec, chosen: config.Config, mesh: Mesh, programs: Programs = "all"
) -> Iterator[tuple[str, Lowered]]:
    """The programs of a run, by name, each lowered when its turn comes."""
    questions, longest = chosen.training.batch_size, chosen.sampling.max_prompt
    if programs != "learning":
        sampler = sampler_of(spec, chosen, mesh)
        dtype = chosen.model.numerics.compute
        yield from plan.sampling(sampler, dtype, questions, longest)
    if programs != "sampling":
        run = learner.make(spec, chosen, chosen.training.steps, mesh)
        width = shapes.length(longest)
        size = plan.Size(questions, width, chosen.sampling.max_new)
        yield from plan.learning(run, size)


def sampler_of(spec: Spec, chosen: config.Config, mesh: Mesh) -> pool.Sampler:
    """A run's; it stops at any token that a tokenizer would name."""
    known = chosen.sampling, chosen.algorithm.group_size, (0,), spec.vocab
    return pool.Sampler(spec, *known, chosen.model.numerics, mesh)


def measured(program: Lowered, machine: str) -> tuple[dict[str, Any], Compiled]:
    """What a program takes of each device, in GiB, and seconds to compile."""
    start = time.perf_counter()
    compiled = program.compile()
    row = {"compile_s": time.perf_counter() - start, "room_gib": room(machine)}
    gib = plan.memory(compiled).items()
    return row | {f"{k}_gib".replace(" ", "_"): v for k, v in gib}, compiled


def room(machine: str) -> float | None:
    return None if machine == "cpu" else topology.memory(machine) / memory.GIB


def held(spec: Spec, chosen: config.Config, mesh: Mesh) -> dict[str, Any]:
    """What there is from step to step, the copy to sample with, and the gradients of
    an update: GiB of each device."""
    state = learner.abstract(learner.make(spec, chosen, chosen.training.steps, mesh))
    policy, critic = state.policy, state.critic
    dtype = chosen.model.numerics.compute
    parts = {
        "parameters": (policy.params, state.frozen),
        "moments": policy.optimizer,
        "reference": state.reference,
        "critic": critic and critic.params,
        "its moments": critic and critic.optimizer,
        "reward model": judge(spec, chosen, mesh),
        COPY: plan.published(sampler_of(spec, chosen, mesh), dtype),
    }
    trained = policy.params, critic and critic.params
    return {
        "held": {name: gib(part) for name, part in parts.items()},
        "gradients": max(map(gib, trained)),  # of one after the other
    }


def judge(spec: Spec, chosen: config.Config, mesh: Mesh) -> Any:
    """A reward model that is asked, which a run has made, or this one makes."""
    if not chosen.rewards.asks_a_model:
        return None
    if chosen.reward_model.name is not None:
        found = runs.find(Model(name=chosen.reward_model.name), "reward")
        spec, chosen = found.base.spec, found.settings
    params = transformer.abstract(spec, chosen.model.numerics.compute)
    return sharding.placed(params, mesh)


def gib(tree: Any, *, of_host: bool = False) -> float:
    """Of one device; or of what its host holds for it."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize / memory.GIB
        for x in jax.tree.leaves(tree)
        if (x.sharding.memory_kind == reference.HOST) == of_host
    )


def peaks(found: dict[str, Any]) -> dict[str, float]:
    """The most that a device holds while each program runs."""
    held = found["held"]
    state = sum(x for name, x in held.items() if name != COPY)
    return {
        name: state + more + held[COPY] * (name in SAMPLING)
        for name, more in found["adds"].items()
    }


def table(found: dict[str, Any]) -> Table:
    title = f"{found['machine']}: {found['devices']} × {found['device']}, GiB of each"
    out, of_all = Table("what is held", "", "in all", title=title), 0.0
    for name, x in found["held"].items():
        of_all += x
        out.add_row(name, *(f"{x:.3g}", f"{of_all:.3g}") if x else ("", ""))
    out.add_section()
    for name, most in peaks(found).items():
        out.add_row(f"{name} adds", f"{found['adds'][name]:.3g}", f"{most:.3g}")
    return out


def verdict(found: dict[str, Any]) -> str:
    of_all, has = peaks(found), found["room"]
    most = max(of_all, key=of_all.__getitem__)
    said = f"{of_all[most]:.3g} GiB at the peak, which is {most}"
    if has is None:
        return f"Of {', '.join(of_all)}: {said}."
    if of_all[most] <= has:
        return f"It fits, of {', '.join(of_all)}: {said}; a device has {has:.3g}."
    remedy = "model.numerics.remat full, or more training.parts"
    if most in SAMPLING:
        remedy = "fewer sampling.rows at once, or a sampling.cache of bfloat16"
    return (
        f"It does NOT fit: {said}; a device has {has:.3g}. Try {remedy}; or more "
        "devices."
    )
