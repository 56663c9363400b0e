"""From gradients to steps: optax, as settings.Optimizer says.

A gradient that is not finite changes nothing, not even the moments, and is counted; the
next finite one starts the count anew.
"""

from typing import Any

import optax

from grpo_jax import config, crossing, tree
from grpo_jax.section import Refused

NEVER = 2**31 - 1  # optax would apply such a gradient after so many
# Norms and biases hold a layer's scale; all else is a matrix.
DECAYS = [(r"(^|/|_)norm$|/b[qkvogud]$", False), (r"", True)]


def make(settings: config.Optimizer, updates: int) -> optax.GradientTransformation:
    """For a run of so many updates, whose schedule ends with the last of them."""
    parts = {
        "adamw": [optax.scale_by_adam(settings.b1, settings.b2, settings.eps)],
        "lion": [optax.scale_by_lion(settings.b1, settings.b2)],
        "adafactor": [optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)],
        "sgd": [optax.trace(settings.momentum)] if settings.momentum else [],
    }[settings.name]
    if settings.clip_norm is not None:
        parts = [optax.clip_by_global_norm(settings.clip_norm), *parts]
    if settings.weight_decay > 0:
        parts += [optax.add_decayed_weights(settings.weight_decay, decays)]
    rate = schedule(settings, updates)
    step = optax.chain(*parts, optax.scale_by_learning_rate(rate))
    return optax.apply_if_finite(step, NEVER)


def schedule(settings: config.Optimizer, updates: int) -> optax.Schedule:
    """The learning rate of each update, counted from 0."""
    top, warmup = settings.learning_rate, settings.warmup
    last = max(updates - warmup - 1, 1)  # updates between the highest and the last
    if settings.schedule == "constant":
        rest = optax.constant_schedule(top)
    elif settings.schedule == "linear":
        rest = optax.linear_schedule(top, top * settings.final_rate, last)
    else:
        rest = optax.cosine_decay_schedule(top, last, settings.final_rate)
    # The first update is a whole step of the warm-up: at a rate of 0 it would be lost.
    rise = optax.linear_schedule(top / max(warmup, 1), top, max(warmup - 1, 1))
    return optax.join_schedules([rise, rest], [warmup])


def decays(params: Any) -> Any:
    """Which parameters decay."""
    return tree.match(DECAYS, params)


def check(settings: config.Optimizer, state: optax.OptState):
    """Stops a run whose gradients are no numbers any more."""
    in_a_row, in_all = crossing.down((state.notfinite_count, state.total_notfinite))
    if in_a_row >= settings.most_skips:
        raise Refused(
            f"the last {in_a_row} updates had no finite gradient, {in_all} in all: "
            f"optimizer.most_skips is {settings.most_skips}. The parameters are those "
            "of the last finite update. Lower the learning rate, or look at what the "
            "rewards and log-probabilities of that step were."
        )
