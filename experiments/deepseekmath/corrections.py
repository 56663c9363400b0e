"""What the corrections of GRPO change, one at a time: a table.

    python -m grpo_jax reproduce corrections

Each arm is GRPO with the rule's reward in the miniature world (miniature.py) and one
thing changed, for 100 steps from its start: 16 questions with 8 samples, three seeds.
What is compared with plain GRPO, seed by seed, is the mean of the last four
examinations. Where a rollout is used once, policy and old policy are the same at the
only update, and no ratio is ever clipped: what clips, or takes ratios of sequences,
is compared with plain GRPO at μ = 4 instead (or 2, with one), as it would change
nothing at μ = 1.

What is expected, said before any of it was run. The answers are short and of much the
same length, so means over tokens or sequences should hardly differ, and no answer is
long enough to be fined. Adam takes steps of one size whatever the loss is multiplied
by; so without the division by a group's spread (Dr. GRPO) what changes is that groups
which are nearly all right or nearly all wrong count less, and that the KL counts about
twice as much. k1 as a loss has a gradient of mean 0 and should do what no KL does; k2's
is the KL's own, and k3's nearly that near the start. Mixed groups should help while a
quarter of the groups have no spread, at the price of more samples. μ = 4 should learn
faster a step, and without clipping be the less stable. With three seeds no effect can
be significant by an exact test: they are told with t intervals, and there are twenty,
of which one is expected to leave out 0 by chance.

What came out (2026-11-30; 63 runs, 65 minutes on two cores with other work beside
them), in points of in-domain accuracy; plain GRPO has 82.1%. Used once, a rollout
teaches the same in all twelve ways: their gains are -0.1 to 1.8, and every interval
holds 0. Mixed groups gain most (1.8, -1.9 to 5.5) for 2% more tokens of what is learned
from. The fine for length changes nothing at all, for no answer is long enough. k2 and
the weighted k3 are the same to the last digit: so are their gradients on policy.

Used again, it teaches less, which was not expected: μ = 4 ends 3.4 below μ = 1 (-8.3 to
1.5) and on the larger size 7.5 below (2.0 to 13.0), at the same learning rate. There
clipping matters: without it another 5.4 are lost (0.2 to 10.7), and 12.2 on the larger
size. A ratio of sequences with the clip range of tokens loses 10.6 (9.1 to 12.1): it is
a mean over tokens and hardly ever reaches 0.2; with the narrow range of GSPO it gains
1.9 (-5.7 to 9.4). DAPO's parts together gain 3.3 (-2.3 to 8.9) over μ = 4, clip higher
alone loses 1.5 (-5.5 to 2.4). Of 20 intervals two leave out 0, no clip and sequence
ratio; both leave it out on the larger size as well, by far.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich import box
from rich.console import Console
from rich.table import Table

from grpo_jax import contrast, experiment, figures, plots, sweep, workdir

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))
get_config, REWARDS = miniature.policy, miniature.REWARDS

NAME, SEEDS, LAST, RECENT = "corrections", 3, 4, 10
PLAIN, AGAIN = "GRPO", "GRPO, μ = 4"
MU = {"algorithm.mu": 4}
NO_STD = {"algorithm.advantage.scale_rewards": "none"}
WIDE = {"algorithm.clip_low": 1.0, "algorithm.clip_high": 1e6}
CONSTANT = {"algorithm.loss_mean": "over_constant", "algorithm.loss_constant": 72}
SEQUENCE = {"algorithm.importance_level": "sequence"}
NARROW = {"algorithm.clip_low": 3e-4, "algorithm.clip_high": 4e-4}  # GSPO's
ROLLOUT = {"algorithm.loss_mean": "per_rollout_token"}
MIXED = {"groups.mixed": True}
HIGHER = {"algorithm.clip_high": 0.28}
OVERLONG = {"rewards.overlong": 16}
NO_KL = {"algorithm.beta": 0.0}


def estimator(name: str, **more: Any) -> dict[str, Any]:
    given = {"estimator": name} | more
    return {f"algorithm.kl.{key}": value for key, value in given.items()}


ARMS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "no KL": NO_KL,
    "KL by k1": estimator("k1"),
    "KL by k2": estimator("k2"),
    "KL by k3, weighted": estimator("k3", gradient="ratio"),
    "KL by k1 in the reward": estimator("k1", placed="reward"),
    "no std": NO_STD,
    "std of the batch": {"algorithm.advantage.scale_rewards": "batch"},
    "mean over tokens": ROLLOUT,
    "mean over a constant": CONSTANT,
    "Dr. GRPO": NO_STD | CONSTANT | NO_KL,
    "mixed groups": MIXED,
    "overlong reward": OVERLONG,
    "μ = 2": {"algorithm.mu": 2},
    "μ = 2, no clip": {"algorithm.mu": 2} | WIDE,
    AGAIN: MU,
    "no clip": MU | WIDE,
    "clip higher": MU | HIGHER,
    "sequence ratio": MU | SEQUENCE,
    "GSPO": MU | SEQUENCE | NARROW | NO_KL,
    "DAPO": MU | HIGHER | ROLLOUT | MIXED | OVERLONG | NO_KL,
}
AGAINST = {
    name: AGAIN if MU.items() <= one.items() else PLAIN for name, one in ARMS.items()
}
AGAINST |= {AGAIN: PLAIN, "μ = 2, no clip": "μ = 2"}
INSIDE, BEYOND = miniature.INSIDE, miniature.BEYOND
ACCURACY = {INSIDE: "in-domain", BEYOND: "larger"}
BESIDE = {"kl": "KL", "samples/tokens": "tokens of a step"}


def get_points(seeds: int, smoke: bool) -> dict[str, sweep.Point]:
    arms = ARMS
    if smoke:  # right by an even number of characters, of a start that can do nothing
        few = {"training.steps": 2, "rewards.functions": ("even",)}
        few |= {"training.batch_size": 2} | miniature.SMALL | miniature.SECOND
        arms = {name: few | ARMS[name] for name in (PLAIN, "no std", AGAIN, "no clip")}
    found = miniature.points(NAME, arms, range(seeds))
    return sweep.needed(miniature.common(smoke) | found, found)


def keep(folder: pathlib.Path) -> dict[str, float | None]:
    """Accuracy in percent; what else a run says, of its last steps."""
    rows = list(workdir.rows(folder / workdir.METRICS))
    found = {}
    for key in ACCURACY:
        found[key] = float(100 * plots.series(rows, key)[1][-LAST:].mean())
    for key in BESIDE:
        _, value = plots.series(rows, key)
        found[key] = float(value[-RECENT:].mean()) if len(value) else None
    return found


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    found = {}
    for name in ARMS:
        places = [miniature.place(NAME, name, seed) for seed in range(seeds)]
        if places[0] in records:
            found[name] = {k: [records[x][k] for x in places] for k in KEYS}
    numbers = {"seeds": seeds, "arms": found}
    told = "one seed says nothing of how seeds differ"
    gains = {}
    if seeds > 1:
        gains = {name: gained(found, name) for name in found if name != PLAIN}
        numbers["gains"] = gains
        told = in_a_line(gains)
    Console().print(table(found, gains))
    figures.write(NAME, drawn(found, gains), numbers, told, records, out)


KEYS = [*ACCURACY, *BESIDE]


def gained(found: Mapping[str, Any], name: str) -> dict[str, contrast.Contrast]:
    """Over what the arm is compared with."""
    ours, theirs = found[name], found[AGAINST[name]]
    return {
        key: contrast.paired(np.array(ours[key]), np.array(theirs[key]))
        for key in ACCURACY
    }


def in_a_line(gains: Mapping[str, Any]) -> str:
    """Those whose interval in-domain leaves out 0."""
    sure = {
        k: x[INSIDE] for k, x in gains.items() if x[INSIDE].low * x[INSIDE].high > 0
    }
    told = "; ".join(f"{name} {x}" for name, x in sure.items())
    return f"{len(sure)} of {len(gains)} intervals leave out 0: {told}"


def table(found: Mapping[str, Any], gains: Mapping[str, Any]) -> Table:
    out = Table("arm", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ACCURACY.values():
        out.add_column(f"{title}, %", justify="right")
        out.add_column("gain", justify="right")
    for title in ("over", *BESIDE.values()):
        out.add_column(title)
    for name, one in found.items():
        row = [name]
        for key in ACCURACY:
            row += [
                f"{np.mean(one[key]):.1f}",
                str(gains[name][key]) if name in gains else "",
            ]
        row.append(AGAINST[name] if name in gains else "")
        for key in BESIDE:
            known = [x for x in one[key] if x is not None]
            row.append(f"{np.mean(known):.3g}" if known else "")
        out.add_row(*row)
    return out


def drawn(found: Mapping[str, Any], gains: Mapping[str, Any]) -> Figure:
    """Gains with their intervals, a row for each arm, and each seed's."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [name for name in found if name != PLAIN]
    for axes, (key, title) in zip(panels, ACCURACY.items(), strict=True):
        for row, name in enumerate(names):
            each = np.subtract(found[name][key], found[AGAINST[name]][key])
            look = LOOKS[AGAINST[name]]
            axes.plot(each, np.full(len(each), row), "|", color="0.5")
            if name in gains:
                gain = gains[name][key]
                axes.plot([gain.low, gain.high], [row, row], color=look["color"])
            axes.plot([each.mean()], [row], **look)
        axes.axvline(0, color="0.6", linestyle=":")
        axes.set(title=title, xlabel="points of accuracy gained (95%)")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    handles = [Line2D([], [], **look) for look in LOOKS.values()]
    labels = [f"over {name}" for name in LOOKS]
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


LOOKS = {
    PLAIN: {"color": "#000000", "marker": "o", "linestyle": ""},
    "μ = 2": {"color": "#0072b2", "marker": "^", "linestyle": ""},
    AGAIN: {"color": "#d55e00", "marker": "s", "linestyle": ""},
}
