"""The objective of one minibatch, or of any part of it (paper eq. 3 and its heirs).

For every token, in this order:

    x = policy term                      losses/policy
    x = 0 where masked                   off-policy rows, tokens of low entropy
    x = x · w                            sampler's correction (vespo holds its own)
    x = x + β · KL                       losses/kl; never masked, never weighted
    loss = Σ w_i x                       losses/reduce: weights fixed beforehand
           − c · mean entropy

Values at masked places are replaced before anything is computed from them, so that no
NaN or infinity in padding reaches a gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from grpo_jax import config, tree
from grpo_jax.losses import kl, mismatch, policy, reduce, statistics
from grpo_jax.records import PolicyBatch, check_shapes, compared_with
from grpo_jax.section import Refused, need_shape


def policy_loss(
    settings: config.Algorithm,
    logp: Float[Array, "B G C"],
    batch: PolicyBatch,
    *,
    beta: float | Float[Array, ""],
    entropy: Float[Array, "B G C"] | None = None,
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """The loss and its statistics. β is given apart, because it may be steered.

    Without `batch.old_logp` the policy of now is the old one: ρ is 1, and its gradient
    is not 0. Without `batch.ref_logp` there is no KL in the loss.
    """
    check_shapes(batch)
    for name, x in (("logp", logp), ("entropy", entropy)):
        if x is not None:
            need_shape(batch.is_completion.shape, **{name: x})
    _check_inputs(settings, batch, entropy)
    _check_weights(settings, batch, beta, entropy)
    mask = batch.is_completion
    rows = _rows(settings, _blank(logp, mask), batch)
    moved, old_ratio = _ratio(settings, rows.logp, batch.old_logp, mask)
    surrogate = policy.SURROGATES[settings.surrogate]
    term = jax.vmap(jax.vmap(lambda row: surrogate(row, settings)))(rows)
    x = jnp.where(_is_trained(settings, rows, moved, batch), term.loss, 0.0)
    if batch.weight is not None and settings.surrogate != "vespo":
        x = x * _blank(batch.weight, mask)
    measured = _statistics(settings, rows, term, moved, batch.is_row)
    if batch.old_logp is None and batch.sampler_logp is not None:
        pair = jax.lax.stop_gradient(rows.logp), batch.sampler_logp
        measured |= mismatch.disagreement(*pair, mask)
    if batch.ref_logp is not None and settings.kl.placed == "loss":
        ref_logp = _blank(batch.ref_logp, mask)
        divergence = kl.estimate(settings.kl, rows.logp, ref_logp, old_ratio)
        x = x + beta * divergence
        measured["kl"] = statistics.mean(divergence, mask)
    loss = reduce.weighted_sum(x, mask, batch.row_weight)
    measured["loss_before_entropy"] = statistics.Sum(loss)
    if entropy is not None:
        entropy = _blank(entropy, mask)
        measured["entropy"] = statistics.mean(entropy, mask)
        loss = loss - settings.entropy_coef * _entropy_mean(entropy, batch)
    return loss, measured


def _blank(
    x: Float[Array, "B G C"], mask: Bool[Array, "B G C"]
) -> Float[Array, "B G C"]:
    """0 at masked places, with no gradient from there; at least float32."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.where(mask, x, 0.0)


def _rows(
    settings: config.Algorithm, logp: Float[Array, "B G C"], batch: PolicyBatch
) -> policy.Row:
    """Every completion as the policy terms see it, ratios at the importance level."""
    mask = batch.is_completion
    old_logp = compared_with(settings, batch)
    log_ratio, ratio = _ratio(settings, logp, old_logp, mask)
    old_logp = jax.lax.stop_gradient(logp) if old_logp is None else old_logp
    is_selected = mask & (False if batch.is_selected is None else batch.is_selected)
    return policy.Row(
        logp=logp,
        old_logp=_blank(old_logp, mask),
        log_ratio=log_ratio,
        ratio=ratio,
        advantage=_blank(batch.advantage, mask),
        is_completion=mask,
        log_weight=_log_weight(settings, batch, logp),
        is_selected=is_selected,
    )


def _ratio(
    settings: config.Algorithm,
    logp: Float[Array, "B G C"],
    old_logp: Float[Array, "B G C"] | None,
    mask: Bool[Array, "B G C"],
) -> tuple[Float[Array, "B G C"], Float[Array, "B G C"]]:
    """log π/π_old of each token, and π/π_old at the importance level."""
    if old_logp is None:
        old_logp = jax.lax.stop_gradient(logp)
    log_ratio = logp - _blank(old_logp, mask)
    level = jax.vmap(jax.vmap(policy.LEVELS[settings.importance_level]))
    exponent = level(logp, log_ratio, mask)
    if settings.log_ratio_limit is not None:
        limit = settings.log_ratio_limit
        exponent = jnp.clip(exponent, -limit, limit)
        log_ratio = jnp.clip(log_ratio, -limit, limit)
    return log_ratio, jnp.exp(exponent)


def _log_weight(settings, batch: PolicyBatch, logp) -> Float[Array, "B G"]:
    """log of the sampler's correction of each row: vespo's share of it."""
    mask = batch.is_completion
    if batch.weight is None:
        return jnp.zeros(mask.shape[:2], logp.dtype)
    log_weight = jnp.log(jnp.where(mask, jnp.maximum(batch.weight, 1e-8), 1.0))
    if settings.correction.level == "sequence":  # one weight, written on every token
        return log_weight.sum(-1) / jnp.maximum(mask.sum(-1), 1)
    return log_weight.sum(-1)


