"""Policy terms by hand: values and slopes."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import algorithm, config
from grpo_jax.losses import policy
from tests.losses.batches import row


def near(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, tolerance, tolerance)


def settings(**options):
    return config.Algorithm(**({"loss_mean": "per_token", "beta": 0.0} | options))


def one(ratio, advantage, logp=-2.0, **options):
    """(loss, slope by log π) of one token with that ratio to the old policy."""
    made = settings(**options)
    value, slope = row([logp], [logp - np.log(ratio)], advantage, settings=made)
    return value, slope[0]


def test_every_choice_has_a_function_and_every_function_a_choice():
    assert set(policy.SURROGATES) == set(get_args(algorithm.Surrogate))
    assert set(policy.LEVELS) == set(get_args(algorithm.ImportanceLevel))


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside: −ρA, and its slope by log π is the same
        (1.1, -2.0, 2.2, 2.2),
        (1.5, 2.0, -2.4, 0.0),  # too high already, A > 0: held at 1.2 A
        (1.5, -2.0, 3.0, 3.0),  # too high, A < 0: it must come down, not clipped
        (0.5, 2.0, -1.0, -1.0),  # too low, A > 0: it must come up, not clipped
        (0.5, -2.0, 1.6, 0.0),  # too low already, A < 0: held at 0.8 A
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_the_clip_holds_back_only_what_went_far_enough(ratio, advantage, value, slope):
    near(one(ratio, advantage), (value, slope))


def test_clip_higher_is_another_range_above():
    near(one(1.25, 1.0, clip_high=0.28), (-1.25, -1.25))
    near(one(1.25, 1.0, clip_high=0.2), (-1.2, 0.0))
    near(one(0.75, -1.0, clip_low=0.28, clip_high=0.2), (0.75, 0.75))


@pytest.mark.parametrize("bound", [{"ratio_max": 3.0}, {"dual_clip": 3.0}])
def test_delta_and_dual_clip_bound_a_negative_advantage_alike(bound):
    near(one(10.0, -4.0, **bound), (12.0, 0.0))
    near(one(2.0, -4.0, **bound), (8.0, 8.0))
    near(one(10.0, 4.0, **bound), (-4.8, 0.0))


def test_dual_clip_of_three_tokens():
    # A = 1, −1, −4 at ρ = 0.5, 1, 10: −0.5, 1, min(40, 12) → mean 12.5/3
    logp = np.array([-1.0, -1.0, -1.0])
    old = logp - np.log([0.5, 1.0, 10.0])
    value, _ = row(logp, old, [1, -1, -4], settings=settings(dual_clip=3.0))
    near(value, 4.1667, 1e-4)


def test_a_row_of_three_clipped_on_policy_and_by_sequence():
    logp, old, a = [-1.69315, -1.0, -0.59453], [-1.0] * 3, [1.0, -1.0, 2.0]
    # ρ = 0.5, 1, 1.5: −(0.5 − 1 + 2.4)/3
    near(row(logp, old, a, settings=settings())[0], -0.6333, 1e-4)
    near(row(logp, None, a, settings=settings())[0], -2 / 3)
    # GSPO: mean ℓ = −0.09589, s = 0.9086, −s·(2/3)
    gspo = settings(importance_level="sequence")
    near(row(logp, old, a, settings=gspo)[0], -0.6057, 1e-4)
    # weighted by e^(old − sampler): sampler −0.5, −1.5, −0.8
    weight = np.exp(np.array(old) - [-0.5, -1.5, -0.8])
    near(row(logp, old, a, settings=settings(), weight=weight)[0], -0.2065, 1e-3)
    capped = np.minimum(weight, 0.8)
    near(row(logp, old, a, settings=settings(), weight=capped)[0], -0.4744, 1e-3)


def test_the_worked_example_of_a_popular_guide():
    # Ratios e^0.2, e^0.1, e^0.1, e^0.2; the outer two are clipped to 1.2:
    # 0.6 (1.2 + 1.10517 + 1.10517 + 1.2)/4 = 0.69155. The guide rounds its ratios
    # first and prints 0.694.
    logp, old = [-2.1, -1.8, -0.5, -1.2], [-2.3, -1.9, -0.6, -1.4]
    value, _ = row(logp, old, 0.6, settings=settings())
    assert round(-value, 4) == 0.6916


def test_on_policy_the_ratio_is_one_and_the_gradient_is_reinforce():
    logp, a = [-1.0, -2.0, -0.3], [0.5, -1.0, 2.0]
    value, slope = row(logp, None, a, settings=settings())
    near(value, -0.5)
    near(slope, -np.array(a) / 3)
    reinforce = row(logp, None, a, settings=settings(surrogate="reinforce"))
    near(slope, reinforce[1])
    near(reinforce[0], -(0.5 * -1.0 + 2.0 + 2.0 * -0.3) / 3)


def test_cispo_stops_the_weight():
    near(one(1.0, 1.0, surrogate="cispo", weight_high=5.0), (2.0, -1.0))
    near(one(8.0, 1.0, surrogate="cispo", weight_high=5.0), (10.0, -5.0))
    near(one(8.0, -1.0, surrogate="cispo", weight_high=5.0), (-10.0, 5.0))
    near(one(0.1, 1.0, surrogate="cispo", weight_high=5.0), (0.2, -0.1))
    both = {"surrogate": "cispo", "weight_low": 0.8, "weight_high": 1.2}
    near(one(0.1, 1.0, **both), (1.6, -0.8))
    near(one(0.1, -1.0, **both), (-1.6, 0.8))


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_the_soft_gates_slope_on_policy_is_the_advantage_for_any_temperature(tau):
    gate = {"surrogate": "sapo", "gate_positive": tau, "gate_negative": tau}
    near(one(1.0, 1.5, **gate), (-3.0 / tau, -1.5))
    near(one(1.0, -1.5, **gate), (3.0 / tau, 1.5))


def test_the_soft_gate_takes_its_temperature_by_the_sign():
    gate = {"surrogate": "sapo", "gate_positive": 1.0, "gate_negative": 2.0}
    sigmoid = 1 / (1 + np.exp(-0.5))
    near(one(1.5, 1.0, **gate)[0], -4 * sigmoid)
    near(one(1.5, -1.0, **gate)[0], 2 / (1 + np.exp(-1.0)))


def test_vespo_weighs_the_row_by_a_gamma_density_without_gradient():
    # ρ of the row e^0.3; A ≥ 0: (k, λ) = (2, 3); A < 0: (3, 2)
    w = np.exp(0.3)
    phi = np.exp(3 + 2 * 0.3 - 3 * w), np.exp(2 + 3 * 0.3 - 2 * w)
    logp, old = np.array([-1.0, -2.0]), np.array([-1.2, -2.1])
    for a, weight in ((1.0, phi[0]), (0.0, phi[0]), (-1.0, phi[1])):
        value, slope = row(logp, old, a, settings=settings(surrogate="vespo"))
        near(value, weight * a * 1.5)
        near(slope, np.full(2, -weight * a / 2))


def test_vespo_holds_the_samplers_weight_itself():
    made = settings(surrogate="vespo")
    u = np.log(0.5) + np.log(1.5)
    phi = np.exp(3 + 2 * u - 3 * np.exp(u))
    value, _ = row([-1.0, -2.0], None, 1.0, settings=made, weight=[0.5, 1.5])
    near(value, phi * 1.5)
    by_row = settings(surrogate="vespo", correction=config.Correction(level="sequence"))
    u = np.log(0.5)  # one weight of the row, written on both tokens
    phi = np.exp(3 + 2 * u - 3 * np.exp(u))
    near(row([-1.0, -2.0], None, 1.0, settings=by_row, weight=[0.5, 0.5])[0], phi * 1.5)


def test_gmpo_clips_each_log_ratio_and_takes_the_geometric_mean():
    made = settings(
        surrogate="gmpo", clip_low=0.2, clip_high=0.4, loss_mean="per_sequence"
    )
    logp, old = [-1.0, -1.0, -1.0], [-1.5, -1.1, -0.5]  # ℓ = 0.5, 0.1, −0.5
    value, slope = row(logp, old, 2.0, settings=made)
    mean = np.exp((0.4 + 0.1 - 0.5) / 3)  # A > 0: clipped above only
    near(value, -2 * mean)
    near(slope, [0, -2 * mean / 3, -2 * mean / 3])
    value, slope = row(logp, old, -2.0, settings=made)
    mean = np.exp((0.5 + 0.1 - 0.2) / 3)  # A < 0: clipped below only
    near(value, 2 * mean)
    near(slope, [2 * mean / 3, 2 * mean / 3, 0])


def test_dppo_drops_tokens_whose_probability_moved_too_far():
    p, q = np.array([0.5, 0.5, 0.3]), np.array([0.3, 0.45, 0.5])
    ratio = p / q  # moves of 0.2, 0.05, −0.2
    made = settings(surrogate="dppo_tv", clip_low=0.1, clip_high=0.1, weight_high=1.05)
    weight = np.minimum(ratio, 1.05)
    for a, kept in ((1.0, [0, 1, 1]), (-1.0, [1, 1, 0]), (0.0, [1, 1, 0])):
        value, slope = row(np.log(p), np.log(q), a, settings=made)
        near(slope, -a * weight * kept / 3)
        near(value, (-a * weight * kept * np.log(p)).mean())


def test_dppo_by_kl_keeps_what_moves_towards_the_old_policy():
    p, q = np.array([0.5, 0.5, 0.3]), np.array([0.3, 0.49, 0.5])
    made = settings(surrogate="dppo_kl", clip_low=0.02, clip_high=0.02)
    kl = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    assert list(kl > 0.02) == [True, False, True]
    for a, kept in ((1.0, [0, 1, 1]), (-1.0, [1, 1, 0])):
        _, slope = row(np.log(p), np.log(q), a, settings=made)
        near(slope, -a * p / q * kept / 3)


def test_dro_pulls_by_the_squared_log_ratio():
    near(one(np.exp(0.5), 2.0, surrogate="dro", quadratic=0.4), (4.05, -2 + 0.4 * 0.5))


def test_kl_cov_pulls_selected_tokens_only():
    made = settings(surrogate="kl_cov", cov_coef=0.5)
    chosen = np.array([True, False])
    logp, old = [-1.0, -1.0], [-1.1, -1.1]
    value, slope = row(logp, old, 1.0, settings=made, is_selected=chosen)
    ratio = np.exp(0.1)
    near(value, -ratio + 0.5 * 0.1 / 2)
    near(slope, [(-ratio + 0.5) / 2, -ratio / 2])


def test_clip_cov_takes_selected_tokens_out():
    made = settings(surrogate="clip_cov")
    chosen = np.array([True, False])
    value, slope = row([-1.0, -1.0], None, 1.0, settings=made, is_selected=chosen)
    near(value, -0.5)
    near(slope, [0, -0.5])


def test_a_sequence_ratio_is_shared_and_its_token_form_is_not():
    logp, old, a = [-1.0, -1.0], [-1.1, -1.0], [1.0, 2.0]
    s = np.exp(0.05)
    made = settings(importance_level="sequence")
    value, slope = row(logp, old, a, settings=made)
    near(value, -1.5 * s)
    near(slope, [-1.5 * s / 2] * 2)  # both advantages reach both tokens
    made = settings(importance_level="sequence_token")
    value, slope = row(logp, old, a, settings=made)
    near(value, -1.5 * s)
    near(slope, [-s / 2, -s])  # each token its own


def test_sequence_and_sequence_token_agree_for_one_advantage():
    logp, old = [-1.0, -1.3, -0.2], [-1.1, -1.2, -0.25]
    levels = ("sequence", "sequence_token")
    slopes = [
        row(logp, old, 1.5, settings=settings(importance_level=level))[1]
        for level in levels
    ]
    near(slopes[0], slopes[1])


def test_the_ratio_may_be_taken_to_the_reference_as_some_guides_write_it():
    made = settings(ratio_to="reference")
    value, slope = row([-1.0], [-1.0], 1.0, settings=made, ref_logp=[-1.1])
    near((value, slope[0]), (-np.exp(0.1), -np.exp(0.1)))


def test_softmax_weighted_likelihood_with_clip_and_kl():
    # weights 0.7311, 0.2689 of rewards 1, 0 are advantages; clipping and KL are options
    weight = np.exp([1.0, 0.0]) / np.exp([1.0, 0.0]).sum()
    made = settings(surrogate="reinforce", beta=0.5)
    value, slope = row([-1.0, -2.0], None, weight, settings=made, ref_logp=[-1.2, -2.0])
    k3 = np.exp(-0.2) + 0.2 - 1
    near(value, (weight[0] + 2 * weight[1]) / 2 + 0.5 * k3 / 2)
    near(slope, [(-weight[0] + 0.5 * (1 - np.exp(-0.2))) / 2, -weight[1] / 2])
    clip = row([-1.0, -2.0], [-1.5, -2.0], weight, settings=settings())
    near(clip[0], -(1.2 * weight[0] + weight[1]) / 2)


def test_the_ratio_of_a_row_of_one_token_is_that_tokens():
    for options in (
        {"importance_level": "sequence"},
        {"surrogate": "gmpo", "loss_mean": "per_sequence"},
    ):
        near(one(1.1, 2.0, **options), (-2.2, -2.2))


def test_dppo_says_what_it_dropped_and_what_it_capped():
    made = settings(surrogate="dppo_tv", clip_low=0.1, clip_high=0.1, weight_high=1.2)
    p, q = jnp.array([0.5, 0.2, 0.28, 0.4]), jnp.array([0.3, 0.4, 0.2, 0.4])
    where = jnp.ones(4, bool)
    term = policy.dppo_tv(
        policy.Row(
            logp=jnp.log(p),
            old_logp=jnp.log(q),
            log_ratio=jnp.log(p / q),
            ratio=p / q,
            advantage=jnp.array([1.0, -1.0, 1.0, 1.0]),
            is_completion=where,
            log_weight=jnp.zeros(()),
            is_selected=~where,
        ),
        made,
    )
    # up by 0.2 and A > 0; down by 0.2 and A < 0; ratio 1.4 capped at 1.2; unmoved
    np.testing.assert_array_equal(term.outside, [True, True, False, False])
    np.testing.assert_array_equal(term.high, [True, False, False, False])
    np.testing.assert_array_equal(term.low, [False, True, False, False])
    np.testing.assert_array_equal(term.dual, [False, False, True, False])
    near(term.weight, [0, 0, 1.2, 1])
