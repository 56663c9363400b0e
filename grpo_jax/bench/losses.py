"""What the mathematics costs, against the least it could cost on the same machine.

    python -m grpo_jax bench

One evaluation of advantages and loss, and one with the gradient, on [16, 64, 1024]
tokens; beside them, in turn, a plain sum over one such array times the passes that must
be made over them. Medians; the last line is one JSON object.
"""

import json
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grpo_jax import config, line, prepare, prng, programs
from grpo_jax.losses import objective
from grpo_jax.records import Rewards

SHAPE = (16, 64, 1024)
RUNS = 101
# Arrays of float32 that must be read once: logp, old logp, reference logp; the gradient
# must be written as well. Masks and advantages are made from one number a row.
PASSES = {"loss": 3, "gradient": 4}


class Options(NamedTuple):
    """What the mathematics costs, against the least it could cost here."""


def main(words: list[str]) -> int:
    line.parse("bench losses", Options, words)
    settings = config.Algorithm()
    data = _data()
    evaluate = programs.forward(_loss)
    differentiate = programs.forward(jax.value_and_grad(_loss))
    plain = programs.forward(lambda x: x.sum())
    timed = {
        "plain_sum_s": lambda: plain(data[0]),
        "loss_s": lambda: evaluate(data[0], settings, *data[1:]),
        "gradient_s": lambda: differentiate(data[0], settings, *data[1:]),
    }
    seconds = _alternate(timed)
    result = dict(seconds)
    for name, passes in PASSES.items():
        floor = seconds["plain_sum_s"] * passes
        result[f"{name}_over_floor"] = seconds[f"{name}_s"] / floor
    print(f"{SHAPE} tokens, float32, {jax.devices()[0].device_kind}, {RUNS} runs")
    print(json.dumps({k: round(v, 6) for k, v in result.items()}))
    return 0


def _loss(logp, settings, old_logp, ref_logp, reward, length):
    """Advantages from rewards, then the GRPO loss with its KL."""
    positions = jnp.arange(logp.shape[-1])[None, None, :]
    mask = positions < length[:, :, None]
    everyone = jnp.ones(length.shape, bool)
    rewards = Rewards(reward[:, :, None], mask, everyone)
    scores = prepare.Scores(old_logp, ref_logp, None)
    beta = settings.beta
    batch, _ = prepare.rollout(settings, rewards, scores, everyone, beta=beta)
    batch = prepare.minibatch(
        settings, batch, logp, None, None, rollout_tokens=mask.sum(), parts=1
    )
    return objective.policy_loss(settings, logp, batch, beta=beta)[0]


def _data():
    keys = jax.random.split(prng.root(0), 5)
    logp, old_logp, ref_logp = (-jax.random.exponential(k, SHAPE) for k in keys[:3])
    reward = jax.random.bernoulli(keys[3], 0.5, SHAPE[:2]).astype(float)
    length = jax.random.randint(keys[4], SHAPE[:2], 1, SHAPE[2] + 1)
    return logp, old_logp, ref_logp, reward, length


def _alternate(timed: dict) -> dict[str, float]:
    """Median seconds of each, run in turn, after one run of each to compile."""
    seconds = {name: [] for name in timed}
    for run in range(RUNS + 1):
        for name, function in timed.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if run:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
