"""Every policy loss of TRL, verl and Liger in the vectors: value, gradient, metrics."""

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import config
from grpo_jax.losses import mismatch, objective, reduce, select, statistics
from grpo_jax.records import PolicyBatch
from tests import oracle

SURROGATE = {
    "soft_gate": "sapo",
    "gamma_weight": "vespo",
    "geometric_mean": "gmpo",
    "quadratic": "dro",
}
LEVEL = {"sequence_value_token_gradient": "sequence_token"}
LOSS_MEAN = {
    "mean_of_sequence_means": "per_sequence",
    "mean_of_rows": "per_sequence",
    "token_mean": "per_token",
    "token_sum": "sum",
    "mean_of_sequence_sums": "per_sequence_sum",
    "mean_of_sequence_sums_over_constant": "over_constant",
    "token_sum_over_constant": "over_constant",
}


def settings_of(options, rows):
    """A case's options in the words of our configuration."""
    given = {
        "surrogate": SURROGATE.get(options["surrogate"], options["surrogate"]),
        "importance_level": LEVEL.get(options["ratio_level"], options["ratio_level"]),
        "clip_low": options["clip_low"],
        "clip_high": options["clip_high"],
        "ratio_max": options["ratio_max"],
        "dual_clip": options["dual_clip"],
        "off_policy_limit": options["off_policy_mask"],
        "top_entropy": options["top_entropy"],
        "entropy_coef": options["entropy_coef"],
        "beta": options["kl_coef"],
        "loss_mean": LOSS_MEAN[options["reduce"]],
        "cov_fraction": options.get("cov_fraction"),
        "cov_coef": options.get("cov_coef"),
        "quadratic": options.get("quadratic_coef"),
    }
    if options["weight_bounds"]:
        given["weight_low"], given["weight_high"] = options["weight_bounds"]
    if options["gate_temperature"]:
        given["gate_positive"], given["gate_negative"] = options["gate_temperature"]
    if options["gamma_weight"]:
        given["gamma_positive"] = tuple(options["gamma_weight"][:2])
        given["gamma_negative"] = tuple(options["gamma_weight"][2:])
    if given["loss_mean"] == "over_constant":
        constant = options["constant"]
        if options["reduce"] == "token_sum_over_constant":
            constant //= rows  # TRL's constant holds the rows as well
        given["loss_constant"] = constant
    if options["denominator"]:
        given["loss_mean"] = "per_rollout_token"
    if options["empty_rows"] == "dropped":
        given["empty_rows"] = "dropped"
    if options["kl_weight"] == "ratio":
        given["kl"] = config.KL(gradient="ratio")
    if correction := options["sampler_correction"]:
        given["correction"] = config.Correction(
            level=correction["level"].removesuffix("_sum"),
            mode=correction["mode"],
            low=correction["min"],
            high=correction["max"],
        )
    return config.Algorithm(**{k: v for k, v in given.items() if v is not None})


def batch_of(settings, options, x):
    mask, logp = x["mask"], x["logp"]
    advantage = jnp.broadcast_to(x["advantage"][:, :, None], logp.shape)
    batch = PolicyBatch(
        mask,
        advantage,
        jnp.ones(mask.shape[:2], bool),
        row_weight=reduce.row_weights(
            settings,
            mask,
            jnp.ones(mask.shape[:2], bool),
            rollout_tokens=int(options["denominator"] or mask.sum()),
            parts=1,
        ),
        old_logp=x.get("old_logp"),
        ref_logp=x.get("ref_logp"),
    )
    if settings.correction.level != "none":
        weight, _ = mismatch.weights(
            settings.correction, x["old_logp"], x["sampler_logp"], mask
        )
        batch = batch._replace(weight=weight)
        given = jnp.where(mask, jnp.broadcast_to(x["weight"], mask.shape), 0)
        np.testing.assert_allclose(weight, given, 1e-6)
    if settings.surrogate == "kl_cov":
        selected = select.covariant(settings, logp, advantage, mask)
        batch = batch._replace(is_selected=selected)
    chosen = mask
    if settings.top_entropy is not None:
        chosen = select.uncertain(settings, x["entropy"], mask)
        batch = batch._replace(is_uncertain=chosen)
    if "entropy" in x:
        batch = batch._replace(entropy_weight=1 / chosen.sum())
    return batch


@oracle.cases("policy_loss")
def test_loss_gradient_and_metrics_equal_the_other_system(case, dtype, float64):
    options, expected = case["options"], case["expected"]
    x = oracle.arrays(case, dtype)
    rows = x["mask"].shape[1]
    settings = settings_of(options, rows)
    batch = batch_of(settings, options, x)
    scale = options["loss_scale"]

    def loss(logp, entropy):
        value, measured = objective.policy_loss(
            settings, logp, batch, beta=settings.beta, entropy=entropy
        )
        bonus = measured["loss_before_entropy"].total - value
        return measured["loss_before_entropy"].total * scale - bonus, measured

    grad = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    entropy = x.get("entropy", jnp.zeros_like(x["logp"]))
    if batch.entropy_weight is None:
        batch = batch._replace(entropy_weight=jnp.ones(()))
    (value, measured), (grad_logp, grad_entropy) = grad(x["logp"], entropy)
    # verl adds 1e-8 to its counts, which these cases alone can show.
    tolerance = "float64" if not options["count_eps"] else "float32"
    dtype = dtype if dtype == "float32" else tolerance
    oracle.assert_close(value, expected["loss"], dtype)
    oracle.assert_close(grad_logp[0], expected["grad_logp"], dtype)
    if "grad_entropy" in expected:
        oracle.assert_close(grad_entropy[0], expected["grad_entropy"], dtype)
    got = statistics.values(measured)
    for name, number in expected["metrics"].items():
        if number is not None:
            ours = metric(case, name, got)
            np.testing.assert_allclose(ours, number, 1e-6, 1e-6, err_msg=name)


METRICS = {
    "clip_ratio/low_mean": "clip/low",
    "clip_ratio/high_mean": "clip/high",
    "clip_ratio/region_mean": "clip/any",
    "clip_ratio/low_min": "clip/low_min",
    "clip_ratio/high_max": "clip/high_max",
    "clip_ratio": "clip/tokens",
    "cispo_clip_ratio": "clip/high",
    "actor/pg_clipfrac": "clip/tokens",
    "actor/pg_clipfrac_lower": "clip/dual",
    "actor/ppo_kl": "kl_old",
    "kl": "kl",
    "entropy": "entropy",
    "policy_loss": "loss_before_entropy",
    "vespo/phi_seq_mean": "weight",
}
OTHER_METRICS = {  # names that mean something else in one place
    ("verl/cispo", "actor/pg_clipfrac"): ("outside/gain", "outside/loss"),
    ("verl/geo_mean", "actor/pg_clipfrac"): ("outside/gain",),
    ("verl/geo_mean", "actor/pg_clipfrac_lower"): ("outside/loss",),
    ("verl/kl_cov", "actor/ppo_kl"): ("log_ratio_abs",),
}


def metric(case, name, got):
    system_loss = "/".join(case["id"].split("/")[:2])
    ours = OTHER_METRICS.get((system_loss, name), (METRICS[name],))
    # A term that never clips has no such metric here; theirs is 0.
    return sum(got.get(key, 0.0) for key in ours)
