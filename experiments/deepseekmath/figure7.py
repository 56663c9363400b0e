"""Figure 7: does RL find answers that were not there, or say oftener what was?

    python -m grpo_jax reproduce figure7

The start and what GRPO+OS has made of it in figure 5 after 100 steps, with eight seeds
and two rewards (the rule, and the reward model), are asked the same 200 questions of
the sizes that RL asks, and 200 of a larger one. 128 answers are drawn to each, at
T = 0.7; pass@K and maj@K are estimated from all of them.

What the paper predicts, of GSM8K at K = 64: the majority gains 1.5 points (Maj@64 from
89.5 to 91.0), and one of 64 is right less often than before (Pass@64 from 99.1 to
97.3); a single answer gains 6.7 (81.5 to 88.2). So RL would sharpen what is there.
These three, with the rule's reward and in-domain, are tested with Holm's correction
(the paper's RL is rewarded by a model; what that comes to here stands beside them).
The start is one model, asked once: that its own numbers could have come out otherwise
is in no interval.

What came out (2026-11-30, 34 evaluations, 10 minutes on two cores behind figure 5's
runs), over eight seeds. In-domain a single answer gains 29.2 points (95%: 28.3 to 30.1;
40.9 to 70.1%) and the majority of 64 gains 36.1 (35.0 to 37.3; 45.7 to 81.8%): more
than in the paper, whose start was better taught. One of 64 is right as often as before,
98.1% (-0.5 to 0.5): there is hardly room to lose any. On the larger size, which RL does
not ask, Maj@64 gains 11.0 (9.2 to 12.7), and one of 64 is right less often by 2.6 (0.9
to 4.3): the lines cross at K = 8, as the paper's do. So what RL makes
likely could be drawn before it; but here it was not what most samples said, as in the
paper it nearly was. With the reward model's rewards all of it falls, Pass@64 the most.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from grpo_jax import experiment, figures, sweep
from grpo_jax.figures import Claim, Curves

figure5 = experiment.load(str(pathlib.Path(__file__).with_name("figure5.py")))
miniature = figure5.miniature
get_config = miniature.policy

NAME, SEEDS = "figure7", 8
BEFORE, AFTER, JUDGED = "before", "after GRPO+OS", "after GRPO+OS, model"
ARMS = {AFTER: "GRPO+OS", JUDGED: "GRPO+OS, model"}  # by their names in figure 5
PANELS = {"in-domain": "series-3-4", "larger": "series-5"}
KS = [1, 2, 4, 8, 16, 32, 64]
ASKED = {"k": 128, "temperature": 0.7, "max_new": 72, "questions": 200}
ASKED |= {"batch_size": 8}
KINDS = {"maj": "Maj", "pass": "Pass"}
PAPER = [
    Claim(f"Maj@64 {AFTER}", f"Maj@64 {BEFORE}", 1.5),
    Claim(f"Pass@64 {BEFORE}", f"Pass@64 {AFTER}", 1.8),
    Claim(f"Pass@1 {AFTER}", f"Pass@1 {BEFORE}", 6.7),
]
BESIDE = [
    Claim(f"Maj@64 {JUDGED}", f"Maj@64 {BEFORE}"),
    Claim(f"Pass@64 {BEFORE}", f"Pass@64 {JUDGED}"),
    Claim(f"Pass@1 {JUDGED}", f"Pass@1 {BEFORE}"),
]
CLAIMS = {"paper": PAPER, "beside": BESIDE}


def get_points(seeds: int, smoke: bool) -> dict[str, sweep.Point]:
    """What figure 5 made is asked; what of it is missing is made."""
    asked = ASKED | {"k": 64, "questions": 4, "max_new": 4} if smoke else ASKED
    made = figure5.get_points(seeds, smoke)
    for title, data in PANELS.items():
        settings = asked | {"data": data}
        point = sweep.Point("evaluate", miniature.START, settings)
        made[place(title, BEFORE, 0)] = point
        for seed in range(seeds):
            for arm, theirs in ARMS.items():
                policy = sweep.Made(miniature.place(figure5.NAME, theirs, seed))
                point = sweep.Point("evaluate", policy, settings | LATEST)
                made[place(title, arm, seed)] = point
    own = [name for name in made if name.startswith(f"{NAME}/")]
    return sweep.needed(made, own)


LATEST = {"checkpoint": "latest"}  # none is chosen


def place(title: str, arm: str, seed: int) -> str:
    return miniature.place(NAME, f"{title} {arm}", seed)


def keep(folder: pathlib.Path) -> dict[str, Any]:
    """pass@K and maj@K, in percent."""
    known = json.loads((folder / sweep.FILE["evaluate"]).read_text())["metrics"]
    return {kind: [100 * known[f"eval/{kind}@{k}"] for k in KS] for kind in KINDS}


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    found = {title: curves(records, seeds, title) for title in PANELS}
    numbers = {"seeds": seeds, "curves": found}
    told = "one seed says nothing of how seeds differ"
    if seeds > 1:
        numbers["verdicts"], told = judged(found)
    figures.write(NAME, drawn(found), numbers, told, records, out)


def curves(records: Mapping[str, Any], seeds: int, title: str) -> dict[str, Curves]:
    """Over K. What is before is the same for each seed."""
    found = {}
    for kind, said in KINDS.items():
        for arm in (BEFORE, *ARMS):
            places = [
                place(title, arm, 0 if arm == BEFORE else seed) for seed in range(seeds)
            ]
            value = np.array([records[name][kind] for name in places])
            found[f"{said}@K {arm}"] = Curves(np.array(KS), value)
    return found


def judged(found: dict[str, dict[str, Curves]]):
    verdicts = {}
    for title, of in found.items():
        ends = {
            arm.replace("@K", f"@{k}"): one.value[:, KS.index(k)]
            for arm, one in of.items()
            for k in (1, 64)
        }
        for kind, claims in CLAIMS.items():
            if title != "in-domain":
                claims = figures.unsaid(claims)
            verdicts[f"{title}, {kind}"] = figures.verdicts(claims, ends)
    return figures.judged(verdicts, "points")


def drawn(found: dict[str, dict[str, Curves]]) -> Figure:
    """Ours above, the paper's below: who by colour, how counted by dashes."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    colours = dict(zip((BEFORE, *ARMS), LOOKS, strict=True))

    def look(kind: str, arm: str) -> dict[str, Any]:
        return colours[arm] | {"linestyle": "-" if kind == "Maj" else "--"}

    for axes, (title, of) in zip(panels[0], found.items(), strict=True):
        for name, one in of.items():
            kind, _, arm = name.partition("@K ")
            if arm == BEFORE:  # the same for each seed
                one = one._replace(value=one.value[:1])
            figures.draw(axes, one, name, look(kind, arm))
        axes.set(title=miniature.TITLES[title], ylabel="accuracy, %")
    arms = {"Instruct": BEFORE, "RL": AFTER}
    theirs = miniature.paper(NAME).items()
    for axes, (title, of) in zip(panels[1], theirs, strict=True):
        for name, one in of.items():
            kind, _, who = name.partition("@K ")
            axes.plot(one["K"], one["accuracy"], **look(kind, arms[who]))
        axes.set(title=f"the paper, {title} (in-domain)", ylabel="accuracy, %")
    for axes in panels.flat:
        axes.set_xscale("log", base=2)
        axes.set_xticks(KS, map(str, KS))
        axes.set_xlabel("K")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


# Markers tell them apart in grey.
LOOKS = [
    {"color": "#000000", "marker": "o", "markersize": 4},
    {"color": "#d55e00", "marker": "s", "markersize": 4},
    {"color": "#0072b2", "marker": "^", "markersize": 4},
]
