"""What a process of this machine holds of an arm of table_memory.py: measured.

    python -m grpo_jax train experiments/deepseekmath/resident.py --workdir runs/held

It trains nothing: a Llama of 50M random parameters answers and learns, all completions
equally long. The result is WORKDIR/resident.json, in GiB: what the process holds before
there is a model, and the most in two steps, after two that compile. What is free goes
back to the system at once: a sweep's processes keep it (see `sweep`), and pieces of it
lie between others, which measures the C library. For Linux with the GNU C library.
"""

import ctypes
import json
import pathlib
import re
from typing import Any

from grpo_jax import config, planning, workdir
from grpo_jax.bench import sampling, step
from grpo_jax.models.memory import GIB
from grpo_jax.models.settings import Model
from grpo_jax.section import Refused

NAME = "llama-50m"
FOUND = "resident.json"
STATUS, FORGET = (pathlib.Path("/proc/self", x) for x in ("status", "clear_refs"))
# mallopt's numbers, and what it is told: a buffer of 128 kB or more is mapped alone.
RETURNS = {-1: 131_072, -3: 131_072, -4: 65_536}


def get_config() -> config.Config:
    """GRPO, four questions of 16 tokens × 8 samples of 32."""
    return config.Config(
        model=Model(name=NAME),
        algorithm=config.Algorithm(group_size=8, beta=0.04),
        sampling=config.Sampling(
            temperature=1.0, max_new=32, min_new=32, max_prompt=16
        ),
        training=config.Training(batch_size=4, mesh=(1, 1, 1)),
    )


def check(settings: config.Config):
    """Refuses what cannot be measured here, before anything is written."""
    if settings.model.name != NAME:
        raise Refused(
            f"model.name is {settings.model.name!r}; {NAME} is what is run. For others "
            "there is `python -m grpo_jax plan`."
        )
    if not (FORGET.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")):
        raise Refused(
            f"{FORGET} or malloc_trim is not there, by which memory is measured. Use "
            "Linux with the GNU C library."
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


def run(settings: config.Config, folder: pathlib.Path):
    found = measured(settings)
    workdir.replace(folder / FOUND, json.dumps(found) + "\n")


def measured(settings: config.Config) -> dict[str, Any]:
    for what, value in RETURNS.items():
        ctypes.CDLL(None).mallopt(what, value)
    before = of_process("VmRSS")
    arm = Arm(settings)
    for number in range(2):  # which compile
        arm.learn(arm.answered(number))
    first = of_process("VmHWM")
    forget()
    between = of_process("VmHWM")
    for number in range(2, 4):
        arm.learn(arm.answered(number))
    found = {"before": before, "compiling": first, "between": between}
    found["peak"] = of_process("VmHWM")
    return found | planning.held(arm.spec, settings, planning.mesh_of("cpu"))


def forget():
    """The most so far; what is free goes back first."""
    ctypes.CDLL(None).malloc_trim(0)
    FORGET.write_text("5")


def of_process(name: str) -> float:
    return int(re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())[1]) * 1024 / GIB
