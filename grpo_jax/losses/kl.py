"""KL(π ‖ π_ref) per token, from the log-probabilities of the sampled token alone.

With x = log π − log π_ref, in expectation over π:

    k1 = x            unbiased; as a loss, its gradient has mean 0: no pull at all
    k2 = x²/2         biased; as a loss, it pulls along the reverse KL(π ‖ π_ref)
    k3 = e^−x + x − 1 unbiased, never negative (paper eq. 4); as a loss, it pulls along
                      the forward KL(π_ref ‖ π)
    abs = |x|

So value and gradient are chosen apart: `gradient` own differentiates the estimate,
straight_through keeps its value and takes the gradient of k2, and ratio multiplies it
by π/π_old, whose gradient adds the missing score-function term. That is exact for the
ratio of a token; at importance_level sequence it is the row's (as in TRL), and biased.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from grpo_jax import config


def k1(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return x


def absolute(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.abs(x)


def k2(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return x**2 / 2


def k3(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Never below 0, rounded either: expm1(−x) ≥ −x, and −x is a floating-point number.

    Written as e^−x − 1 + x, half of all small x would come out negative.
    """
    return jnp.expm1(-x) + x


ESTIMATORS = {"k1": k1, "abs": absolute, "k2": k2, "k3": k3}


def own(value, x, ratio):
    return value


def straight_through(value, x, ratio):
    still = jax.lax.stop_gradient
    return still(value) + still(x) * (x - still(x))


def by_ratio(value, x, ratio):
    return value * ratio


GRADIENTS = {"own": own, "straight_through": straight_through, "ratio": by_ratio}


def estimate(
    settings: config.KL,
    logp: Float[Array, "*T"],
    ref_logp: Float[Array, "*T"],
    ratio: Float[Array, "*T"],
) -> Float[Array, "*T"]:
    """The KL of each token.

    A clamp stops the estimate's own gradient outside its range; the straight-through
    gradient, x itself, needs no clamp and has none (as in verl).
    """
    x = logp - ref_logp
    value = x
    if settings.log_limit is not None:
        value = jnp.clip(value, -settings.log_limit, settings.log_limit)
    value = ESTIMATORS[settings.estimator](value)
    if settings.limit is not None:
        value = jnp.clip(value, -settings.limit, settings.limit)
    return GRADIENTS[settings.gradient](value, x, ratio)


def next_beta(
    settings: config.KL,
    beta: float | Float[Array, ""],
    measured: float | Float[Array, ""],
    samples: int | Array,
) -> float | Float[Array, ""]:
    """β ← β (1 + clip(KL/target − 1, ±0.2) · samples/horizon), if there is a target.

    More samples than the horizon count as the horizon: elsewhere a rollout of five
    horizons can turn β negative, and the policy is then paid to leave the reference.
    """
    if settings.target is None:
        return beta
    error = min(max(measured / settings.target - 1, -0.2), 0.2)
    return beta * (1 + error * min(samples / settings.horizon, 1.0))
