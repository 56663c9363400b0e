"""Bandits: what is enumerated, and what the package's own steps come to."""

import dataclasses
import json

import numpy as np
import pytest

from grpo_jax import allocation, config, experiment

bandits = experiment.load("experiments/deepseekmath/bandits.py")
optimum = bandits.optimum
P = np.array([0.02, 0.1, 0.5, 0.7])
SCALED = config.Algorithm(advantage=config.Advantage(eps=0.0))


def slope(chosen, size, p=P):
    return bandits.slope(dataclasses.replace(chosen, group_size=size), p)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_leave_one_out_has_no_bias_and_the_mean_a_smaller_step(size):
    np.testing.assert_allclose(slope(bandits.UNBIASED, size), 1, rtol=1e-5)
    np.testing.assert_allclose(slope(bandits.UNSCALED, size), 1 - 1 / size, rtol=1e-5)


def test_the_slope_of_z_scores_is_as_by_hand():
    """1 at G = 2. At G = 3, k of 3 right, √(q(1 − q)) is √2/3 for k = 1 and 2, which
    come with chance 3p(1 − p): √2. Where p → 0: √(G − 1). Of large groups
    1/√(p(1 − p))."""
    np.testing.assert_allclose(slope(SCALED, 2), 1, rtol=1e-5)
    np.testing.assert_allclose(slope(SCALED, 3), 2**0.5, rtol=1e-5)
    found = slope(SCALED, 8, np.array([1e-7, 1 - 1e-7]))
    np.testing.assert_allclose(found, 7**0.5, rtol=1e-4)
    p = P[1:]
    np.testing.assert_allclose(slope(SCALED, 800, p), (p * (1 - p)) ** -0.5, rtol=0.02)


@pytest.mark.parametrize("size", [2, 16])
def test_the_slope_is_that_of_the_objective_whose_optimum_is_known(size):
    """There c ∇p = β ∇ KL(π_ref ‖ π), whose slope by p is −1/V/p + (1 − 1/V)/(1 − p);
    see the closed form in test_optimum."""
    chosen = dataclasses.replace(SCALED, group_size=size, beta=0.4)
    best, share = optimum.optimum(chosen), 1 / optimum.VOCABULARY
    pull = 0.4 * ((1 - share) / (1 - best) - share / best)
    np.testing.assert_allclose(slope(chosen, size, np.array([best])), pull, rtol=1e-3)


def test_a_table_is_right_as_often_as_it_was_told():
    right = np.linspace(0.05, 0.95, 11)
    logits = bandits.table(right)
    np.testing.assert_allclose(bandits.chances(logits), right, rtol=1e-5)
    np.testing.assert_allclose(np.exp(logits).sum(1), 1, rtol=1e-5)


def settings(steps):
    chosen = bandits.get_config()
    return dataclasses.replace(chosen, training=config.Training(steps=steps))


def test_what_a_table_gains_is_the_enumerated_slope():
    """Of 400 groups at each of 20 places: within four standard errors on average."""
    found, expected = bandits.gained(settings(400), 8), slope(SCALED, 8, bandits.PLACES)
    assert abs(found / expected - 1).max() < 0.5
    assert abs((found / expected).mean() - 1) < 0.05


def test_all_arms_spend_alike_and_rules_spend_where_it_says_most():
    right = np.array([0.01, 0.5, 0.99, 0.3] * 4)
    logits, rows = bandits.table(right), list(range(16))
    seen = dict.fromkeys(rows)
    for m in rows[:8]:
        reward = (np.arange(8) < round(8 * right[m])) * 1.0
        seen[m] = allocation.after(None, reward)
    for arm in bandits.ALLOTTED:
        count = bandits.allotted(arm, rows, seen, logits)
        assert count.sum() == 16 * bandits.MEAN
        if arm != "8 each":
            assert count.min() >= bandits.LEAST and count.max() <= bandits.MOST
            assert count[1] > count[0] and count[1] > count[2]


def test_samples_that_are_not_allotted_are_not_learned_from():
    """Of a question with two samples the others may be what they are."""
    bandit, logits = bandits.Bandit(0), bandits.table(np.full(8, 0.5))
    chosen = dataclasses.replace(
        bandits.UNBIASED, group_size=4, loss_mean="per_question", loss_constant=None
    )
    rows, count = np.arange(8), np.array([2, 4] * 4)
    given = logits, chosen, 0, rows, rows, count
    (token, batch, *_), reward = bandit.rollout(*given)
    assert np.isnan(reward).sum() == 8
    advantage = np.asarray(batch.advantage)[:, :, 0]
    assert not advantage[::2, 2:].any()
    right = np.asarray(token)[:, :2, 0] == optimum.ANSWERS[:, None]
    expected = right * 1.0 - right[:, ::-1]
    np.testing.assert_allclose(advantage[::2, :2], expected[::2])


def test_a_run_leaves_all_that_the_figure_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(bandits, "RATES", (1.0,))
    monkeypatch.setattr(bandits, "BETAS", (0.4,))
    monkeypatch.setattr(bandits, "CLIMBED", (2,))
    one = {"z-score, G = 2": bandits.OPTIMA["z-score, G = 2"]}
    monkeypatch.setattr(bandits, "OPTIMA", one)
    bandits.run(settings(4), tmp_path)
    found = json.loads((tmp_path / bandits.FOUND).read_text())
    assert len(found["gained"]["2"]) == 20
    ends = found["optima"]["z-score, G = 2"]["0.4"]
    assert 0.05 < ends["right"] < 0.3 and 0.5 < ends["best"] < 0.9
    assert set(found["taught"]) == set(bandits.ALLOTTED)
    assert all(0.45 < of["1.0"] < 0.6 for of in found["taught"].values())
