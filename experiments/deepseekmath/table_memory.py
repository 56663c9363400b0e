"""How much memory does GRPO save, which has no critic? Some 40 to 50%, it is said.

    JAX_PLATFORMS=cpu python -m grpo_jax reproduce table_memory --jobs 1

The paper (4.1.1) says that a critic is "a substantial memory and computational burden"
and gives no number; 40 to 50% is what others say of it. Here the update of each arm,
and the sampler that all share, are compiled for eight H200 and for eight chips of v5p
(which have no need to be here: see `topology`), on the same mesh, for the paper's 16
questions of 512 tokens × 64 samples of 128 or 1,024 tokens. PPO learns from the same
rows: what questions cost is the same. `resident` is measured: the most that a process
on this machine's CPU held in two steps of a model of 50M, after two that compile.

Predicted by arithmetic, before any of it was run. Parameters and gradients in float32
take 4 bytes of a parameter each, AdamW's moments 8, the reference 4, a critic on a
trunk of its own 12 (less where it needs no unembedding: 7B), and a copy in bfloat16 to
sample with 2: whole on every device (`sharding.for_decoding`), while the rest is cut.

    saved by               against             of the state   with the gradient
    GRPO                   PPO                 12/28 = 43%    12/32 = 38%  (7B: 41, 36)
    GRPO without a KL      PPO without one     12/24 = 50%    12/28 = 43%  (7B: 48, 41)
    GRPO without a KL      PPO                 16/28 = 57%    16/32 = 50%  (7B: 56, 49)
    GRPO                   PPO, shared trunk       0               0
    adapters of rank 16    GRPO                      87% (7B; the frozen in bfloat16)

So the claim would be true of the state that is held between updates, if one counts
nothing else, and if the critic is as large as the policy, trained whole, by the same
optimizer. Counted with the copy on eight devices it is 27% (7B: 26). At its peak an
update also holds activations, which are the policy's or the critic's, one after the
other: they are in both arms alike, and the more tokens a device has at once, the less
is saved. For 7B a device's 64 rows of 1,024 tokens need 16 GB between layers and twice
13 GB within one, where the critic is 10: some 12% should be left. At 128 tokens, 20%.

NOT YET RUN to its end. Compiled so far (2026-11-30), in GiB of a device:

    model, machine, tokens    state          copy  update adds  in all       at the peak
    7B, h200x8, 16 × 64       12.9 and 21.9  12.9  60.2         86.0 and 95.1    -10%
        × 1,024
    1.5B, v5p-8, 8 × 64        5.8 and 10.1   2.9   5.3         13.9 and 18.2    -24%
        × 128

of GRPO and of PPO. The programs are those of PPO, whose update is taken for GRPO's; a
critic's adds less than the policy's (58.3). Of the state 41 and 43% are saved, and of
7B's with the copy 26%, as was predicted. Activations of 7B took 54 where 39 had been
reckoned, so less is left of it at the peak.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from grpo_jax import experiment, figures
from grpo_jax.sweep import Made, Point

memory = experiment.load(str(pathlib.Path(__file__).with_name("memory.py")))
get_config, SMALL = memory.get_config, memory.SMALL

NAME, SEEDS = "table_memory", 1  # of what is measured; a compiler repeats itself
FILE = "experiments/deepseekmath/memory.py"
MODELS = "qwen2.5-1.5b", "deepseek-math-7b"
MACHINES = "h200x8", "v5p-16"  # eight devices each
NEW, FEW_NEW = (128, 1024), (32, 256)  # tokens of a completion; on this machine

PPO = {"preset": "ppo", "algorithm.beta": 0.04}
NO_KL = {"algorithm.beta": 0.0}
LORA = {"model.lora.rank": 16}
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {},
    "PPO": PPO,
    "PPO, shared trunk": PPO | {"critic.trunk": "shared"},
    "GRPO, no KL": NO_KL,
    "PPO, no KL": PPO | NO_KL | {"algorithm.kl.placed": "loss"},
    "LoRA GRPO": LORA | {"model.dtype": "bfloat16"},
    "LoRA PPO": PPO | LORA,  # its critic is trained whole, which asks for float32
}
SAVINGS = {  # of an arm, against others
    "GRPO": ("PPO", "PPO, shared trunk"),
    "GRPO, no KL": ("PPO, no KL", "PPO"),
    "LoRA GRPO": ("LoRA PPO", "GRPO"),
}

HERE = {  # four questions of 16 tokens × 8 samples
    "algorithm.group_size": 8,
    "model.numerics.compute": "float32",
    "sampling.max_prompt": 16,
    "sampling.cache": "float32",
    "training.batch_size": 4,
    "training.mesh": (1, 1, 1),
}


class Place(NamedTuple):
    """What a point is of; its name."""

    kind: str
    model: str
    machine: str
    new: int
    arm: str = "GRPO"
    seed: int = 0

    def __str__(self) -> str:
        arm = re.sub(r"[^\w+-]+", "_", self.arm)
        return "/".join([NAME, *map(str, self[:4]), f"{arm}-{self.seed}"])


def places(seeds: int, smoke: bool) -> list[Place]:
    """A GPU's programs take seconds to compile and a TPU's minutes: these come last."""
    if smoke:
        few, known = ("GRPO", "PPO"), (SMALL, "cpu", 8)
        compiled = [Place("learning", *known, arm) for arm in [*few, "LoRA GRPO"]]
        measured = [Place("resident", *known, arm) for arm in few]
        return [Place("sampling", *known), *compiled, *measured]
    measured = [
        Place("resident", SMALL, "cpu", new, arm, seed)
        for seed in range(seeds)
        for new in FEW_NEW
        for arm in ARMS
    ]
    gpu, tpu = map(of_machine, MACHINES)
    return gpu + measured + tpu


def of_machine(machine: str) -> list[Place]:
    found = [(model, machine, new) for model in MODELS for new in NEW]
    sampling = [Place("sampling", *one) for one in found]
    return sampling + [Place("learning", *one, arm) for arm in ARMS for one in found]


def get_points(seeds: int, smoke: bool) -> dict[str, Point]:
    """All need the first, which is refused where a compiler is not installed."""
    first, machines = f"{NAME}/machines", ("cpu",) if smoke else (*MACHINES, "cpu")
    known = {"data.name": "+".join(machines), "data.subset": "machines"}
    points = {first: Point("train", FILE, known)}
    for place in places(seeds, smoke):
        own = {"algorithm.group_size": 64} | ARMS[place.arm]
        own |= HERE if place.model == SMALL else {}
        own |= {"data.subset": place.kind, "seed": place.seed}
        own |= {"data.name": Made(first, f"{place.machine}.json")}
        own |= {"model.name": place.model, "sampling.max_new": place.new}
        if place.kind == "resident":
            own["sampling.min_new"] = place.new
        points[str(place)] = Point("train", FILE, own)
    return points


def keep(folder: pathlib.Path) -> dict[str, Any]:
    return {"found": json.loads((folder / memory.FOUND).read_text())}


# What each program is given of what is held; all else that it takes comes on top.
SAMPLER = dict.fromkeys(("prefill", "decode", "decode fewer"), ("copy",))
GIVEN = SAMPLER | {
    "score": ("parameters",),
    "critic": ("critic", "its moments"),
    "update": ("parameters", "moments"),
}


class Row(NamedTuple):
    """An arm on a machine, in GiB of each device."""

    place: Place
    held: dict[str, float]
    gradients: float
    added: dict[str, float]  # by each program, to what is held
    room: float | None = None

    @property
    def state(self) -> float:
        """From step to step."""
        return sum(x for name, x in self.held.items() if name != "copy")

    @property
    def updated(self) -> float:
        """What an update cannot do without, besides activations."""
        return self.state + self.gradients

    @property
    def all_held(self) -> float:
        """The copy to sample with stays until another takes its place."""
        return sum(self.held.values())

    @property
    def most(self) -> str:
        return max(self.added, key=self.added.__getitem__)

    @property
    def peak(self) -> float:
        return self.all_held + self.added[self.most]

    @property
    def stack(self) -> dict[str, float]:
        """The peak, part by part."""
        rest = self.added[self.most]
        gradients = 0.0 if self.most in SAMPLER else min(self.gradients, rest)
        return self.held | {"gradients": gradients, "all else": rest - gradients}


COMPARED = "state", "updated", "all_held", "peak"


def rows(records: Mapping[str, Any], seeds: int) -> list[Row]:
    known = [x for smoke in (False, True) for x in places(seeds, smoke)]
    found = {x: records[str(x)]["found"] for x in known if str(x) in records}
    out = []
    for place, one in found.items():
        given = one.get("held"), one.get("gradients")
        if place.kind == "learning":
            of_all = found[place._replace(kind="sampling", arm="GRPO")]["programs"]
            programs = one["programs"] | of_all
            added = {
                name: x["in_all_gib"] - sum(one["held"][part] for part in GIVEN[name])
                for name, x in programs.items()
            }
            room = programs["update"]["room_gib"]
            out.append(Row(place, *given, added, room))
        elif place.kind == "resident":  # where no copy is left when it learns
            known = Row(
                place,
                {k: x for k, x in given[0].items() if k != "copy"},
                *given[1:],
                {},
            )
            rest = one["peak"] - one["before"] - known.state
            out.append(known._replace(added={"step": rest}))
    return out


def saved(found: list[Row]) -> list[dict[str, Any]]:
    """In percent of what another takes."""
    by, out = {one.place: one for one in found}, []
    for place, ours in by.items():
        for other in SAVINGS.get(place.arm, ()):
            theirs = by.get(place._replace(arm=other))
            if theirs is not None:
                shares = {x: getattr(ours, x) / getattr(theirs, x) for x in COMPARED}
                percent = {x: 100 * (1 - share) for x, share in shares.items()}
                out.append(place._asdict() | {"against": other} | percent)
    return out


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    found = rows(records, seeds)
    savings = saved(found)
    Console().print(table(found), table_of(savings))
    numbers = {
        "machines": records[f"{NAME}/machines"]["found"],
        "GiB": [
            one.place._asdict() | one._asdict() | {"at": one.most, "peak": one.peak}
            for one in found
        ],
        "saved, %": savings,
    }
    figures.write(NAME, drawn(found), numbers, told(savings), records, out)


def told(savings: list[dict[str, Any]]) -> str:
    """Of GRPO against PPO, wherever both are."""

    def span(kind: str, name: str) -> str:
        of = [
            x[name]
            for x in savings
            if (x["kind"], x["arm"], x["against"]) == (kind, "GRPO", "PPO")
        ]
        return f"{min(of):.0f} to {max(of):.0f}%"

    return (
        f"GRPO saves {span('learning', 'state')} of PPO's state, "
        f"{span('learning', 'all_held')} with the copy to sample with, and "
        f"{span('learning', 'peak')} at the peak; {span('resident', 'peak')} of "
        "resident memory measured at 50M"
    )


def table(found: list[Row]) -> Table:
    ends = "gradients", "at the peak", "added there", "in all", "of"
    titles = "kind", "model", "machine", "new", "arm", *found[0].held, *ends
    out = Table(*titles, title="GiB of a device")
    for one in found:
        parts = [one.held.get(name, 0.0) for name in found[0].held]
        ends = one.added[one.most], one.peak, one.room or 0.0
        numbers = [f"{x:.2f}" if x else "" for x in (*parts, one.gradients, *ends)]
        numbers.insert(len(parts) + 1, one.most)
        out.add_row(*map(str, one.place[:5]), *numbers)
    return out


def table_of(savings: list[dict[str, Any]]) -> Table:
    titles = "kind", "model", "machine", "new", "arm", "against"
    out = Table(*titles, *COMPARED, title="saved, %")
    for one in savings:
        numbers = (f"{one[name]:.1f}" for name in COMPARED)
        out.add_row(*(str(one[name]) for name in titles), *numbers)
    return out


LOOKS = {  # told apart in grey too
    "parameters": {"color": "#000000"},
    "moments": {"color": "#555555"},
    "reference": {"color": "#999999"},
    "critic": {"color": "#0072b2", "hatch": "//"},
    "its moments": {"color": "#56b4e9", "hatch": "\\\\"},
    "copy": {"color": "#cccccc"},
    "gradients": {"color": "#e69f00", "hatch": ".."},
    "all else": {"color": "#ffffff"},
}


def drawn(found: list[Row]) -> Figure:
    """A panel for each model and machine: what is held, and what comes on top."""
    panels: dict[tuple[str, str, str], list[Row]] = {}
    for one in found:
        if one.place.seed == 0:
            panels.setdefault(one.place[:3], []).append(one)
    figure = Figure(figsize=(12, 3.6 * -(-len(panels) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, of) in zip(grid.flat, panels.items(), strict=False):
        stacks(axes, of)
        where = "measured" if title[0] == "resident" else "GiB of a device"
        axes.set(title=", ".join(title[1:]), xlabel=where)
    handles = grid.flat[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(LOOKS))
    return figure


def stacks(axes: Axes, found: list[Row]):
    labels = [f"{one.place.arm}, {one.place.new}" for one in found]
    left = [0.0] * len(found)
    for name, look in LOOKS.items():
        width = [one.stack.get(name, 0.0) for one in found]
        axes.barh(labels, width, left=left, label=name, edgecolor="black", **look)
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
