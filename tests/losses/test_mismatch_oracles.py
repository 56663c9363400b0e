"""Sampler correction, rejection and mismatch metrics against verl."""

import numpy as np

from grpo_jax import config
from grpo_jax.losses import mismatch, statistics
from tests import oracle


def close(actual, expected, name):
    np.testing.assert_allclose(float(actual), expected, 1e-6, 1e-6, err_msg=name)


@oracle.cases("sampler_weight")
def test_weights(case, dtype, float64):
    options, x = case["options"], oracle.arrays(case, dtype)
    settings = config.Correction(
        level=options["level"].removesuffix("_sum"),
        mode=options["mode"],
        low=options["min"],
        high=options["max"],
        normalise=options["normalize_mean"],
    )
    weight, measured = mismatch.weights(
        settings, x["old_logp"], x["sampler_logp"], x["mask"]
    )
    # verl adds 1e-8 to the counts behind its mean weight.
    exact = dtype if not options["normalize_mean"] else "float32"
    oracle.assert_close(weight[0], case["expected"]["weight"], exact)
    got = statistics.values(measured)
    extreme = "weight" if options["level"] == "token" else "ratio"
    names = {
        "mean": "weight_mean",
        "std": "weight_std",
        "eff_sample_size": "weight_effective",
        "ratio_fraction_high": "above",
        "ratio_fraction_low": "below",
        "oob_ratio": "outside",
        "batch_norm_factor": "normaliser",
        "max": f"{extreme}_max",
        "min": f"{extreme}_min",
    }
    for name, expected in case["expected"]["metrics"].items():
        close(got[f"mismatch/{names[name]}"], expected, name)


@oracle.cases("rejection")
def test_rejection(case, dtype, float64):
    options, x = case["options"], oracle.arrays(case, dtype)
    low, high = options["min"], options["max"]
    if options["estimator"] == "k1":  # verl bounds the inverse ratio
        low, high = 1 / high, 1 / low
    settings = config.Rejection(
        statistic=options["statistic"],
        measure="ratio" if options["estimator"] == "k1" else options["estimator"],
        low=low,
        high=high,
    )
    keep = mismatch.accepted(settings, x["old_logp"], x["sampler_logp"], x["mask"])
    np.testing.assert_array_equal(keep[0], np.array(case["expected"]["keep"]) > 0)


@oracle.cases("mismatch_metrics")
def test_metrics(case, dtype, float64):
    x = oracle.arrays(case, dtype)
    measured = mismatch.disagreement(x["old_logp"], x["sampler_logp"], x["mask"])
    got = statistics.values(measured)
    got["mismatch/log_ppl_diff"] = (
        got["mismatch/log_perplexity_trainer"] - got["mismatch/log_perplexity_sampler"]
    )
    names = {
        "training_ppl": "perplexity_trainer",
        "training_log_ppl": "log_perplexity_trainer",
        "rollout_ppl": "perplexity_sampler",
        "rollout_log_ppl": "log_perplexity_sampler",
        "kl": "kl",
        "k3_kl": "k3",
        "log_ppl_diff": "log_ppl_diff",
        "log_ppl_abs_diff": "log_perplexity_gap",
        "log_ppl_diff_max": "log_perplexity_gap_max",
        "log_ppl_diff_min": "log_perplexity_gap_min",
        "ppl_ratio": "perplexity_ratio",
        "chi2_token": "chi2_token",
        "chi2_seq": "chi2_row",
    }
    for name, expected in case["expected"]["metrics"].items():
        close(got[f"mismatch/{names[name]}"], expected, name)
