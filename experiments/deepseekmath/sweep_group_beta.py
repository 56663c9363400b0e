"""How large a group, and how strong a KL? 36 settings of G and β, with heat maps.

    python -m grpo_jax reproduce sweep_group_beta

GRPO with the rule's reward in the miniature world (miniature.py), from its start, 100
steps of 128 samples: 64 questions with 2 each, or 32 with 4, ... or 2 with 64, and with
each of six β. For β = 0.04 also 16 questions a step whatever the group, so that a step
of the largest takes 32 times the samples of the smallest. Three seeds. Accuracy is the
mean of the last four examinations (after 70, 80, 90 and 100 steps); KL to the start,
agreement of samples (the share of pairs with the same answer) and seconds are means of
the last ten steps (of seconds the least of the seeds: of two seeds many runs had other
work beside them). β = 0 is run as 1e-9: so its KL is measured, and moves nothing.

The paper has G = 64 and β = 0.04 and says nothing of others. What theory predicts, at
equal samples: a question's baseline is better the larger G (its variance falls as
1/(G − 1)), and more groups have a spread (1 − p^G − (1 − p)^G), but fewer questions are
seen; so little should change between 8 and 32, and both ends should be worse. The
stronger the KL, the nearer the policy stays: less KL, more agreement with a start that
is wrong, less accuracy in-domain; on the larger size a KL might help. With three seeds
no order is significant by an exact test: effects are told with their t intervals.

Run on two cores, in some 1.6 hours (3.2 of processes). At equal samples more
questions win: in-domain each doubling of G costs 1.9 points (1.6 to 2.2), on average
over all β. For β up to 0.04 it is 85 and 84% at G = 2 and 4, 83 at 8, 80 at 16, 78 at
32, and 72 at 64, which has two questions a step. So it is not flat between 8 and 32,
which was predicted: 32 is 4.5 below 8 (3.0 to 6.0). The small end is not worse either
(G = 2 to 8, β up to 0.04: +2.0, −2.6 to 6.7), but where the KL is strong: at β = 0.4 it
is 61% at G = 2 and 72 at 8. That the gradient is least noisy at G = 4, and several
times as noisy at 64, theory.py finds at the start. On the larger size the order is the
same and within the noise (−1.0 for each doubling, −3.2 to 1.2).

β up to 0.1 changes nothing that can be seen: all are within 0.8 points of none, and
intervals reach 2 to 3 points. β = 0.4 costs 12.3 points (11.2 to 13.5) and 7.8 on the
larger size (3.1 to 12.5), and keeps the KL at a third. A KL does not help beyond what
was trained on (0.04 over 0: +0.5, −0.8 to 1.8). The paper's pair, 64 and 0.04, is among
the worst here, at 8 times fewer samples a step than it had: at G = 64 without a KL the
policy goes farthest from the start (0.046 nats a token, against 0.03) and learns least
on the way, two questions a step being what it has to go by.

At 16 questions a step more samples help: 76, 81, 82, 84, 85 and 85% for G = 2 to 64.
From 16 on a doubling earns a point or none (64 over 16: +1.1, −0.6 to 2.7) and takes
twice the time. So a group should be small as long as samples are what is paid for, and
16 do where questions are short. All of it holds for this start, whose groups are mostly
mixed at any G, and for questions that are each seen once.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from grpo_jax import contrast, experiment, figures, plots, sweep, workdir

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))
get_config, REWARDS = miniature.policy, miniature.REWARDS

NAME, SEEDS, LAST, RECENT = "sweep_group_beta", 3, 4, 10
GROUPS = [2, 4, 8, 16, 32, 64]
BETAS = [0.0, 0.001, 0.01, 0.04, 0.1, 0.4]
PAPERS, PAPERS_GROUP, NO_KL = 0.04, 64, 1e-9
SAMPLES = miniature.QUESTIONS * miniature.SAMPLES
INSIDE, BEYOND = miniature.INSIDE, miniature.BEYOND
KL, AGREEMENT, SECONDS = "kl", "diversity/agreement", "time/step"
MAPS = {
    INSIDE: ("accuracy in-domain, %", 100, "{:.0f}"),
    BEYOND: ("accuracy on the larger size, %", 100, "{:.0f}"),
    KL: ("KL to the start, nats a token", 1, "{:.3f}"),
    AGREEMENT: ("pairs of samples that agree, %", 100, "{:.0f}"),
    SECONDS: ("seconds a step, one core, least of seeds", 1, "{:.2f}"),
}


def arm(group: int, beta: float, equal: str = "samples") -> str:
    """The smallest group that has the usual number of questions is in both."""
    return f"G{group}-beta{beta:g}" + "-questions" * (equal == "questions")


def get_points(seeds: int, smoke: bool) -> dict[str, sweep.Point]:
    groups, betas = (GROUPS[:2], [0.0, PAPERS]) if smoke else (GROUPS, BETAS)
    samples, questions = (4, 2) if smoke else (SAMPLES, miniature.QUESTIONS)
    few = {}
    if smoke:  # right by an even number of characters, of a start that can do nothing
        few = {"training.steps": 2, "rewards.functions": ("even",)}
        few |= miniature.SMALL | miniature.SECOND
    arms = {
        arm(group, beta): settings(group, beta, samples // group)
        for beta in betas
        for group in groups
    }
    arms |= {
        arm(group, PAPERS, "questions"): settings(group, PAPERS, questions)
        for group in groups
        if group * questions != samples
    }
    arms = {name: few | one for name, one in arms.items()}
    found = miniature.points(NAME, arms, range(seeds))
    return sweep.needed(miniature.common(smoke) | found, found)


def settings(group: int, beta: float, questions: int) -> dict[str, Any]:
    return {
        "algorithm.group_size": group,
        "algorithm.beta": beta or NO_KL,
        "training.batch_size": questions,
    }


def keep(folder: pathlib.Path) -> dict[str, float]:
    """One number of each, as the docstring has them."""
    rows = list(workdir.rows(folder / workdir.METRICS))
    found = {}
    for key in MAPS:
        _, value = plots.series(rows, key)
        last = LAST if key in (INSIDE, BEYOND) else RECENT
        found[key] = float(value[-last:].mean())
    return found


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    def of(name: str, key: str) -> np.ndarray | None:
        places = [miniature.place(NAME, name, seed) for seed in range(seeds)]
        there = [records[x][key] for x in places if x in records]
        return scale(key, there) if there else None

    groups = [x for x in GROUPS if of(arm(x, PAPERS), KL) is not None]
    betas = [x for x in BETAS if of(arm(groups[0], x), KL) is not None]
    grids = {
        key: np.stack([[of(arm(G, b), key) for G in groups] for b in betas])
        for key in MAPS
    }
    lines = {key: {} for key in (INSIDE, SECONDS)}
    for G in groups:
        name = arm(G, PAPERS, "questions")
        name = arm(G, PAPERS) if of(name, KL) is None else name
        for key, line in lines.items():
            line[G] = of(name, key)
    numbers = {"seeds": seeds, "groups": groups, "betas": betas}
    numbers |= {"equal samples": grids, "equal questions": lines}
    told = "one seed says nothing of how seeds differ"
    if seeds > 1:
        numbers["effects"] = effects(groups, betas, grids)
        told = "; ".join(f"{k}: {x}" for k, x in numbers["effects"].items())
    figures.write(NAME, drawn(groups, betas, grids, lines), numbers, told, records, out)


def scale(key: str, values: list[float]) -> np.ndarray:
    return MAPS[key][1] * np.array(values)


def effects(
    groups: list[int], betas: list[float], grids: dict[str, np.ndarray]
) -> dict[str, contrast.Contrast]:
    """In-domain, of each seed: by how much accuracy grows when G is doubled, over all
    β; and what the strongest KL adds to none, over all G."""
    found = grids[INSIDE]  # [β, G, seed]
    x = np.log2(groups)
    slope = np.tensordot(x - x.mean(), found.mean(0), (0, 0)) / np.var(x) / len(x)
    ends = found[-1].mean(0), found[0].mean(0)
    return {
        "points for each doubling of G": contrast.paired(slope, 0 * slope),
        f"points of β = {betas[-1]:g} over 0": contrast.paired(*ends),
    }


def of_seeds(key: str, values: np.ndarray) -> np.ndarray:
    """Their mean; of seconds the least, for another's work on the machine only adds."""
    return values.min(-1) if key == SECONDS else values.mean(-1)


