"""Figure 5 at its real size: DeepSeekMath 7B, MATH, and GSM8K beside it. NOT YET RUN.

    python -m grpo_jax reproduce experiments/deepseekmath/real_7b.py --jobs 1

No machine that could run it was at hand. The arms are figure 5's, by the same names and
settings but for sizes: what is compared, and which claims are tested, was fixed there.
Left out are GRPO+PS by a rule, for no rule says of a line of MATH whether it is right,
the rule with the miniature judge's noise, and the second start. RFT, Online RFT,
GRPO+OS, DPO and PPO are rewarded by the exact answer; GRPO+OS and GRPO+PS also by a
reward model of steps, which two points before them make of the policy's own solutions
(judge_7b.py).

As in math_cot.py: the paper's 64 samples of 16 questions a step, β 0.04, 1e-6, its
prompt, 1,024 tokens. What it does not state is our choice: 500 steps, one epoch of
MATH's 7,500 questions and a little more; questions of MATH alone, where the paper also
asks GSM8K's; RFT and DPO draw the 64 samples of those 8,000 questions from the start,
and learn from 512 of them an update; a critic's rate of 1e-5; DPO's β of 0.1. Examined
every 50 steps: MATH-500, and the first 500 of GSM8K's test, which nothing is asked of.

Another model: MODEL, BASE and WRAPPING below, as for Qwen2.5-Math-1.5B, or any other of
the hub or a folder; and --workdir and --out, so that they do not share points.

**Eight H200, or any host that has all its devices to itself**: the command above, with
`pip install -e ".[cuda]"`, and the hub or GRPO_JAX_DATA for the data. `--jobs 1`, since
a run takes all devices. A run keeps two checkpoints of 111 GB (PPO: 188): they may go
when it is done. Three seeds show how far runs differ and prove nothing: of three, exact
sign flips come to p = 0.25 at least.

**A TPU VM pod** (v5p-128): `reproduce` starts its runs on one host. There each run is
started in all hosts at once, in a folder that all see, with the words of its arm
(ARMS); for GRPO+OS there are none but the mesh: a group is decoded on one lane of the
first two axes, and 16 questions have use for 16 of them, four chips each.

    gcloud compute tpus tpu-vm ssh NAME --worker=all --command "cd grpo_jax && \\
      .venv/bin/python -m grpo_jax train experiments/deepseekmath/real_7b.py \\
      --workdir /mnt/runs/real_7b/GRPO+OS-0 --training.mesh 1 16 4"

with `pip install -e ".[tpu]"` on each. Killed, the same command goes on.

What was done: all programs of GRPO+OS, and those that PPO learns by, were compiled for
that pod, which has no need to be here, in 3.4 and 6.4 minutes on two cores that had
other work:

    python -m grpo_jax plan experiments/deepseekmath/real_7b.py --topology v5p-128 \\
      --model.name deepseek-math-7b --training.mesh 1 16 4

Of 95.7 GiB of a device GRPO takes 20.7 at its peak, which is decoding, and 15.4 in an
update; PPO 23.1 in an update (`--programs learning --preset ppo --algorithm.beta 0.04
--training.batch-size 1024`). Over 64 lanes of one chip, the mesh if none is named, it
is 77.8, and three in four wait while 16 decode. Of eight H200 table_memory.py tells.
None of it says how fast it is.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from grpo_jax import config, experiment, figures, workdir
from grpo_jax.models.settings import Model
from grpo_jax.sweep import Made, Point

HERE = pathlib.Path(__file__).parent
figure5 = experiment.load(str(HERE / "figure5.py"))
math_cot = experiment.load(str(HERE.parent / "math_cot.py"))
miniature, REWARDS = figure5.miniature, figure5.REWARDS

NAME, SEEDS = "real_7b", 3
MODEL, WRAPPING = "deepseek-ai/deepseek-math-7b-instruct", "paper"
BASE = "deepseek-ai/deepseek-math-7b-base"  # which becomes the reward model
# MODEL, WRAPPING = "Qwen/Qwen2.5-Math-1.5B-Instruct", "chat"
# BASE = "Qwen/Qwen2.5-Math-1.5B"
STEPS, QUESTIONS, SAMPLES, RATE = 500, 16, 64, 1e-6
LABELS, JUDGE = "labels-7b", "judge-7b"
PANELS = "MATH", "GSM8K"
PAPER = [  # of MATH, whose questions are asked
    one._replace(paper=gain)
    for one, gain in zip(figure5.PAPER, (1.16, 0.59, 0.21), strict=True)
]


def get_config() -> config.Config:
    """GRPO by outcomes, as math_cot.py has it."""
    plain = math_cot.get_config()
    return dataclasses.replace(
        plain,
        model=dataclasses.replace(plain.model, name=MODEL),
        data=dataclasses.replace(plain.data, wrapping=WRAPPING),
        sampling=dataclasses.replace(plain.sampling, rows=512),
        training=config.Training(steps=STEPS, batch_size=QUESTIONS, parts=2),
        evaluation=config.Evaluation(
            every=50, questions=500, batch_size=128, others=("gsm8k",)
        ),
        keep=config.Keep(every=25, best=0, samples=50),
    )


def judge() -> config.Config:
    """A reward model of steps, of the base model."""
    plain = get_config()
    return config.Config(
        stages=("reward",),
        model=Model(name=BASE, numerics=plain.model.numerics),
        data=config.Data(name=f"runs/deepseekmath/{LABELS}/hard.jsonl", held_out=0.2),
        reward=config.Reward(
            labels="steps", steps=400, batch_size=256, longest=1536, learning_rate=2e-5
        ),
        optimizer=config.Optimizer(warmup=20),
        training=config.Training(parts=4),
        evaluation=config.Evaluation(every=100, questions=500),
        keep=config.Keep(every=100),
    )


def offline(name: str, **own: Any) -> dict[str, Any]:
    """Of a stage that draws ahead of it; what it does not read stays at defaults."""
    given = {"steps": STEPS, "learning_rate": RATE, "batch_size": 512} | own
    given |= {"samples": SAMPLES, "questions": STEPS * QUESTIONS}
    plain = config.Config()
    unread = {"algorithm.group_size": plain.algorithm.group_size}
    unread |= {"training.steps": plain.training.steps}
    return unread | {f"{name}.{key}": value for key, value in given.items()}


JUDGED = {"reward_model.name": Made(JUDGE)}
SIZES: dict[str, dict[str, Any]] = {
    "RFT": offline("rft"),
    "DPO": offline("dpo", beta=0.1),
    "Online RFT": {"algorithm.group_size": SAMPLES},
    "GRPO+OS": {},
    "GRPO+OS, model": JUDGED,
    "GRPO+PS, model": JUDGED,
    "PPO": {"critic.learning_rate": 1e-5, "training.batch_size": QUESTIONS * SAMPLES},
    "GRPO+OS without KL": {},
}
ARMS = {arm: figure5.ARMS[arm] | own for arm, own in SIZES.items()}
CLAIMS = {
    kind: [one for one in claims if {one.ours, one.theirs} <= ARMS.keys()]
    for kind, claims in (("paper", PAPER), ("beside", figure5.BESIDE))
}


def get_points(seeds: int, smoke: bool) -> dict[str, Point]:
    arms = {arm: own | short(own) for arm, own in ARMS.items()} if smoke else ARMS
    return common(smoke) | miniature.points(NAME, arms, range(seeds))


def common(smoke: bool) -> dict[str, Point]:
    """The reward model, and the labels that it is made of."""
    file, learned = str(miniature.HERE / "judge_7b.py"), Made(LABELS, "hard.jsonl")
    if smoke:
        small = miniature.common(smoke)
        own = small["judge"].settings | {"data.name": learned}
        own |= {"model.name": miniature.START, "model.numerics.compute": "float32"}
        own |= {"reward.longest": 96, "training.parts": 1}
        made = {LABELS: small["labels"], JUDGE: Point("train", file, own)}
        return {"second": small["second"]} | made
    of_labels: dict[str, Any] = {"data": "math", "max_new": 1024, "solutions": 15}
    of_labels |= {"instruction": "steps", "wrapping": WRAPPING}
    of_labels |= {"dtype": "bfloat16", "rows": 512}
    labels = Point("label", MODEL, of_labels)
    return {LABELS: labels, JUDGE: Point("train", file, {"data.name": learned})}


# What the miniature starts were made for, one of which --smoke begins with.
OF_SERIES = {
    "model.numerics.compute": "float32",
    "data.name": "series",
    "data.test": None,
    "data.count": 200,
    "data.size": 4,
    "data.least": 3,
    "data.instruction": "none",
    "data.wrapping": "raw",
    "sampling.max_prompt": None,
    "training.parts": 1,
}


def short(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Two steps of an arm."""
    few = figure5.short(dict(settings)) | OF_SERIES
    if "stages" not in settings:
        G = 1 if settings.get("preset") == "ppo" else 4
        return few | {"algorithm.group_size": G}
    (name,) = settings["stages"]
    return few | {f"{name}.samples": 8, f"{name}.batch_size": 4}


def keep(folder: pathlib.Path) -> dict[str, Any]:
    """By panels; what a run is examined on beside its own questions is GSM8K."""
    rows = workdir.rows(folder / workdir.METRICS)
    keys = (key for row in rows for key in row)
    beside = next(key for key in keys if re.fullmatch(r"eval/[^/]+/accuracy", key))
    found = figures.kept(folder, [miniature.INSIDE, beside])
    return dict(zip(PANELS, found.values(), strict=True))


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    found = {x: figure5.curves(NAME, ARMS, records, seeds, x) for x in PANELS}
    figure5.tell(NAME, found, CLAIMS, records, out)
