"""Compiles the sampler for machines that are not here, and says what it takes of them.

    python -m grpo_jax bench compile v5e-8 h200x1 [--model qwen2.5-1.5b] ...

See `topology` for what must be installed, and for the machines. Rows are cut over all
devices. The last line is one JSON object.
"""

import json
import time
from typing import Annotated, Literal, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

from grpo_jax import plan, pool, sharding, topology
from grpo_jax.models import memory, settings, sizes
from grpo_jax.sampling.settings import Sampling
from grpo_jax.section import Refused


class Options(NamedTuple):
    machines: Annotated[tuple[str, ...], tyro.conf.Positional]
    model: str = "qwen2.5-1.5b"  # of `python -m grpo_jax models`
    prompts: int = 64  # B
    group: int = 8  # G
    new: int = 1024
    prompt_tokens: int = 512
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


def main(words: list[str]) -> int:
    options = tyro.cli(Options, args=words, prog="python -m grpo_jax bench compile")
    if options.model not in sizes.SPECS:
        raise Refused(
            f"{options.model!r} is no model known by name. See `models` for those."
        )
    result = {}
    table = Table("machine", "program", "compiled in", "arguments", "in all", "of")
    for machine in options.machines:
        room = topology.memory(machine) / memory.GIB
        result[machine] = {}
        for name, seconds, gib in _compiled(options, machine):
            result[machine][name] = {"compile_s": round(seconds, 1)} | {
                k: round(v, 3) for k, v in gib.items()
            }
            sizes_ = (f"{x:.2f} GiB" for x in (gib["arguments"], gib["in all"], room))
            table.add_row(machine, name, f"{seconds:.0f} s", *sizes_)
    Console().print(table)
    print(json.dumps({"gib_per_device": result}))
    return 0


def _compiled(options: Options, machine: str):
    devices = topology.devices(machine)
    mesh = sharding.mesh(1, len(devices), 1, devices)
    spec = sizes.SPECS[options.model]
    chosen = Sampling(temperature=1.0, max_new=options.new, cache=options.dtype)
    numerics = settings.Numerics(compute=options.dtype)
    sampler = pool.Sampler(
        spec, chosen, options.group, (0,), spec.vocab, numerics, mesh
    )
    asked = options.prompts, options.prompt_tokens
    for name, lowered in plan.sampling(sampler, options.dtype, *asked):
        start = time.perf_counter()
        compiled = lowered.compile()
        yield name, time.perf_counter() - start, plan.memory(compiled)
