"""Figure 6: does iterative RL help, and which half of it?

    python -m grpo_jax reproduce figure6

Algorithm 1 of the paper in the miniature world (miniature.py). A reward model learns
from 8,000 answers of the start which of them are right, and GRPO asks it, and nobody
else, for 45 steps. Iterative RL stops after every 15: the reward model goes on learning
from 8,000 answers of the policy by then (a tenth of all that it learns are old ones),
and the reference becomes the policy. All arms of a seed are one run until the first
branch, and learn from the same questions after it:

    Iteration-0        one reward model and one reference, for 45 steps
    Iteration-1        both made anew after 15
    Iteration-2        and again after 30
    reference alone    the reference made anew after 15 and 30, the reward model never
    model alone        the other way round

The paper's first round ends where its line stops to rise. Here that is after some ten
steps, as figure 5 had shown, and the first 20 steps of a run with rounds of 30, which
was thrown away.

The paper has the first three alone, one run each: so its gain may come from a better
judge, or from a KL that is let go round by round. What it predicts (means over all
points after a branch that two lines have in common, GSM8K): Iteration-1 above
Iteration-0 by 1.24 points, Iteration-2 above Iteration-1 by 0.85. These two, in-domain,
are tested, with Holm's correction; what is compared is each seed's mean over all
examinations after the branch of the two, every fifth step. The controls have a
correction of their own.

What came out (2026-11-30; eight seeds, 40 runs, 65 minutes on two cores, three seeds
with other work beside them): nothing can be told apart. In-domain Iteration-1 is 1.0
points above Iteration-0 (95%: -2.5 to 4.4; p after Holm 0.73), Iteration-2 0.9 above
Iteration-1 (-1.3 to 3.0). Both are near the paper's numbers and far from proved: the
difference of two runs of a seed varies by 4.1 points, so it would take some 90 seeds
to tell 1.24 from nothing. Nor is either half seen to be what helps: the reference alone
comes to -0.0 (-2.7 to 2.7), the reward model alone to 2.7 (-1.1 to 6.4), and both
together to 1.8 less than the latter (-4.3 to 0.7).

All arms rise by 4 points in ten steps and fall again, Iteration-0 to 41.9%, below the
start's 43.2, while what the judge gives goes on rising (from -0.61 in steps 11 to 15 to
-0.47 in the last five): as in figure 5 it is exploited. A new one does not end that,
for none tells right from wrong by much: on answers held out, of the policy of its time,
their ROC AUC is 0.62 (0.54 to 0.67), 0.60 and 0.59. Whether iterations of better judges
gain more was not tried.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from grpo_jax import experiment, figures, plots, sweep, workdir
from grpo_jax.figures import Claim, Curves

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))
get_config = miniature.policy

NAME, SEEDS = "figure6", 8
ROUND, ROUNDS = 15, 2  # steps of a round; rounds after the first
FIRST, SECOND, THIRD = "Iteration-0", "Iteration-1", "Iteration-2"
REFERENCE, MODEL = "reference alone", "model alone"
DRAWN = [FIRST, SECOND, THIRD, REFERENCE, MODEL]
BRANCH = {FIRST: 0, SECOND: 1, THIRD: 2, REFERENCE: 1, MODEL: 1}  # after that round
PANELS = {"in-domain": miniature.INSIDE, "larger": miniature.BEYOND}
PAPER = [Claim(SECOND, FIRST, 1.24), Claim(THIRD, SECOND, 0.85)]
BESIDE = [
    Claim(REFERENCE, FIRST),
    Claim(MODEL, FIRST),
    Claim(THIRD, MODEL),
    Claim(THIRD, FIRST),
]
CLAIMS = {"paper": PAPER, "beside": BESIDE}


CHAIN = {
    "iterative.rounds": ROUNDS,
    "iterative.questions": 1000,
    "reward.steps": 500,
    "reward.batch_size": 64,
    "reward.longest": 96,
    "reward.learning_rate": 1e-3,
}
SHORT = miniature.SMALL | {"training.batch_size": 2, "model.name": miniature.START}
SHORT_CHAIN = {"reward.steps": 2, "reward.batch_size": 2, "iterative.questions": 2}


def get_points(seeds: int, smoke: bool) -> dict[str, sweep.Point]:
    found = {}
    for seed in range(seeds):
        found |= of_seed(seed, smoke)
    return found


def of_seed(seed: int, smoke: bool) -> dict[str, sweep.Point]:
    """What is not renewed by rounds is one run, by the judge that the chain has made
    for all; Iteration-1 is forked from the chain after its first round, by its second
    judge."""
    whole = miniature.place(NAME, THIRD, seed)
    steps = 2 if smoke else ROUND
    by = {i: {"reward_model.name": sweep.Made(whole, f"judge-{i}")} for i in (0, 1)}
    first = by[0] | {"training.steps": (ROUNDS + 1) * steps}
    forked = {"fork_from": sweep.Made(whole, "policy-0")}
    chain = CHAIN | {"training.steps": steps} | (SHORT_CHAIN if smoke else {})
    arms = {
        THIRD: chain,
        MODEL: chain | {"iterative.renews": "model"},
        FIRST: first,
        REFERENCE: first | {"reference.every": steps},
        SECOND: first | by[1] | forked,
    }
    both = {"rewards.functions": ("model",), "evaluation.every": 5}
    both |= SHORT if smoke else {}
    return miniature.points(NAME, {arm: both | x for arm, x in arms.items()}, [seed])


def keep(folder: pathlib.Path) -> dict[str, Any]:
    """Of a chain the last policy, whose rows are those of all rounds; and its judges,
    by the area under their ROC curves, which few rows may not have."""
    last = folder / f"policy-{ROUNDS}"
    judges = {}
    for path in sorted(folder.glob("judge-*")):
        _, area = plots.series(list(workdir.rows(path / workdir.METRICS)), "eval/auc")
        judges[path.name] = area[-1:].tolist()
    keys = [*PANELS.values(), "reward_mean"]
    policy = last if last.exists() else folder
    return figures.kept(policy, keys) | {"judges": judges}


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    found = {title: curves(records, seeds, key) for title, key in PANELS.items()}
    judges = {name: one["judges"] for name, one in records.items() if one["judges"]}
    numbers = {"seeds": seeds, "curves": found, "judges": judges}
    told = "one seed says nothing of how seeds differ"
    if seeds > 1:
        numbers["verdicts"], told = judged(found)
    figures.write(NAME, drawn(found), numbers, told, records, out)


def curves(records: Mapping[str, Any], seeds: int, key: str) -> dict[str, Curves]:
    """Of each arm from its branch on, in percent."""
    found = {}
    for arm in DRAWN:
        places = [miniature.place(NAME, arm, seed) for seed in range(seeds)]
        one = figures.curves([records[place] for place in places], key)
        after = one.step >= one.step[-1] * BRANCH[arm] / (ROUNDS + 1)
        found[arm] = Curves(one.step[after], 100 * one.value[:, after])
    return found


def means(ours: Curves, theirs: Curves) -> tuple[np.ndarray, np.ndarray]:
    """Of each seed, over what both have after the branch."""
    steps = sorted({*ours.step.tolist()} & {*theirs.step.tolist()})[1:]
    return tuple(x.value[:, np.isin(x.step, steps)].mean(1) for x in (ours, theirs))


def judged(found: dict[str, dict[str, Curves]]):
    verdicts = {}
    for title, of in found.items():
        for kind, claims in CLAIMS.items():
            if title != "in-domain":
                claims = figures.unsaid(claims)
            pairs = [means(of[x.ours], of[x.theirs]) for x in claims]
            verdicts[f"{title}, {kind}"] = figures.of_pairs(claims, pairs)
    return figures.judged(verdicts, "points")


def drawn(found: dict[str, dict[str, Curves]]) -> Figure:
    """Ours above, the paper's below; branches dotted."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    looks = dict(zip(DRAWN, figures.LOOKS, strict=False))
    for axes, (title, of) in zip(panels[0], found.items(), strict=True):
        for arm, look in looks.items():
            figures.draw(axes, of[arm], arm, look)
        for arm in (SECOND, THIRD):
            axes.axvline(of[arm].step[0], color="0.6", linestyle=":", zorder=0)
        axes.set(title=miniature.TITLES[title], xlabel="step")
        axes.set_ylabel("greedy accuracy, %")
    theirs = miniature.paper(NAME).items()
    for axes, (title, of) in zip(panels[1], theirs, strict=True):
        for arm, one in of.items():
            axes.plot(one["step"], one["accuracy"], **looks[arm])
        axes.set(
            title=f"the paper, {title} (in-domain)", xlabel="step", ylabel="accuracy, %"
        )
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5)
    return figure
