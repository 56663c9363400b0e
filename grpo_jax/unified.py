"""The paper's unified view of all methods (5.2.1 and A.1), as code.

    ∇J = E[(q, o) ~ source]  1/|o| Σ_t  GC(o, t, reward) ∇log π(o_t | q, o_<t)       (5)

A method is where completions come from, what rewards them, and the coefficient GC that
a token's ∇log π gets. The functions below are that last column, written out from the
paper's table; that differentiating each method's loss gives exactly the same is what
tests/test_unified.py shows. Positive: more of this token. J is maximised.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax.section import Refused


class Completion(NamedTuple):
    """One completion o, and what the methods know of it."""

    logp: Float[Array, "T"]  # log π(o_t), the policy of now
    old_logp: Float[Array, "T"]  # log π_old(o_t), the policy that sampled
    ref_logp: Float[Array, "T"]  # log π_ref(o_t), the reference
    advantage: Float[Array, "T"]  # Â_t of a group, or A_t of a critic
    is_right: Bool[Array, ""]  # by the rule
    side: Float[Array, ""]  # of a pair: 1 is o⁺, −1 is o⁻
    gap: Float[Array, ""]  # of a pair: m⁺ − m⁻, with m the mean of log π/π_ref


class Knobs(NamedTuple):
    beta: float | Array
    clip_low: float | Array
    clip_high: float | Array


def sft(o: Completion, knobs: Knobs) -> Float[Array, "T"]:
    """GC = 1 (7)."""
    return jnp.ones_like(o.logp)


def rft(o: Completion, knobs: Knobs) -> Float[Array, "T"]:
    """GC = I(o): 1 if the answer is right, else 0 (10). Online RFT has the same."""
    return jnp.full_like(o.logp, jnp.where(o.is_right, 1.0, 0.0))


def dpo(o: Completion, knobs: Knobs) -> Float[Array, "T"]:
    """GC = ± β σ(β m⁻ − β m⁺), + for o⁺ and − for o⁻ (13).

    The printed (14) lacks the factor β and has the log-ratio of one token where the
    loss (12) has the mean over the completion. This is the gradient of (12).
    """
    scalar = o.side * knobs.beta * jax.nn.sigmoid(-knobs.beta * o.gap)
    return jnp.full_like(o.logp, scalar)


def ppo(o: Completion, knobs: Knobs) -> Float[Array, "T"]:
    """GC = ρ_t A_t where the clip leaves it, else 0; A_t on policy, as printed (18)."""
    ratio = jnp.exp(o.logp - o.old_logp)
    is_low = (ratio < 1 - knobs.clip_low) & (o.advantage < 0)
    is_high = (ratio > 1 + knobs.clip_high) & (o.advantage > 0)
    return jnp.where(is_low | is_high, 0.0, ratio * o.advantage)


def grpo(o: Completion, knobs: Knobs) -> Float[Array, "T"]:
    """GC = ρ_t Â_t where the clip leaves it + β (π_ref/π − 1); on policy, (21)."""
    return ppo(o, knobs) + knobs.beta * (jnp.exp(o.ref_logp - o.logp) - 1)


class Method(NamedTuple):
    """One row of the table."""

    source: str
    reward: str
    coefficient: Callable[[Completion, Knobs], Float[Array, "T"]]


METHODS = {
    "SFT": Method("the data set", "none", sft),
    "RFT": Method("the SFT policy", "rule", rft),
    "Online RFT": Method("the policy", "rule", rft),
    "DPO": Method("pairs of the SFT policy", "rule or preference", dpo),
    "PPO": Method("the policy", "rule or model, with a critic", ppo),
    "GRPO": Method("the policy, in groups", "rule or model, per output or step", grpo),
}


def gradient_coefficient(method: str, o: Completion, knobs: Knobs) -> Float[Array, "T"]:
    """What multiplies ∇log π of each token of o under a method."""
    if method not in METHODS:
        raise Refused(f"method is {method!r}; it must be one of {', '.join(METHODS)}.")
    return METHODS[method].coefficient(o, knobs)
