"""A run in one call, by the few settings that one varies most.

    import grpo_jax

    grpo_jax.quick(dataset="sums", group_size=16, batch_size=32, max_new=10).train()

It makes the same configuration that an experiment file would, and prints it. What is
not given has the default of `config`.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from grpo_jax import config, experiment, iterative, presets, run, runs, task
from grpo_jax.models import load
from grpo_jax.rewards.calls import Reward
from grpo_jax.section import choose

OFFLINE = ("sft", "rft", "dpo")
PREFERENCES = (
    "hh-rlhf",
    "Anthropic/hh-rlhf",
)  # pairs of answers, and no question's answer
FROM_PREFERENCES = {
    "stages": ("reward", "online"),
    "reward.labels": "preferences",
    "rewards.functions": ("model",),
}


class Quick(NamedTuple):
    settings: config.Config
    folder: pathlib.Path
    rewards: dict[str, Reward]
    model: load.Model | None

    def train(self) -> run.Result:
        given = {"rewards": self.rewards, "model": self.model}
        return iterative.train(self.settings, self.folder, **given)


def quick(
    model: str | load.Model = "tiny",  # a name, a folder, or one that was loaded
    dataset: str = "sums",  # of data.name
    # A name, a function, or several by name (None: one that is known by it); without
    # any, the data's own.
    reward: str | Reward | dict[str, Reward | None] | None = None,
    algorithm: str = "grpo",  # a preset, or sft, rft, dpo
    *,
    reward_weights: Sequence[float] = (),  # one for each of several; (): all 1
    num_epochs: float = 1.0,  # times that every problem is asked
    workdir: str | pathlib.Path = "runs/quick",
    batch_size: int | None = None,
    learning_rate: float | None = None,
    group_size: int | None = None,
    beta: float | None = None,
    cliprange: float | None = None,
    temperature: float | None = None,
    max_new: int | None = None,
    seed: int | None = None,
    settings: dict[str, Any] | None = None,  # any other, {"evaluation.every": 10}
) -> Quick:
    """A run that is ready to be trained."""
    rewards = _rewards(reward)
    is_offline = algorithm in OFFLINE
    prefers = dataset in PREFERENCES and reward is None and not is_offline
    stage = algorithm if is_offline else "training"
    where = algorithm if is_offline else "optimizer"
    named = {
        "seed": seed,
        "stages": (algorithm,) if is_offline else None,
        **(FROM_PREFERENCES if prefers else {}),
        "model.name": model if isinstance(model, str) else None,
        "data.name": dataset,
        **({"rewards.functions": tuple(rewards)} if rewards else {}),
        "sampling.temperature": temperature,
        "sampling.max_new": max_new,
        f"{stage}.batch_size": batch_size,
        f"{where}.learning_rate": learning_rate,
        **({} if is_offline else _preset(algorithm)),
        "algorithm.group_size": group_size,
        "dpo.beta" if algorithm == "dpo" else "algorithm.beta": beta,
        "algorithm.clip_low": cliprange,
        "algorithm.clip_high": cliprange,
        "algorithm.advantage.reward_weights": tuple(map(float, reward_weights)) or None,
    }
    named = {k: x for k, x in named.items() if x is not None} | (settings or {})
    chosen = config.of(config.nested(named))
    if f"{stage}.steps" not in named:
        problems = _count(chosen, model)
        size = getattr(chosen, stage).batch_size
        named[f"{stage}.steps"] = math.ceil(num_epochs * problems / size)
        chosen = config.of(config.nested(named))
    print(f"{workdir}\n{experiment.describe(chosen)}")
    own = {name: f for name, f in rewards.items() if f is not None}
    given = None if isinstance(model, str) else model
    return Quick(chosen, pathlib.Path(workdir), own, given)


def _rewards(reward: Any) -> dict[str, Reward | None]:
    """By their names; None: one that is known by its name."""
    if reward is None:
        return {}
    if isinstance(reward, str):
        return {reward: None}
    if callable(reward):
        return {getattr(reward, "__name__", "reward"): reward}
    return dict(reward)


def _preset(name: str) -> dict[str, Any]:
    chosen = choose(presets.PRESETS, "algorithm", name)
    return {f"algorithm.{path}": value for path, value in chosen.items()}


def _count(chosen: config.Config, model: str | load.Model) -> int:
    found = runs.find(chosen.model).base if isinstance(model, str) else model
    return len(task.make(chosen, found.spec, found.tokenizer).train)
