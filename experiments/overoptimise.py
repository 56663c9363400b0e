"""Does a policy exploit a weak reward model, and what mends it?

    python -m grpo_jax train experiments/overoptimise.py

The model, the demonstrations and the reward model of iterative.py, which has learned to
tell sums from sums that are off by up to nine, whose columns are always right. ARMS
learn from it, for 90 steps each; each in SEEDS runs, which share a start with their
like.

Greedy accuracy on 200 held-out sums, in percent, before, at best and in the end (seeds
0, 1, 2; 2026-11-29, 90 minutes on two CPU cores that other work shared), in a figure
beside this file:

    arm                           before         at best        in the end
    β 0.1                         30.5  6.5 11.0  89.0 49.0 66.5  27.0 23.0 66.5
    β 0.4                         30.5  6.5 11.0  92.0 84.0 72.5  83.0 68.5 72.5
    β 0.1, reward model renewed   30.5  6.5 11.0  91.5 74.5 74.0  82.5 51.0 24.5
    β 0.1, both renewed           30.5  6.5 11.0  89.5 54.0 74.0  43.0  8.5 18.0

With β 0.1 two runs of three find what the reward model does not know, columns that are
wrong and an answer that follows from them, and lose what they had gained while the
reward rises on. A larger β keeps most of it in all three. A reward model that is
renewed helps those two, and does harm to the third, which none had exploited: what it
learns anew of the policy's answers tells right ones from wrong ones less and less well
(ROC AUC 0.91, then 0.74, 0.64, 0.60, 0.59 and 0.53). A reference that is renewed as
well lets go of the policy in all three.

The rule of `hacking` tells the two runs that lost their gains, in steps 74 and 76, and
no other of the six whose reward model stays: looked at afterwards, for it was made for
the first of them, which the rule of then did not tell. That one is no proof of it; the
other five are what there is.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from grpo_jax import config, experiment, hacking, iterative, plots, workdir

iterative_py = experiment.load(str(pathlib.Path(__file__).with_name("iterative.py")))

SEEDS = 3  # the configuration's, and those behind it
NOTHING_RENEWED = {f"iterative.{k}": x for k, x in vars(config.Iterative()).items()}
NOTHING_RENEWED |= {"training.steps": 90}
ARMS: dict[str, dict[str, Any]] = {
    "β 0.1": NOTHING_RENEWED,
    "β 0.4": NOTHING_RENEWED | {"algorithm.beta": 0.4},
    "β 0.1, reward model renewed": {"iterative.renews": "model"},
    "β 0.1, both renewed": {},
}
WATCHED = ("β 0.1", "β 0.4")
STYLES = ("-", "--", "-.", ":")  # the arms', in grey as well
ACCURACY = "eval/accuracy"


def get_config() -> config.Config:
    return iterative_py.get_config()


def run(settings: config.Config, folder: pathlib.Path):
    """Makes all runs, or goes on with them; then a table and figures/learning.png."""
    found: dict[str, list[list[hacking.Row]]] = {name: [] for name in ARMS}
    for seed in range(settings.seed, settings.seed + SEEDS):
        base = dataclasses.replace(settings, seed=seed)
        start = folder / f"start-{seed}"
        iterative.train(iterative.of_start(base), start)
        for number, name in enumerate(ARMS):
            place = folder / f"arm-{number}-{seed}"
            chosen = arm(base, name, start)
            iterative.train(chosen, place)
            last = place / f"policy-{chosen.iterative.rounds}"
            found[name].append(list(workdir.rows(last / workdir.METRICS)))
    Console().print(table(found))
    print(f"figure: {draw(found, folder / 'figures' / 'learning.png')}")


def arm(base: config.Config, name: str, start: pathlib.Path) -> config.Config:
    """From what a run learned of demonstrations on."""
    plain = config.Config()
    begun = dataclasses.replace(
        base,
        stages=base.stages[1:],
        model=iterative.of_run(base.model, start),
        data=dataclasses.replace(base.data, wrong=plain.data.wrong),
        sft=plain.sft,
    )
    return experiment.changed(begun, ARMS[name])


def table(found: dict[str, list[list[hacking.Row]]]) -> Table:
    """Of greedy answers to questions that were held out, how many are right. A judge
    that is renewed before hacking.SHORTEST steps are done is not watched."""
    out = Table("arm", "before", "at best", "in the end", "warned in")
    for name, of_seeds in found.items():
        shares = [plots.series(rows, ACCURACY)[1] for rows in of_seeds]
        warned = "-"
        if name in WATCHED:
            flags = [any(row.get(hacking.PARTED) for row in rows) for rows in of_seeds]
            warned = f"{sum(flags)} of {len(of_seeds)}"
        told = [
            [x[0] for x in shares],
            [max(x) for x in shares],
            [x[-1] for x in shares],
        ]
        cells = ["  ".join(f"{100 * x:.1f}" for x in one) for one in told]
        out.add_row(name, *cells, warned)
    return out


def draw(found: dict[str, list[list[hacking.Row]]], path: pathlib.Path) -> pathlib.Path:
    """Every run faint, and the mean of an arm: what it is judged by, what is right."""
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for number, (name, of_seeds) in enumerate(found.items()):
        for axes, key in ((above, hacking.RIGHT), (below, hacking.REWARD)):
            curves = [plots.series(rows, key) for rows in of_seeds]
            for step, value in curves:
                axes.plot(step, value, color=f"C{number}", alpha=0.3, linewidth=0.8)
            mean = np.mean([value for _, value in curves], 0)
            look = {"color": f"C{number}", "linestyle": STYLES[number], "linewidth": 2}
            axes.plot(curves[0][0], mean, label=name, **look)
    above.set(ylabel="right, of samples in training", ylim=(0, 1.02))
    below.set(xlabel="step", ylabel="reward, by the model")
    figure.legend(
        handles=above.get_legend_handles_labels()[0],
        loc="outside upper center",
        ncols=2,
    )
    return plots.written(figure, path)
