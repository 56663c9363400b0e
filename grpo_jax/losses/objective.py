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

from grpo_jax import config
from grpo_jax.losses import kl, policy, reduce, statistics
from grpo_jax.records import PolicyBatch, check_shapes
from grpo_jax.section import Refused


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
    _check_inputs(settings, logp, batch, entropy)
    _check_weights(settings, batch, beta, entropy)
    mask = batch.is_completion
    rows = _rows(settings, _blank(logp, mask), batch)
    surrogate = policy.SURROGATES[settings.surrogate]
    term = jax.vmap(jax.vmap(lambda row: surrogate(row, settings)))(rows)
    x = jnp.where(_is_trained(settings, rows, batch), term.loss, 0.0)
    if batch.weight is not None and settings.surrogate != "vespo":
        x = x * _blank(batch.weight, mask)
    measured = _statistics(settings, rows, term, batch.is_row)
    if batch.ref_logp is not None and settings.kl.placed == "loss":
        ref_logp = _blank(batch.ref_logp, mask)
        divergence = kl.estimate(settings.kl, rows.logp, ref_logp, rows.ratio)
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
    old_logp = batch.ref_logp if settings.ratio_to == "reference" else batch.old_logp
    if old_logp is None:
        old_logp = jax.lax.stop_gradient(logp)
    old_logp = _blank(old_logp, mask)
    log_ratio = logp - old_logp
    level = jax.vmap(jax.vmap(policy.LEVELS[settings.importance_level]))
    exponent = level(logp, log_ratio, mask)
    if settings.log_ratio_limit is not None:
        limit = settings.log_ratio_limit
        exponent, log_ratio = (
            jnp.clip(x, -limit, limit) for x in (exponent, log_ratio)
        )
    is_selected = mask & (False if batch.is_selected is None else batch.is_selected)
    return policy.Row(
        logp=logp,
        old_logp=old_logp,
        log_ratio=log_ratio,
        ratio=jnp.exp(exponent),
        advantage=_blank(batch.advantage, mask),
        is_completion=mask,
        log_weight=_log_weight(settings, batch, logp),
        is_selected=is_selected,
    )


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
    settings: config.Algorithm, rows: policy.Row, batch: PolicyBatch
) -> Bool[Array, "B G C"]:
    """The tokens that keep their policy term."""
    kept = rows.is_completion
    if settings.off_policy_limit is not None:
        n = jnp.maximum(kept.sum(-1, keepdims=True), 1)
        drift = -jax.lax.stop_gradient(rows.log_ratio).sum(-1, keepdims=True) / n
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
    is_row: Bool[Array, "B G"],
) -> statistics.Statistics:
    """What the term did, and how far the policy has moved.

    Shares are of tokens; clip/low, high and any are of rows where the ratio is a row's.
    """
    rows, term = jax.lax.stop_gradient((rows, term))
    mask, n = rows.is_completion, rows.is_completion.sum(-1)
    measured = {
        "ratio": statistics.moments(rows.ratio, mask),
        "ratio_min": statistics.lowest(rows.ratio, mask),
        "ratio_max": statistics.highest(rows.ratio, mask),
        "kl_old": statistics.mean(-rows.log_ratio, mask),
        "log_ratio_abs": statistics.mean(jnp.abs(rows.log_ratio), mask),
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


def _check_inputs(settings, logp, batch: PolicyBatch, entropy):
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
    for name, x in (("logp", logp), ("entropy", entropy)):
        if x is not None and x.shape != batch.is_completion.shape:
            raise Refused(
                f"{name} has shape {x.shape}, the batch {batch.is_completion.shape}. "
                "Both are [B, G, C]."
            )


def _check_weights(settings, batch: PolicyBatch, beta, entropy):
    """A weight on something that is not there; a traced weight cannot be looked at."""
    has_kl = batch.ref_logp is not None or settings.kl.placed == "reward"
    for name, weight, is_there, remedy in (
        ("beta", beta, has_kl, "Fill PolicyBatch.ref_logp, or set it to 0."),
        ("entropy_coef", settings.entropy_coef, entropy is not None, "Give entropy=."),
    ):
        if isinstance(weight, float) and weight != 0 and not is_there:
            raise Refused(
                f"algorithm.{name} is {weight!r}, but what it weighs was not given. "
                f"{remedy}"
            )