def _is_trained(
    settings: config.Algorithm,
    rows: policy.Row,
    moved: Float[Array, "B G C"],
    batch: PolicyBatch,
) -> Bool[Array, "B G C"]:
    """The tokens that keep their policy term.

    A row's drift is its mean log(π_drawn_from/π): the sampler's own numbers if they
    were recorded (DeepSeek-V3.2), where one that is not finite counts as no drift.
    """
    kept = rows.is_completion
    if settings.off_policy_limit is not None:
        if batch.sampler_logp is not None:
            gap = rows.logp - _blank(batch.sampler_logp, kept)
            moved = jnp.where(jnp.isfinite(gap), gap, 0.0)
        n = jnp.maximum(kept.sum(-1, keepdims=True), 1)
        drift = -moved.sum(-1, keepdims=True) / n
        kept &= (rows.advantage >= 0) | (drift <= settings.off_policy_limit)
    if batch.is_uncertain is not None:
        kept &= batch.is_uncertain
    return kept


def _entropy_mean(
    entropy: Float[Array, "B G C"], batch: PolicyBatch
) -> Float[Array, ""]:
    """This part's share of the mean over the (uncertain) tokens of the minibatch."""
    chosen = batch.is_completion
    if batch.is_uncertain is not None:
        chosen &= batch.is_uncertain
    return jnp.where(chosen, entropy, 0.0).sum() * batch.entropy_weight


def _statistics(
    settings: config.Algorithm,
    rows: policy.Row,
    term: policy.Term,
    moved: Float[Array, "B G C"],
    is_row: Bool[Array, "B G"],
) -> statistics.Statistics:
    """What the term did, and how far the policy has moved.

    Shares are of tokens; clip/low, high and any are of rows where the ratio is a row's.
    """
    mask, n = rows.is_completion, rows.is_completion.sum(-1)
    measured = {
        "ratio": statistics.moments(rows.ratio, mask),
        "ratio_min": statistics.lowest(rows.ratio, mask),
        "ratio_max": statistics.highest(rows.ratio, mask),
        "kl_old": statistics.mean(-moved, mask),
        "log_ratio_abs": statistics.mean(jnp.abs(moved), mask),
    }
    if term.low is not None:
        by_row = {
            name: (flags & mask).sum(-1) / jnp.maximum(n, 1)
            for name, flags in (("low", term.low), ("high", term.high))
        }
        by_row["any"] = by_row["low"] + by_row["high"]
        a_row = settings.importance_level == "sequence"
        weight = is_row if a_row else n
        for name, share in by_row.items():
            measured[f"clip/{name}"] = statistics.weighted_mean(share, weight)
        measured["clip/low_min"] = statistics.lowest(by_row["low"], n > 0)
        measured["clip/high_max"] = statistics.highest(by_row["high"], n > 0)
        measured["clip/tokens"] = statistics.mean(term.low | term.high, mask)
        for name, side in (("gain", rows.advantage > 0), ("loss", rows.advantage < 0)):
            measured[f"outside/{name}"] = statistics.mean(term.outside & side, mask)
    if term.dual is not None:
        measured["clip/dual"] = statistics.mean(term.dual, mask)
    if term.weight is not None:
        by_row = jnp.where(mask, term.weight, 0.0).sum(-1) / jnp.maximum(n, 1)
        measured["weight"] = statistics.mean(by_row, is_row)
    return measured


def _check_inputs(settings, batch: PolicyBatch, entropy):
    """What the settings call for and the batch lacks, known before compiling."""
    selects = settings.surrogate in ("kl_cov", "clip_cov")
    needs = {
        "row_weight": (True, "loss_mean"),
        "is_selected": (selects, f"surrogate {settings.surrogate!r}"),
        "ref_logp": (settings.ratio_to == "reference", "ratio_to 'reference'"),
        "is_uncertain": (settings.top_entropy is not None, "top_entropy"),
        "entropy_weight": (entropy is not None, "the entropy bonus"),
        "weight": (settings.correction.level != "none", "correction.level"),
    }
    for name, (is_needed, reader) in needs.items():
        if is_needed and getattr(batch, name) is None:
            raise Refused(
                f"the batch carries no {name}, which algorithm.{reader} reads. "
                f"Fill PolicyBatch.{name}."
            )


def _check_weights(settings, batch: PolicyBatch, beta, entropy):
    """A weight on something that is not there. 0 is known inside a program as well."""
    has_kl = batch.ref_logp is not None or settings.kl.placed == "reward"
    no_kl = tree.is_zero(settings.beta) or tree.is_zero(beta)
    no_bonus = tree.is_zero(settings.entropy_coef)
    for name, is_fine, remedy in (
        ("beta", has_kl or no_kl, "Fill PolicyBatch.ref_logp"),
        ("entropy_coef", entropy is not None or no_bonus, "Give entropy="),
    ):
        if not is_fine:
            raise Refused(
                f"algorithm.{name} is not 0, but what it weighs was not given. "
                f"{remedy}, or set it to 0."
            )
