"""The miniature world of these figures: one start, on which all of them go on.

    python -m grpo_jax train experiments/deepseekmath/miniature.py \\
        --workdir runs/deepseekmath/start
    python -m grpo_jax convert runs/deepseekmath/start@latest \\
        experiments/deepseekmath/start --dtype bfloat16

A byte-level transformer of 0.5M parameters, made from scratch, is shown how series are
calculated, `17+5-9=?` line by line to the boxed answer, by someone who forgets half of
the carries. So it can calculate, and often enough does not: as after the paper's SFT,
most groups of samples are mixed, and what is right is only for the reward to say. All
sizes from 2 to 5 are shown; RL asks sizes 3 and 4 alone, as the paper's asks two of the
sets that its SFT was shown. In-domain are held-out questions of these sizes, and beside
them those of size 5 are examined: longer, and of larger numbers.

What it comes to (2026-11-30, seed 0, four minutes on two CPU cores): of 175 held-out
series of size 3 its likeliest answers are right in 53.7% (95%: 46.3-60.9), a sample at
T = 1 in 47.8%, the majority of 64 in 59.1%, one of 64 in 98.9%; of size 5, 37.5% of the
likeliest. Rounded to bfloat16, 53.1%. That is `start`, which is committed: made again,
another machine's sums differ in their last bits, and so, in the end, does the model.

The learning rate was chosen once, for GRPO+OS, by one run of 100 steps with a seed that
no figure uses, but by the questions that figures examine as well, and before the start
was what it is (43.2 and 37.7%). In-domain and out-of-domain accuracy, from 44 and 37%:
3e-5 78 and 50; 1e-4 86 and 52; 2e-4 82 and 40; 3e-4 78 and 36. All methods have 1e-4.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from grpo_jax import config
from grpo_jax.models.settings import Model, Numerics, Tiny
from grpo_jax.rewards.calls import Reward
from grpo_jax.sweep import Made, Point
from grpo_jax.text import answers

HERE = pathlib.Path("experiments/deepseekmath")  # commands are given above it
SECOND = {"model.name": Made("second")}  # another start, of seed 1, not rounded
START, JUDGE = str(HERE / "start"), Made("judge")
INSIDE, BEYOND = "eval/accuracy", "eval/series-5/accuracy"
TITLES = {  # of panels
    "in-domain": "here, in-domain (sizes 3 and 4)",
    "larger": "here, larger (size 5, which RL does not ask)",
}
# To see that all works: few and short texts, of a start that can do nothing, and right
# is whatever has an even number of characters.
SMALL = {
    "evaluation.questions": 8,
    "evaluation.every": 1,
    "evaluation.others": ("series-5",),
    "optimizer.warmup": 0,
    "sampling.max_new": 16,
    "sampling.segment": 16,
}
TINY = {"model.tiny.layers": 1, "model.tiny.width": 32, "model.tiny.ffw": 32}


def even(question: str, completion: str, answer: str) -> float:
    return float(len(completion) % 2 == 0)


def noisy(share: float) -> Reward:
    """The rule's word, turned round for that share of all that may be said; of one
    answer always or never."""

    def reward(question: str, completion: str, answer: str) -> float:
        told = hashlib.sha256(f"{question}\n{completion}".encode()).digest()
        is_right = answers.final(completion) == answer
        return float(is_right != (int.from_bytes(told[:4]) < share * 2**32))

    return reward


# What the judge errs on: of lines, and of whole answers (see figure5.py).
REWARDS = {"even": even, "noisy": noisy(0.29), "noisier": noisy(0.4)}


def get_config() -> config.Config:
    """The start."""
    return config.Config(
        stages=("sft",),
        model=Model(
            tiny=Tiny(layers=2, width=128, ffw=512, max_length=96),
            numerics=Numerics(remat="none"),
        ),
        data=config.Data(name="series", count=40_000, size=5, least=2, wrong=0.5),
        sft=config.SFT(
            steps=1400, batch_size=64, learning_rate=3e-3, loss_mean="per_token"
        ),
        sampling=config.Sampling(max_new=72, segment=18),
        optimizer=config.Optimizer(
            schedule="cosine", final_rate=0.1, warmup=50, b2=0.95
        ),
        evaluation=config.Evaluation(
            every=350, batch_size=200, others=("series-3", "series-4", "series-5")
        ),
        keep=config.Keep(every=350),
    )


def policy() -> config.Config:
    """GRPO with the paper's β from there: 16 questions a step, 8 samples of each."""
    start = get_config()
    return dataclasses.replace(
        start,
        stages=("online",),
        model=dataclasses.replace(start.model, name=START, tiny=Tiny()),
        data=config.Data(name="series", count=20_000, size=4, least=3),
        sft=config.SFT(),
        algorithm=config.Algorithm(group_size=8, beta=0.04),
        optimizer=config.Optimizer(learning_rate=RATE, warmup=5, b2=0.95),
        training=config.Training(steps=STEPS, batch_size=QUESTIONS),
        evaluation=config.Evaluation(
            every=10, questions=400, batch_size=200, others=("series-5",)
        ),
        keep=config.Keep(every=50, best=0, samples=50),
    )


