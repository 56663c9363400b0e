"""What GRPO or PPO takes of a machine's memory: compiled for it, or measured here.

    JAX_PLATFORMS=cpu python -m grpo_jax train experiments/deepseekmath/memory.py \\
        --workdir runs/memory --data.name v5p-16

It trains nothing. `data.name` is a machine (see `topology`), or the file that the first
point of a sweep describes it in. `data.subset` is what is asked: `learning`, `sampling`
compile the programs of a step for it, `resident` runs some steps on this machine's CPU,
`machines` says what there is. The result is WORKDIR/memory.json, in GiB of each device.

Compiling for a TPU needs libtpu, for a GPU jax-cuda13-plugin and jax-cuda13-pjrt: no
hardware, and no CUDA libraries if JAX_PLATFORMS is cpu, or the plugin looks for them.
"""

import json
import math
import pathlib
import re
from typing import Any

import jax
from jax.sharding import Mesh

from grpo_jax import config, learner, plan, topology, workdir
from grpo_jax.bench import compile as bench
from grpo_jax.bench import sampling, step
from grpo_jax.models.memory import GIB
from grpo_jax.models.settings import Model, Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

SMALL = "llama-50m"  # what is run here
FOUND = "memory.json"


def get_config() -> config.Config:
    """GRPO's update of DeepSeekMath 7B, of the paper's size, for eight H200."""
    return config.Config(
        model=Model(
            name="deepseek-math-7b",
            numerics=Numerics(compute="bfloat16", remat="full"),
        ),
        data=config.Data(name="h200x8", subset="learning"),
        algorithm=config.Algorithm(group_size=64, beta=0.04),
        sampling=config.Sampling(
            temperature=1.0, max_new=1024, max_prompt=512, rows=512, cache="bfloat16"
        ),
        training=config.Training(batch_size=16, parts=2, mesh=(1, 8, 1)),
    )


def machines(settings: config.Config) -> list[str]:
    return pathlib.Path(settings.data.name).name.removesuffix(".json").split("+")


def check(settings: config.Config):
    """Refuses what cannot be compiled or measured here, before anything is written."""
    if not jax.config.jax_platforms:  # or plugins would look for their own hardware
        jax.config.update("jax_platforms", "cpu")
    kind, names = settings.data.subset, machines(settings)
    if kind not in RUNS:
        raise Refused(f"data.subset is {kind!r}; it must be one of {', '.join(RUNS)}.")
    if kind == "resident" and (names, settings.model.name) != (["cpu"], SMALL):
        raise Refused(
            f"only {SMALL} on this machine's CPU is run; data.name is {names[0]} and "
            f"model.name {settings.model.name}. Set data.subset to learning to compile."
        )
    bench.spec_of(settings.model.name)
    for name in names:
        if name != "cpu":
            topology.devices(name)


def run(settings: config.Config, folder: pathlib.Path):
    found = RUNS[settings.data.subset](settings)
    if settings.data.subset == "machines":
        for name, one in found.items():
            workdir.replace(folder / f"{name}.json", json.dumps(one) + "\n")
    workdir.replace(folder / FOUND, json.dumps(found) + "\n")


def described(settings: config.Config) -> dict[str, Any]:
    """The machines, and so whether there are compilers for them."""
    found = {}
    for name in machines(settings):
        devices = bench.mesh_of(name).devices.flatten().tolist()
        known = {"kind": devices[0].device_kind, "devices": len(devices)}
        if name != "cpu":
            known["gib"] = topology.memory(name) / GIB
        found[name] = known
    return found


def learned(settings: config.Config) -> dict[str, Any]:
    return compiled(settings, "learning")


def sampled(settings: config.Config) -> dict[str, Any]:
    return compiled(settings, "sampling")


def compiled(settings: config.Config, programs: bench.Programs) -> dict[str, Any]:
    """What a device holds, and each program's bytes, its arguments among them."""
    spec, (machine,) = bench.spec_of(settings.model.name), machines(settings)
    mesh, found = bench.mesh_of(machine, settings.training.mesh), {}
    given = spec, settings, mesh, settings.sampling.max_prompt
    for name, program in bench.lowered(*given, programs=programs):
        found[name], _ = bench.measured(program, machine)
    return held(spec, settings, mesh) | {"programs": found}


def held(spec: Spec, settings: config.Config, mesh: Mesh) -> dict[str, Any]:
    """GiB of each device, by arithmetic on shapes and how they are cut."""
    state = learner.abstract(learner.make(spec, settings, 1000, mesh))
    policy, critic = state.policy, state.critic
    dtype = settings.model.numerics.compute
    parts = {
        "parameters": (policy.params, state.frozen),
        "moments": policy.optimizer,
        "reference": state.reference,
        "critic": critic and critic.params,
        "its moments": critic and critic.optimizer,
        "copy": plan.published(bench.sampler_of(spec, settings, mesh), dtype),
    }
    trained = policy.params, critic and critic.params
    return {
        "held": {name: gib(part) for name, part in parts.items()},
        "gradients": max(map(gib, trained)),  # of one after the other
    }


def gib(tree: Any) -> float:
    """Of one device."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize / GIB
        for x in jax.tree.leaves(tree)
    )


class Arm(step.Bench):
    """The bench of a step, for any settings."""

    def __init__(self, settings: config.Config):
        self.chosen = settings
        options = step.Options(
            prompts=settings.training.batch_size,
            group=settings.algorithm.group_size,
            new=settings.sampling.max_new,
            prompt_tokens=settings.sampling.max_prompt,
            beta=settings.algorithm.beta,
            dtype=settings.model.numerics.compute,
        )
        super().__init__(options, *sampling.model_of(None, settings.model.dtype))

    def settings_of(self, options: step.Options) -> config.Config:
        return self.chosen


def resident(settings: config.Config) -> dict[str, Any]:
    """GiB of this process: before there is a model, and the most in two steps."""
    mesh, before = bench.mesh_of("cpu"), of_process("VmRSS")
    arm = Arm(settings)
    for number in range(2):  # which compile
        arm.learn(arm.answered(number))
    first = of_process("VmHWM")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the most so far
    for number in range(2, 4):
        arm.learn(arm.answered(number))
    measured = {"before": before, "compiling": first, "peak": of_process("VmHWM")}
    return measured | held(arm.spec, settings, mesh)


def of_process(name: str) -> float:
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024 / GIB


RUNS = {
    "machines": described,
    "learning": learned,
    "sampling": sampled,
    "resident": resident,
}
