"""Figure 5: does it matter whose samples they are, and what becomes of them?

    python -m grpo_jax reproduce figure5

From one start (miniature.py) each arm draws 12,800 samples: in each of 100 steps 8 for
each of 16 questions (PPO, which compares none: one for each of 128); RFT and DPO all of
theirs from the start, before they learn. Every ten steps the likeliest answers are
examined: to 400 held-out questions of the sizes that RL asks, and to some 200 of a
larger size that it does not. What is compared is the mean of each seed's last four
examinations; no checkpoint is chosen.

What arms learn from differs as the methods do. Online RFT learns from every right
sample of a step. RFT keeps of a question's right samples those that differ, which are
few, for there is one way to be right: 64 of them in each of 100 updates, so most of
them several times; DPO pairs them with wrong ones, 64 pairs an update. The rule for
steps knows each line that is asked for, and the rule for outcomes the answer alone.
GRPO has a KL (beta 0.04), Online RFT has none, as in the paper: hence GRPO without one.
PPO differs in more than its questions: a critic on a trunk of its own, advantages by
GAE and whitened, means over all tokens of a step, the KL as k1 in the reward. Which of
these does what is not asked. That its critic learns at 1e-3, and DPO's beta of 1, are
our choices, and were not tuned.

The paper's GRPO is rewarded by a model, and its RFT by a rule. What it predicts (means
of the last 20 points of GSM8K, one run each): Online RFT above RFT by 2.24 points,
GRPO+OS above Online RFT by 1.52, GRPO+PS above GRPO+OS by 1.29. These three, in-domain,
are what is tested, with Holm's correction. The comparisons beside them, which have a
correction of their own, and all those on the larger size are there to understand it.

What came out (2026-11-30, 104 runs of one core each: 110 minutes on two cores, with the
judge and the second start). Accuracy at the end in percent, in-domain and on the larger
size, over eight seeds, from 43 and 38:

    PPO         86.6  55.9    GRPO+OS, noisy   71.6  44.9
    GRPO+PS     85.4  53.3    DPO              65.1  40.5
    Online RFT  84.7  54.9    RFT              62.6  39.5
    GRPO+OS     83.6  54.8    GRPO+OS, noisier 57.1  38.4
                              GRPO+OS, model   26.8  22.6
                              GRPO+PS, model   15.1  14.5

Online RFT is above RFT as in the paper, and by more: 22.1 points (95%: 20.5 to 23.6).
RFT has but the start's samples, and few of them are right and differ.

That GRPO is above Online RFT does not reproduce. By the rule it is 1.1 below (-1.9 to
-0.3; p is .062 by Holm), without a KL 1.3 below, and from another start 1.1 above (-0.4
to 2.6). Rewards of steps add 1.9 in-domain (0.7 to 3.0; .062), and none on the larger
size. PPO ends 3.0 above GRPO+OS (1.0 to 5.1; .062) and takes twice the time.

By the reward model GRPO gains for ten steps, and then falls far below where it began;
by its rewards of steps sooner still. The judge is wrong on 29% of the labels of lines
that were held out: is it the noise? That was asked when three seeds had shown it. With
the rule's word turned round at random for 29% of what may be said, GRPO ends at 71.6%:
44.8 above (33.1 to 56.4), and 12.0 below the rule itself. On whole answers the judge
errs more: by its sign on 33 and 40% of the start's, to questions without a label (1,256
and 1,592 of seeds 0 and 7; ROC AUC 0.70 and 0.66, within a question 0.64 and 0.57). But
with 40% turned round GRPO still ends at 57.1%, 30.2 above (15.7 to 44.7). So it is not
how often the judge errs; the likely reason is that its errors can be found and said
again. (Runs with noise are of later commits than those they are held against.) The
paper's judge is a model of 7B; figure6.py asks what it does to renew ours.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grpo_jax import experiment, figures, sweep
from grpo_jax.figures import Claim

Found = Mapping[str, figures.Curves]  # by arms
Claims = Mapping[str, Sequence[Claim]]  # by what they are for

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))
get_config, REWARDS = miniature.policy, miniature.REWARDS

NAME, SEEDS, LAST = "figure5", 8, 4
AGAINST = "Online RFT", "GRPO+OS"
JUDGED = {"reward_model.name": miniature.JUDGE}
BY_STEP = {"algorithm.advantage.supervision": "process"}
PLAIN = {  # what only a stage online reads
    "algorithm.beta": 0.01,
    "optimizer.learning_rate": 1e-6,
}


def offline(name: str, **settings: Any) -> dict[str, Any]:
    """A stage that draws as many samples as the others, all of them from the start."""
    own = {"steps": miniature.STEPS, "learning_rate": miniature.RATE, "batch_size": 64}
    own |= {"samples": miniature.SAMPLES} | settings
    own |= {"questions": miniature.STEPS * miniature.QUESTIONS}
    named = {f"{name}.{key}": value for key, value in own.items()}
    return {"stages": (name,)} | PLAIN | named


ARMS: dict[str, dict[str, Any]] = {
    "RFT": offline("rft"),
    "Online RFT": {"preset": "online_rft"},
    "GRPO+OS": {},
    "GRPO+PS": BY_STEP | {"rewards.steps": "chain"},
    "GRPO+OS, model": JUDGED | {"rewards.functions": ("model",)},
    "GRPO+PS, model": JUDGED | BY_STEP | {"rewards.steps": "model"},
    "DPO": offline("dpo", beta=1.0),
    "PPO": {
        "preset": "ppo",
        "algorithm.beta": 0.04,
        "critic.learning_rate": 1e-3,
        "training.batch_size": miniature.QUESTIONS * miniature.SAMPLES,
    },
}
DRAWN = list(ARMS)
AGAIN = "from another start"
ARMS |= {f"{arm} {AGAIN}": ARMS[arm] | miniature.SECOND for arm in AGAINST}
ARMS |= {"GRPO+OS without KL": {"algorithm.beta": 0.0}}
NOISE = "noisy", "noisier"
ARMS |= {f"GRPO+OS, {x}": {"rewards.functions": (x,)} for x in NOISE}
PAPER = [
    Claim("Online RFT", "RFT", 2.24),
    Claim("GRPO+OS, model", "Online RFT", 1.52),
    Claim("GRPO+PS, model", "GRPO+OS, model", 1.29),
]
BESIDE = [
    Claim("GRPO+OS", "Online RFT"),
    Claim("GRPO+OS without KL", "Online RFT"),
    Claim("GRPO+PS", "GRPO+OS"),
    Claim("GRPO+OS", "PPO"),
    Claim("GRPO+OS", "DPO"),
    Claim(f"GRPO+OS {AGAIN}", f"Online RFT {AGAIN}"),
]
# Asked when three seeds had shown what becomes of the model's reward; of the noisier
# when it had been measured how often the model is wrong on whole answers.
AFTERWARDS = [
    Claim("GRPO+OS, noisy", "GRPO+OS, model"),
    Claim("GRPO+OS, noisier", "GRPO+OS, model"),
    Claim("GRPO+OS", "GRPO+OS, noisy"),
]
CLAIMS = {"paper": PAPER, "beside": BESIDE, "afterwards": AFTERWARDS}


def get_points(seeds: int, smoke: bool) -> dict[str, sweep.Point]:
    arms = {name: one | short(one) for name, one in ARMS.items()} if smoke else ARMS
    return miniature.common(smoke) | miniature.points(NAME, arms, range(seeds))


def short(settings: dict[str, Any]) -> dict[str, Any]:
    """Two steps of an arm, from the other start than in earnest: that of SMALL can be
    right by chance."""
    begin = (
        miniature.START if "model.name" in settings else miniature.SECOND["model.name"]
    )
    few = {"training.steps": 2, "training.batch_size": 2}
    if "stages" in settings:
        (name,) = settings["stages"]
        few = {f"{name}.steps": 2, f"{name}.questions": 4}
    if not {"rewards.functions", "rewards.steps"} & settings.keys():
        few |= {"rewards.functions": ("even",)}
    return miniature.SMALL | few | {"model.name": begin}


PANELS = {"in-domain": miniature.INSIDE, "larger": miniature.BEYOND}


def keep(folder: pathlib.Path) -> dict[str, Any]:
    return figures.kept(folder, list(PANELS.values()))


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    found = {
        title: curves(NAME, ARMS, records, seeds, key) for title, key in PANELS.items()
    }
    tell(NAME, found, CLAIMS, records, out)


def curves(
    name: str,
    arms: Iterable[str],
    records: Mapping[str, Any],
    seeds: int,
    key: str,
) -> Found:
    """Of each arm of a figure, in percent."""
    found = {}
    for arm in arms:
        places = [miniature.place(name, arm, seed) for seed in range(seeds)]
        of_arm = figures.curves([records[place] for place in places], key)
        found[arm] = of_arm._replace(value=100 * of_arm.value)
    return found


def tell(
    name: str,
    found: Mapping[str, Found],  # by panels; claims of the paper are of the first
    claims: Claims,
    records: Mapping[str, Any],
    out: pathlib.Path,
):
    """Draws, and says whether the claims hold."""
    every = [one for of in found.values() for one in of.values()]
    seeds, last = len(every[0].value), min(LAST, *(len(x.step) for x in every))
    numbers = {"seeds": seeds, "last": last, "curves": found}
    told = "one seed says nothing of how seeds differ"
    if seeds > 1:
        numbers["verdicts"], told = judged(found, claims, last)
    figures.write(name, drawn(found, last), numbers, told, records, out)


def judged(found: Mapping[str, Found], claims: Claims, last: int):
    """Whether the claims hold, shown; and in a line those of the paper."""
    verdicts = {}
    for panel, (title, of) in enumerate(found.items()):
        ends = {arm: figures.ends(x, last) for arm, x in of.items()}
        for kind, some in claims.items():
            some = figures.unsaid(some) if panel else some
            verdicts[f"{title}, {kind}"] = figures.verdicts(some, ends)
    return figures.judged(verdicts, "points")


def drawn(found: Mapping[str, Found], last: int) -> Figure:
    """Ours above, the paper's below, its sets in the same order if they are ours; and
    beside them where all arms end."""
    figure = Figure(figsize=(16, 8), layout="constrained")
    panels = figure.subplots(2, 3)
    theirs = miniature.paper(NAME)
    order = found if found.keys() == theirs.keys() else theirs
    theirs = {title: theirs[title] for title in order}
    looks = dict(zip(DRAWN, figures.LOOKS, strict=True))
    for axes, (title, of) in zip(panels[:, 2], found.items(), strict=True):
        draw_ends(axes, of, last)
        axes.set_title(miniature.TITLES.get(title, f"here, {title}"))
    for axes, (title, of) in zip(panels[0, :2], found.items(), strict=True):
        for arm in (x for x in looks if x in of):
            figures.draw(axes, of[arm], arm, looks[arm])
        axes.set_title(miniature.TITLES.get(title, f"here, {title}"))
        axes.set(xlabel="step", ylabel="greedy accuracy, %")
    for axes, (title, of) in zip(panels[1, :2], theirs.items(), strict=True):
        for arm, one in of.items():
            look = looks[f"{arm}, model" if "GRPO" in arm else arm]
            axes.plot(one["step"], one["accuracy"], **look)
        title = f"the paper, 1.3B, {title}"
        axes.set(title=title, xlabel="step", ylabel="accuracy, %")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4)
    return figure


def draw_ends(axes: Axes, of: Found, last: int):
    """Each seed's mean of its last examinations, and theirs."""
    for row, one in enumerate(of.values()):
        value = figures.ends(one, last)
        axes.plot(value, [row] * len(value), "|", color="0.5")
        axes.plot(value.mean(), row, "o", color="black")
    axes.set_yticks(range(len(of)), list(of))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"mean of the last {last} examinations, %")
