"""Compiles a run for machines that are not here, and says what it takes of them.

    python -m grpo_jax bench compile v5e-8 h200x1 [--model qwen2.5-1.5b] ...
    python -m grpo_jax bench compile cpu --chunk 128 512 --remat none dots full

Sampling, the scores of the reference, and an update. Several values of `--group`,
`--chunk` or `--remat` give a row each. Without `--mesh` everything is cut over all
devices (fsdp). See `topology` for what must be installed, and for the machines; `cpu`
is this one. Of learning, and not for TPUs, also the operations of each token and what
a device sends to others. The last line is one JSON object.
"""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import jax
import tyro
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered
from rich.console import Console
from rich.table import Table

from grpo_jax import config, learner, line, plan, pool, sharding, topology
from grpo_jax.bench import hlo, sampling
from grpo_jax.models import memory, settings, sizes
from grpo_jax.models.spec import Spec
from grpo_jax.sampling import shapes
from grpo_jax.section import Refused

Programs = Literal["all", "sampling", "learning"]


class Options(NamedTuple):
    """Compiles a run for machines that are not here: bytes of each device."""

    machines: Annotated[tuple[str, ...], tyro.conf.Positional]  # v5e-8 h200x1, or cpu
    model: str = "qwen2.5-1.5b"  # of `python -m grpo_jax models`, or llama-50m
    mesh: tuple[int, int, int] | None = None  # data, fsdp, model
    programs: Programs = "all"  # which of them
    prompts: int = 64  # B
    group: tuple[int, ...] = (8,)  # G
    new: int = 1024  # tokens of a row
    prompt_tokens: int = 512  # of each question
    parts: int = 1  # of an update
    minibatches: int = 1  # that a rollout is cut into
    beta: float = 0.04  # of the KL; 0: no reference is scored
    chunk: tuple[int, ...] = (512,)  # tokens whose logits exist at once
    remat: tuple[Literal["none", "dots", "full"], ...] = ("dots",)  # what is recomputed
    critic: Literal["none", "own", "shared"] = "none"  # PPO's
    lora: int = 0  # rank
    attention: Literal["xla", "splash", "cudnn"] = "xla"  # of whole rows
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # masters: float32


def main(words: list[str]) -> int:
    options = line.parse("bench compile", Options, words)
    spec, rows = spec_of(options.model), []
    for machine in options.machines:
        for values in itertools.product(options.group, options.chunk, options.remat):
            knobs = dict(zip(("group", "chunk", "remat"), values, strict=True))
            settings_ = _settings(options, **knobs)
            for found in _compiled(options, spec, machine, settings_):
                rows.append({"machine": machine} | knobs | found)
    Console().print(_table(rows))
    print(json.dumps({"compiled": rows}))
    return 0


def spec_of(model: str) -> Spec:
    known = sizes.SPECS | {"llama-50m": sampling.SPEC}
    if model not in known:
        raise Refused(f"{model!r} is no model known by name. See `models` for those.")
    return known[model]


def _settings(options: Options, group: int, chunk: int, remat: str) -> config.Config:
    advantage, critic = config.Advantage(), config.Critic()
    if options.critic != "none":
        advantage = config.Advantage(estimator="gae", scale_rewards="none")
        critic = config.Critic(trunk=options.critic)
    numerics = settings.Numerics(
        compute=options.dtype, chunk=chunk, remat=remat, attention=options.attention
    )
    return config.Config(
        model=settings.Model(numerics=numerics, lora=settings.Lora(rank=options.lora)),
        algorithm=config.Algorithm(
            group_size=group,
            beta=options.beta,
            minibatches=options.minibatches,
            advantage=advantage,
        ),
        sampling=config.Sampling(
            temperature=1.0, max_new=options.new, cache=options.dtype
        ),
        critic=critic,
        training=config.Training(batch_size=options.prompts, parts=options.parts),
    )


def _compiled(options: Options, spec: Spec, machine: str, chosen: config.Config):
    """Each program's name, what it takes of a device, and seconds to compile."""
    mesh = mesh_of(machine, options.mesh)
    tokens = options.prompt_tokens + chosen.algorithm.group_size * options.new
    tokens *= options.prompts / options.minibatches / mesh.size
    given = spec, chosen, mesh, options.prompt_tokens
    for name, program in lowered(*given, programs=options.programs):
        row, compiled = measured(program, machine)
        row |= dict.fromkeys(("token_gflop", "sent_gib"))
        if name in ("score", "critic", "update") and machine not in topology.TPUS:
            counted = hlo.count(compiled.as_text())
            row["token_gflop"] = counted.operations / tokens / 1e9
            row["sent_gib"] = sum(counted.sent.values()) / memory.GIB
        yield sampling.rounded({"program": name} | row)


def mesh_of(machine: str, axes: tuple[int, int, int] | None = None) -> Mesh:
    """Of a machine's devices; without axes all parameters are cut over them."""
    devices = jax.devices()[:1] if machine == "cpu" else topology.devices(machine)
    return sharding.mesh(*(axes or (1, len(devices), 1)), devices)


def lowered(
    spec: Spec,
    chosen: config.Config,
    mesh: Mesh,
    prompt_tokens: int,
    programs: Programs = "all",
) -> Iterator[tuple[str, Lowered]]:
    """The programs of a run, by name, each lowered when its turn comes."""
    questions = chosen.training.batch_size
    if programs != "learning":
        sampler = sampler_of(spec, chosen, mesh)
        dtype = chosen.model.numerics.compute
        yield from plan.sampling(sampler, dtype, questions, prompt_tokens)
    if programs != "sampling":
        run = learner.make(spec, chosen, 1000, mesh)
        width = shapes.length(prompt_tokens)
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
    seconds = time.perf_counter() - start
    room = None if machine == "cpu" else topology.memory(machine) / memory.GIB
    row = {"compile_s": seconds, "room_gib": room}
    gib = plan.memory(compiled).items()
    return row | {f"{k}_gib".replace(" ", "_"): v for k, v in gib}, compiled


def _table(rows: list[dict]) -> Table:
    """What is the same in all rows stands in none."""
    headers = {
        **{"machine": "machine", "group": "G", "chunk": "chunk", "remat": "remat"},
        **{"program": "program", "compile_s": "s", "arguments_gib": "given"},
        **{"temporary_gib": "temporary", "in_all_gib": "in all", "room_gib": "of"},
        **{"token_gflop": "GFLOP/token", "sent_gib": "sent"},
    }
    shown = [k for k in headers if len(rows) == 1 or len({r[k] for r in rows}) > 1]
    title = "Each device: seconds to compile, GiB of memory, GiB sent to others"
    table = Table(*(headers[k] for k in shown), title=title)
    for row in rows:
        cells = (row[k] for k in shown)
        cells = (f"{x:.3g}" if isinstance(x, float) else x for x in cells)
        table.add_row(*("" if x is None else str(x) for x in cells))
    return table
