"""How much memory does GRPO save, which has no critic? Some 40 to 50%, it is said.

    JAX_PLATFORMS=cpu python -m grpo_jax reproduce table_memory --jobs 1

The paper (4.1.1) says that a critic is "a substantial memory and computational burden"
and gives no number; 40 to 50% is what others say of it. Here the update of each arm,
and the sampler that all share, are compiled for eight H200 and for eight chips of v5p
(which have no need to be here: see `topology`), on the same mesh, for the paper's 16
questions of 512 tokens × 64 samples of 128 or 1,024 tokens. PPO learns from the same
rows: what questions cost is the same. On v5p completions are of 1,024 tokens alone: its
compiler takes minutes. resident.py measures the most that a process on this machine's
CPU held in two steps of a model of 50M, after two that compile.

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

(These two shares counted the copy during updates too. A first look, before the table
was run, showed that a run indeed kept it: 12.9 GiB of each device for nothing. It is
now let go when the samples are there, and counts where they are drawn alone. The same
look, at PPO's programs of 7B with 1,024 tokens on H200, found an update's activations
to be 54 GiB where 39 had been reckoned.)

Run on two cores, 62 points in 1.3 hours of processes (a GPU's programs take half a
minute, a v5p's two to four; of these two points ran at a time). What is held is what
was reckoned, to a percent: 43% of PPO's state (7B: 41), 38 with the gradient (36), 27
with the copy (26); without a KL 50 and 48; against a PPO with a shared trunk nothing;
adapters 82 and 85. These are sums over shapes, and say that the accounts are right, no
more.

At the peak GRPO saves 21% of PPO's memory at 128 tokens, and 7 to 10% at 1,024, on
H200 as on v5p, at 1.5B as at 7B; 20 and 12 had been reckoned. It is always the critic's
own state, 2.2 GiB of a device or 9.1, and what else is there grows with the tokens. At
1.5B that is an update's activations, as expected. At 7B it is not the update: it is
decoding. The model has as many heads of keys as of queries, 0.47 MiB a token, so that
a device's 64 rows hold 30 GiB of keys and values; and both compilers hold them twice
(on H200 since the loop over tokens wants them in another order than they come in). So
GRPO takes 86 of an H200's 141 GiB and PPO 95; of a v5p's 95.7 GRPO takes 90 and PPO 99,
and does not fit: there the critic decides, but by what is left beside the sampler.
Adapters of rank 16 save 12 to 13% of 7B's peak at 1,024 tokens, and 32 at 128.

Measured, at 50M, it is the same: of 2.51 GiB resident with 32 tokens GRPO saves 25%, of
3.96 with 256 15%: 0.6 both times, where the critic's state is 0.56; and nothing against
a shared trunk. Adapters save 38% at 32 tokens, and cost 7% at 256, where more than the
state is at stake. (A first measurement said 44% at 256. Its processes kept what was
free, as a sweep's do, and PPO's pieces lay badly; now that goes back to the system.)

So the claim of 40 to 50% is true of what stands between updates, if the critic is a
second model of the policy's size. It is not true of what a run needs: that is less than
a quarter with short answers, and a tenth at the paper's length; and with a trunk that
is shared PPO costs nothing more.
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

from grpo_jax import config, experiment, figures, planning, sweep
from grpo_jax.models.settings import Model, Numerics
from grpo_jax.planning import COPY
from grpo_jax.sweep import Point

resident = experiment.load(str(pathlib.Path(__file__).with_name("resident.py")))

NAME, SEEDS = "table_memory", 1  # of what is measured; a compiler repeats itself
FILES = {kind: f"experiments/deepseekmath/{kind}.py" for kind in (NAME, "resident")}
MODELS = "qwen2.5-1.5b", "deepseek-math-7b"
NEW, FEW_NEW = (128, 1024), (32, 256)  # tokens of a completion; on this machine


def get_config() -> config.Config:
    """GRPO's update of DeepSeekMath 7B, of the paper's size, on eight devices."""
    return config.Config(
        model=Model(
            name="deepseek-math-7b",
            numerics=Numerics(compute="bfloat16", remat="full"),
        ),
        algorithm=config.Algorithm(group_size=64, beta=0.04),
        sampling=config.Sampling(
            temperature=1.0, max_new=1024, max_prompt=512, rows=512, cache="bfloat16"
        ),
        training=config.Training(batch_size=16, parts=2, mesh=(1, 8, 1)),
    )


PPO = {"preset": "ppo", "algorithm.beta": 0.04}
NO_KL = {"algorithm.beta": 0.0}
LORA_GRPO, LORA = "LoRA GRPO", {"model.lora.rank": 16}
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {},
    "PPO": PPO,
    "PPO, shared trunk": PPO | {"critic.trunk": "shared"},
    "GRPO, no KL": NO_KL,
    "PPO, no KL": PPO | NO_KL | {"algorithm.kl.placed": "loss"},
    LORA_GRPO: LORA | {"model.dtype": "bfloat16"},
    "LoRA PPO": PPO | LORA,  # its critic is trained whole, which asks for float32
}
SAVINGS = {  # of an arm, against others
    "GRPO": ("PPO", "PPO, shared trunk"),
    "GRPO, no KL": ("PPO, no KL", "PPO"),
    LORA_GRPO: ("LoRA PPO", "GRPO"),
}

WIDTH = 200  # of tables, in characters
SMOKE = {  # of a step that is planned in seconds
    "model.name": "tiny",
    "algorithm.group_size": 8,
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

    @property
    def told(self) -> str:
        return f"{self.kind}, {self.model}, {self.machine}, {self.new}: {self.arm}"


def places(seeds: int, smoke: bool) -> list[Place]:
    """Of eight devices each. A GPU's programs take seconds to compile and a TPU's
    minutes: these come last, and are fewer."""
    if smoke:
        known, few = ("cpu", 8), ("GRPO", "PPO")
        compiled = [Place("learning", "tiny", *known, arm) for arm in [*few, LORA_GRPO]]
        measured = [Place("resident", resident.NAME, *known, arm) for arm in few]
        return [Place("sampling", "tiny", *known), *compiled, *measured]
    measured = [
        Place("resident", resident.NAME, "cpu", new, arm, seed)
        for seed in range(seeds)
        for new in FEW_NEW
        for arm in ARMS
    ]
    return of_machine("h200x8", *NEW) + measured + of_machine("v5p-16", NEW[-1])


def of_machine(machine: str, *lengths: int) -> list[Place]:
    found = [(model, machine, new) for model in MODELS for new in lengths]
    sampling = [Place("sampling", *one) for one in found]
    return sampling + [Place("learning", *one, arm) for arm in ARMS for one in found]


def get_points(seeds: int, smoke: bool) -> dict[str, Point]:
    points = {}
    for place in places(seeds, smoke):
        own = ARMS[place.arm] | {"sampling.max_new": place.new}
        # A preset sets it as well, and what is compared are equally many rows.
        usual = resident.get_config if place.kind == "resident" else get_config
        own["algorithm.group_size"] = usual().algorithm.group_size
        if place.kind == "resident":
            own |= {"sampling.min_new": place.new, "seed": place.seed}
            points[str(place)] = Point("train", FILES["resident"], own)
            continue
        own |= {"model.name": place.model} | (SMOKE if smoke else {})
        own |= {"topology": place.machine, "programs": place.kind}
        points[str(place)] = Point("plan", FILES[NAME], own)
    return points


def keep(folder: pathlib.Path) -> dict[str, Any]:
    of_plan, measured = folder / sweep.FILE["plan"], folder / resident.FOUND
    if measured.exists():
        return {"found": json.loads(measured.read_text())}
    (found,) = json.loads(of_plan.read_text())
    return {"found": found}


class Row(NamedTuple):
    """An arm on a machine, in GiB of each device."""

    place: Place
    held: dict[str, float]
    gradients: float
    adds: dict[str, float]  # each program, to what is held
    room: float | None = None

    @property
    def state(self) -> float:
        """From step to step."""
        return self.all_held - self.held[COPY]

    @property
    def updated(self) -> float:
        """What an update cannot do without, besides activations."""
        return self.state + self.gradients

    @property
    def all_held(self) -> float:
        """While samples are drawn."""
        return sum(self.held.values())

    @property
    def most(self) -> str:
        """The program at the peak."""
        peaks = planning.peaks(self._asdict())
        return max(peaks, key=peaks.__getitem__)

    @property
    def peak(self) -> float:
        return planning.peaks(self._asdict())[self.most]

    @property
    def stack(self) -> dict[str, float]:
        """The peak, part by part."""
        rest, gradients, copy = self.adds[self.most], 0.0, self.held[COPY]
        if self.most not in planning.SAMPLING:
            gradients, copy = min(self.gradients, rest), 0.0
        known = self.held | {COPY: copy, "gradients": gradients}
        return known | {"all else": rest - gradients}


COMPARED = "state", "updated", "all_held", "peak"


def rows(records: Mapping[str, Any], seeds: int) -> list[Row]:
    known = [x for smoke in (False, True) for x in places(seeds, smoke)]
    found = {x: records[str(x)]["found"] for x in known if str(x) in records}
    out = []
    for place, one in found.items():
        given = place, one["held"], one["gradients"]
        if place.kind == "learning":
            of_all = found[place._replace(kind="sampling", arm="GRPO")]
            out.append(Row(*given, one["adds"] | of_all["adds"], one["room"]))
        elif place.kind == "resident":  # the most was taken of two whole steps
            row = Row(*given, {})
            rest = one["peak"] - one["before"] - row.state
            out.append(row._replace(adds={"step": rest}))
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
    wide = Console(width=max(WIDTH, Console().width))
    wide.print(table(found), table_of(savings))
    numbers = {
        "GiB": [
            one._asdict() | one.place._asdict() | {"at": one.most, "peak": one.peak}
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
    names = [name for name in found[0].held if any(one.held.get(name) for one in found)]
    out = figures.numbered("", *names, *ENDS, title="GiB of a device")
    for one in found:
        ends = one.adds[one.most], one.peak, one.room or 0.0
        numbers = *(one.held.get(name, 0.0) for name in names), one.gradients, *ends
        told = [f"{x:.2f}" if x else "" for x in numbers]
        told.insert(len(names) + 1, one.most)
        out.add_row(one.place.told, *told)
    return out


ENDS = "gradients", "at the peak", "added there", "in all", "of"


def table_of(savings: list[dict[str, Any]]) -> Table:
    out = figures.numbered("", "against", *COMPARED, title="saved, %")
    for one in savings:
        numbers = (f"{one[name]:.1f}" for name in COMPARED)
        place = Place(**{name: one[name] for name in Place._fields})
        out.add_row(place.told, one["against"], *numbers)
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
    """A line where a device ends, if some come near."""
    labels = [f"{one.place.arm}, {one.place.new}" for one in found]
    left = [0.0] * len(found)
    for name, look in LOOKS.items():
        width = [one.stack.get(name, 0.0) for one in found]
        axes.barh(labels, width, left=left, label=name, edgecolor="black", **look)
        left = [a + b for a, b in zip(left, width, strict=True)]
    room = found[0].room
    if room is not None and max(left) > room / 2:
        axes.axvline(room, color="#d55e00", linestyle="--")
        axes.annotate(
            "a device", (room, 1), (-3, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", color="#d55e00", fontsize=8,
        )  # fmt: skip
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