def drawn(groups, betas, grids, lines) -> Figure:
    """Over seeds; the paper's setting is framed."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for axes, (key, (title, _, form)) in zip(panels, MAPS.items(), strict=False):
        mean = of_seeds(key, grids[key])
        axes.imshow(mean, cmap="viridis", aspect="auto", origin="lower")
        middle = (mean.min() + mean.max()) / 2
        for (row, column), value in np.ndenumerate(mean):
            colour = "white" if value <= middle else "black"
            text = form.format(value)
            axes.text(column, row, text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(groups)), map(str, groups))
        axes.set_yticks(range(len(betas)), [f"{beta:g}" for beta in betas])
        if PAPERS in betas and PAPERS_GROUP in groups:
            corner = groups.index(PAPERS_GROUP) - 0.5, betas.index(PAPERS) - 0.5
            axes.add_patch(
                Rectangle(corner, 1, 1, fill=False, color="red", linewidth=2)
            )
        axes.set(title=title, xlabel="G, at 128 samples a step", ylabel="β")
    axes = figure.axes[-1]
    for values in zip(*lines[INSIDE].values(), strict=True):
        axes.plot(groups, values, linewidth=0.6, alpha=0.4, color="black")
    mean = [x.mean() for x in lines[INSIDE].values()]
    axes.plot(groups, mean, color="black", marker="o")
    seconds = axes.twinx()
    mean = [of_seeds(SECONDS, x) for x in lines[SECONDS].values()]
    seconds.plot(groups, mean, color="#d55e00", linestyle="--", marker="s")
    seconds.set_ylabel("seconds a step (dashed)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(groups, map(str, groups))
    title = f"16 questions a step, β = {PAPERS:g}"
    axes.set(title=title, xlabel="G", ylabel="accuracy in-domain, % (solid)")
    return figure
