"""From values of outputs or steps to advantages of tokens: one row `[T]`, then `vmap`.

A mask may have holes (tokens of a tool between tokens of the policy). They are skipped:
they get 0, and what is accumulated passes over them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax import config
from grpo_jax.advantages import group


def from_steps(
    value: Float[Array, "S"],
    end: Int[Array, "S"],
    is_step: Bool[Array, "S"],
    is_completion: Bool[Array, "T"],
) -> Float[Array, "T"]:
    """Â_t = Σ_{j : end(j) ≥ t} z_j: its own step's value and all later ones (4.1.3).

    Tokens after the last end get 0, so the last step should end on the last token.
    """
    at_end = jnp.zeros(is_completion.shape, value.dtype)
    at_end = at_end.at[end].add(jnp.where(is_step, value, 0.0), mode="drop")
    return jnp.where(is_completion, _sum_from_here(at_end), 0.0)


def token_rewards(
    reward: Float[Array, ""],
    penalty: Float[Array, "T"],
    is_completion: Bool[Array, "T"],
) -> Float[Array, "T"]:
    """−penalty at every token and the output's reward at its last one (paper eq. 2)."""
    remaining = _sum_from_here(is_completion.astype(int))
    is_last = is_completion & (remaining == 1)
    return jnp.where(is_completion, -penalty, 0.0) + jnp.where(is_last, reward, 0.0)


def returns(
    reward: Float[Array, "T"], is_completion: Bool[Array, "T"], gamma: float | Array
) -> Float[Array, "T"]:
    """R_t = r_t + γ R_{t+1}."""
    zero = jnp.zeros_like(reward)
    advantage, _ = generalized_advantage(reward, zero, is_completion, gamma, 1.0)
    return advantage


def generalized_advantage(
    reward: Float[Array, "T"],
    value: Float[Array, "T"],
    is_completion: Bool[Array, "T"],
    gamma: float | Array,
    lam: float | Array,
) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
    """A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ V_{t+1} − V_t; and returns A + V."""

    def step(later, now):
        later_value, later_advantage = later
        r, v, here = now
        advantage = r + gamma * later_value - v + gamma * lam * later_advantage
        carry = (
            jnp.where(here, v, later_value),
            jnp.where(here, advantage, later_advantage),
        )
        return carry, jnp.where(here, advantage, 0.0)

    start = (jnp.zeros((), value.dtype), jnp.zeros((), value.dtype))
    rows = (reward, value, is_completion)
    _, advantage = jax.lax.scan(step, start, rows, reverse=True)
    return advantage, jnp.where(is_completion, advantage + value, 0.0)


def whiten(
    x: Float[Array, "*N"], where: Bool[Array, "*N"], settings: config.Advantage
) -> Float[Array, "*N"]:
    """(x − mean) / std over all that counts; exactly 0 where all of it agrees."""
    x = jnp.where(where, x, 0.0)
    centred = x - x.sum() / jnp.maximum(where.sum(), 1)
    z = group.divide(centred, group.std(x, where, settings.ddof), settings)
    return jnp.where(where & ~group.agree(x, where), z, 0.0)


def _sum_from_here(x: Array) -> Array:
    return jnp.flip(jnp.cumsum(jnp.flip(x)))
