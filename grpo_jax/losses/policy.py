"""The policy terms: what one completion adds to the loss, token by token.

Written for one row `[T]`, with ρ_t = π(o_t)/π_old(o_t) and advantage A_t. All are
losses, so the paper's objective appears with a minus. The importance level says whose
ratio ρ is: each token's own, or one for the whole row (GSPO).

A term also says where it held the policy back, for the metrics: see `Term`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax import config


class Row(NamedTuple):
    """One completion. Outside the mask log-probabilities and advantages are 0."""

    logp: Float[Array, "T"]
    old_logp: Float[Array, "T"]
    log_ratio: Float[Array, "T"]  # log π − log π_old, whatever the importance level
    ratio: Float[Array, "T"]  # at the importance level
    advantage: Float[Array, "T"]
    is_completion: Bool[Array, "T"]
    log_weight: Float[Array, ""]  # Σ log of the sampler's correction; 0 without one
    is_selected: Bool[Array, "T"]  # by KL-Cov or Clip-Cov


class Term(NamedTuple):
    """The loss of each token, and what the term did there; None: it never does."""

    loss: Float[Array, "T"]
    outside: Bool[Array, "T"] | None = None  # ρ out of its range, whatever A is
    low: Bool[Array, "T"] | None = None  # held back: A < 0 and ρ low already
    high: Bool[Array, "T"] | None = None  # held back: A > 0 and ρ high already
    dual: Bool[Array, "T"] | None = None  # the second bound on a negative advantage
    weight: Float[Array, "T"] | None = None  # the stopped factor on A log π


def token_level(logp, log_ratio, is_completion):
    """log ρ_t."""
    return log_ratio


def sequence_level(logp, log_ratio, is_completion):
    """The mean of log ρ over the row: log of (π/π_old)^(1/|o|) (GSPO)."""
    n = jnp.maximum(is_completion.sum(), 1)
    return jnp.full_like(log_ratio, log_ratio.sum() / n)


def sequence_token_level(logp, log_ratio, is_completion):
    """The value of GSPO's ratio with each token's own gradient (GSPO-token)."""
    mean = jax.lax.stop_gradient(sequence_level(logp, log_ratio, is_completion))
    return mean + logp - jax.lax.stop_gradient(logp)


LEVELS = {
    "token": token_level,
    "sequence": sequence_level,
    "sequence_token": sequence_token_level,
}


def clipped(row: Row, settings: config.Algorithm) -> Term:
    """−min(ρA, clip(ρ, 1−ε_low, 1+ε_high) A), paper eq. 3.

    Where A < 0 this has no bound as ρ grows. Two ways to give it one: δ (`ratio_max`)
    caps ρ in the first branch, c (`dual_clip`) caps the loss at −cA.
    """
    ratio, advantage = row.ratio, row.advantage
    if settings.ratio_max is not None:
        ratio = jnp.minimum(ratio, settings.ratio_max)
    floor, ceiling = 1 - settings.clip_low, 1 + settings.clip_high
    loss = -jnp.minimum(
        ratio * advantage, jnp.clip(row.ratio, floor, ceiling) * advantage
    )
    term = Term(loss, *_held(row.ratio, floor, ceiling, advantage))
    if settings.dual_clip is None:
        return term
    bound = jnp.where(advantage < 0, -settings.dual_clip * advantage, jnp.inf)
    return term._replace(loss=jnp.minimum(loss, bound), dual=loss > bound)


def reinforce(row: Row, settings: config.Algorithm) -> Term:
    """−A log π: no ratio, so it is off the policy gradient once π has left π_old."""
    return Term(-row.advantage * row.logp)


def cispo(row: Row, settings: config.Algorithm) -> Term:
    """−sg(clip(ρ)) A log π: the weight is clipped, the gradient never (MiniMax-M1)."""
    weight, held = _stopped(row, settings)
    return Term(-weight * row.advantage * row.logp, *held, weight=weight)


def sapo(row: Row, settings: config.Algorithm) -> Term:
    """−(4/τ) σ(τ(ρ−1)) A: a soft gate; its slope at ρ = 1 is −A for any τ (SAPO)."""
    is_positive = row.advantage > 0
    tau = jnp.where(is_positive, settings.gate_positive, settings.gate_negative)
    gate = 4 / tau * jax.nn.sigmoid(tau * (row.ratio - 1))
    return Term(-gate * row.advantage)


def vespo(row: Row, settings: config.Algorithm) -> Term:
    """−φ A log π with φ = e^λ w^k e^(−λw): a gamma-shaped weight of the row (VESPO).

    w is the row's whole ratio to the policy that sampled it, Π ρ_t times the sampler's
    correction, which this term holds itself.
    """
    low, high = jnp.log(1e-8), 20.0
    log_w = jnp.clip(row.log_ratio.sum() + row.log_weight, low, high)
    is_positive = row.advantage >= 0
    k, lam = (
        jnp.where(is_positive, positive, negative)
        for positive, negative in zip(
            settings.gamma_positive, settings.gamma_negative, strict=True
        )
    )
    phi = jax.lax.stop_gradient(jnp.exp(lam + k * log_w - lam * jnp.exp(log_w)))
    return Term(-phi * row.advantage * row.logp, weight=phi)


def gmpo(row: Row, settings: config.Algorithm) -> Term:
    """−A exp(mean of clipped log ρ): the geometric mean of the row's ratios (GMPO).

    The row has one loss, written on each of its tokens; per_sequence averages it back.
    """
    sign = jnp.sign(row.advantage)
    inside = jnp.clip(row.log_ratio, -settings.clip_low, settings.clip_high)
    chosen = sign * jnp.minimum(sign * row.log_ratio, sign * inside)
    n = jnp.maximum(row.is_completion.sum(), 1)
    held = _held(row.log_ratio, -settings.clip_low, settings.clip_high, row.advantage)
    return Term(-row.advantage * jnp.exp(chosen.sum() / n), *held)


def dppo_tv(row: Row, settings: config.Algorithm) -> Term:
    """−A sg(ρ) log π on the tokens whose probability moved less than δ (DPPO, TV)."""
    moved = _probability(row.logp) - _probability(row.old_logp)
    high = (row.advantage > 0) & (moved > settings.clip_high)
    low = (row.advantage <= 0) & (moved < -settings.clip_low)
    return _kept(row, settings, low, high)


def dppo_kl(row: Row, settings: config.Algorithm) -> Term:
    """As `dppo_tv`, by the KL of (π, 1−π) from (π_old, 1−π_old) and its direction."""
    p, q = _probability(row.logp), _probability(row.old_logp)
    rest = q * (row.old_logp - row.logp)
    divergence = rest + (1 - q) * jnp.log((1 - q + 1e-8) / (1 - p + 1e-8))
    high = (row.advantage > 0) & (divergence > settings.clip_high) & (p > q)
    low = (row.advantage <= 0) & (divergence > settings.clip_low) & (p < q)
    return _kept(row, settings, low, high)


def dro(row: Row, settings: config.Algorithm) -> Term:
    """−(A log π − ½β(log ρ)²): no clip, a quadratic pull to π_old (DRO)."""
    pull = settings.quadratic / 2 * row.log_ratio**2
    return Term(pull - row.advantage * row.logp)


def kl_cov(row: Row, settings: config.Algorithm) -> Term:
    """−ρA, plus |log ρ| on the tokens that would lose entropy fastest (KL-Cov)."""
    pull = jnp.where(row.is_selected, settings.cov_coef * jnp.abs(row.log_ratio), 0.0)
    return Term(pull - row.ratio * row.advantage)


def clip_cov(row: Row, settings: config.Algorithm) -> Term:
    """`clipped`, with no gradient on a few tokens of high covariance (Clip-Cov)."""
    term = clipped(row, settings)
    return term._replace(loss=jnp.where(row.is_selected, 0.0, term.loss))


SURROGATES = {
    "clipped": clipped,
    "reinforce": reinforce,
    "cispo": cispo,
    "sapo": sapo,
    "vespo": vespo,
    "gmpo": gmpo,
    "dppo_tv": dppo_tv,
    "dppo_kl": dppo_kl,
    "dro": dro,
    "kl_cov": kl_cov,
    "clip_cov": clip_cov,
}


def _held(x, floor, ceiling, advantage):
    """Where x is outside its range, and where that held the policy back."""
    is_low, is_high = x < floor, x > ceiling
    return is_low | is_high, is_low & (advantage < 0), is_high & (advantage > 0)


def _probability(logp: Float[Array, "T"]) -> Float[Array, "T"]:
    return jax.lax.stop_gradient(jnp.exp(logp))


def _stopped(row: Row, settings: config.Algorithm):
    """sg(clip(ρ)) between the optional bounds, and where they act."""
    floor = 0.0 if settings.weight_low is None else settings.weight_low
    ceiling = jnp.inf if settings.weight_high is None else settings.weight_high
    ratio = jax.lax.stop_gradient(row.ratio)
    return jnp.clip(ratio, floor, ceiling), _held(ratio, floor, ceiling, row.advantage)


def _kept(row: Row, settings: config.Algorithm, low, high) -> Term:
    """The weighted log-likelihood of the tokens that are neither low nor high."""
    is_kept = ~(low | high)
    weight, _ = _stopped(row, settings)
    weight = jnp.where(is_kept, weight, 0.0)
    is_capped = is_kept & (row.ratio > weight)
    loss = -row.advantage * weight * row.logp
    return Term(loss, low | high, low, high, is_capped, weight)
