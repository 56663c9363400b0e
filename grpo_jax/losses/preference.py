"""Losses on pairs: DPO (paper eq. 12), IPO, and the Bradley-Terry reward model."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax.section import Refused, choose
from grpo_jax.tree import is_zero


def margin(
    logp: Float[Array, "T"],
    ref_logp: Float[Array, "T"],
    is_completion: Bool[Array, "T"],
    *,
    form: Literal["sum", "mean"],
) -> Float[Array, ""]:
    """m = Σ_t log π/π_ref over one completion, or its mean over the length.

    The paper's eq. 12 takes the mean; the original DPO the sum. The mean form needs a
    larger β.
    """
    log_ratio = jnp.where(is_completion, logp, 0.0) - jnp.where(
        is_completion, ref_logp, 0.0
    )
    return choose(FORMS, "form", form)(log_ratio, is_completion)


FORMS = {
    "sum": lambda x, where: x.sum(),
    "mean": lambda x, where: x.sum() / jnp.maximum(where.sum(), 1),
}


def dpo(
    chosen: Float[Array, ""],
    rejected: Float[Array, ""],
    *,
    beta: float | Array,
    label_smoothing: float | Array,
) -> Float[Array, ""]:
    """−(1−s) log σ(β(m⁺ − m⁻)) − s log σ(β(m⁻ − m⁺)) of one pair's margins."""
    z = beta * (chosen - rejected)
    right, wrong = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def ipo(
    chosen: Float[Array, ""], rejected: Float[Array, ""], *, beta: float | Array
) -> Float[Array, ""]:
    """((m⁺ − m⁻) − 1/(2β))²: a target for the margin instead of ever more of it."""
    if is_zero(beta):
        raise Refused("beta is 0; IPO's target for the margin is 1/(2β). Raise it.")
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def bradley_terry(
    chosen: Float[Array, ""], rejected: Float[Array, ""]
) -> Float[Array, ""]:
    """−log σ(r⁺ − r⁻) of the two scores that a reward model gives."""
    return -jax.nn.log_sigmoid(chosen - rejected)
