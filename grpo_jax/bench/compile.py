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
from typing import Annotated, Literal, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

from grpo_jax import config, line, planning, topology
from grpo_jax.bench import hlo, sampling
from grpo_jax.models import memory, settings, sizes
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused


class Options(NamedTuple):
    """Compiles a run for machines that are not here: bytes of each device."""

    machines: Annotated[tuple[str, ...], tyro.conf.Positional]  # v5e-8 h200x1, or cpu
    model: str = "qwen2.5-1.5b"  # of `python -m grpo_jax models`, or llama-50m
    mesh: tuple[int, int, int] | None = None  # data, fsdp, model
    programs: planning.Programs = "all"  # which of them
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
            temperature=1.0,
            max_new=options.new,
            max_prompt=options.prompt_tokens,
            cache=options.dtype,
        ),
        critic=critic,
        training=config.Training(
            batch_size=options.prompts, parts=options.parts, mesh=options.mesh
        ),
    )


def _compiled(options: Options, spec: Spec, machine: str, chosen: config.Config):
    """Each program's name, what it takes of a device, and seconds to compile."""
    mesh = planning.mesh_of(machine, chosen)
    tokens = options.prompt_tokens + chosen.algorithm.group_size * options.new
    tokens *= options.prompts / options.minibatches / mesh.size
    given = spec, chosen, mesh, options.programs
    for name, program in planning.lowered(*given):
        row, compiled = planning.measured(program, machine)
        row |= dict.fromkeys(("token_gflop", "sent_gib"))
        if name in ("score", "critic", "update") and machine not in topology.TPUS:
            counted = hlo.count(compiled.as_text())
            row["token_gflop"] = counted.operations / tokens / 1e9
            row["sent_gib"] = sum(counted.sent.values()) / memory.GIB
        yield sampling.rounded({"program": name} | row)


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