STEPS, QUESTIONS, SAMPLES, RATE = 100, 16, 8, 1e-4


def judge() -> config.Config:
    """A reward model of steps, made of the start by Math-Shepherd's labels of its own
    solutions (the paper, 2.2)."""
    start = get_config()
    return dataclasses.replace(
        start,
        stages=("reward",),
        model=dataclasses.replace(start.model, name=START, tiny=Tiny()),
        data=config.Data(name="runs/deepseekmath/labels/hard.jsonl", held_out=0.2),
        sft=config.SFT(),
        reward=config.Reward(
            labels="steps", steps=1500, batch_size=64, longest=96, learning_rate=1e-3
        ),
        sampling=config.Sampling(),
        evaluation=config.Evaluation(every=200),
        keep=config.Keep(every=200),
    )


OF_JUDGES = "evaluation.questions", "evaluation.every", "optimizer.warmup"


def common(smoke: bool) -> dict[str, Point]:
    """What several figures begin with: the start, and the judge with its labels."""
    of_start: dict[str, Any] = {"seed": 1}
    of_labels: dict[str, Any] = {"data": "series-3-4", "max_new": 72, "solutions": 4}
    of_labels |= {"questions": 4000}
    of_judge: dict[str, Any] = {}
    if smoke:
        of_start = SMALL | TINY | {"sft.steps": 2, "sft.batch_size": 4}
        of_labels |= {"solutions": 2, "questions": 4, "completions": 2}
        of_judge = {k: x for k, x in SMALL.items() if k in OF_JUDGES}
        of_judge |= {"reward.steps": 2, "reward.batch_size": 2}
    of_judge |= {"data.name": Made("labels", "hard.jsonl")}
    return {
        "second": Point("train", str(HERE / "miniature.py"), of_start),
        "labels": Point("label", START, of_labels),
        "judge": Point("train", str(HERE / "judge.py"), of_judge),
    }


def points(
    figure: str, arms: Mapping[str, Mapping[str, Any]], seeds: Iterable[int]
) -> dict[str, Point]:
    """A run of a file for each arm and seed; seed after seed, so that what is done is
    whole at any time."""
    return {
        place(figure, arm, seed): Point(
            "train", str(HERE / f"{figure}.py"), {"seed": seed} | settings
        )
        for seed in seeds
        for arm, settings in arms.items()
    }


def paper(figure: str) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The paper's own curves, by test set and arm: what can be read off its figures."""
    path = pathlib.Path(__file__).with_name("paper.json")
    return json.loads(path.read_text())[figure]


def place(figure: str, arm: str, seed: int) -> str:
    """The name of a point."""
    plain = "".join(x if x.isalnum() or x in "+-." else "_" for x in arm)
    return f"{figure}/{plain}-{seed}"
