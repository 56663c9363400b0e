"""Metrics add up over parts, and say nothing where nothing was counted."""

import jax.numpy as jnp
import numpy as np

from grpo_jax.losses import statistics

X = np.array([3.0, -1.0, 4.0, 1.0, 5.0, 9.0])
WHERE = np.array([True, True, False, True, True, False])


def measure(part):
    x, where = jnp.asarray(X[part]), jnp.asarray(WHERE[part])
    return {
        "sum": statistics.Sum(jnp.where(where, x, 0).sum()),
        "mean": statistics.mean(x, where),
        "weighted": statistics.weighted_mean(jnp.where(where, x, 0), x**2 * where),
        "moments": statistics.moments(x, where),
        "low": statistics.lowest(x, where),
        "high": statistics.highest(x, where),
    }


EXPECTED = {
    "sum": 8.0,
    "mean": 2.0,
    "weighted": (27 - 1 + 1 + 125) / (9 + 1 + 1 + 25),
    "moments_mean": 2.0,
    "moments_std": np.sqrt((1 + 9 + 1 + 9) / 4),
    "moments_effective": 4 / 9,  # mean² over mean of squares: 36/4
    "low": -1.0,
    "high": 5.0,
}


def test_by_hand_and_for_any_split():
    for cuts in ([], [3], [2, 3], [1, 2, 3, 4, 5]):
        parts = [measure(p) for p in np.split(np.arange(6), cuts)]
        whole = parts[0]
        for part in parts[1:]:
            whole = statistics.merge(whole, part)
        values = statistics.values(whole)
        assert set(values) == set(EXPECTED)
        for name, expected in EXPECTED.items():
            np.testing.assert_allclose(values[name], expected, 1e-6, err_msg=name)


def test_nothing_counted_is_nan_and_adds_nothing():
    nothing = measure(np.array([2, 5]))
    values = statistics.values(nothing)
    assert all(np.isnan(v) for name, v in values.items() if name not in ("sum",))
    both = statistics.values(statistics.merge(nothing, measure(np.arange(6))))
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(both[name], expected, 1e-6)


def test_a_std_of_large_equal_numbers_does_not_cancel():
    x = jnp.full(64, 1e4 + 0.7)
    values = statistics.values({"x": statistics.moments(x, jnp.ones(64, bool))})
    assert values["x_std"] < 0.01


def test_one_small_number_is_its_own_mean_merged_with_nothing():
    one, none = jnp.array([0.5, 9.0]), jnp.array([False, False])
    first = jnp.array([True, False])

    def measured(where):
        return {
            "mean": statistics.mean(one, where),
            "of": statistics.moments(one, where),
        }

    for pair in ((first, none), (none, first)):
        merged = statistics.merge(*map(measured, pair))
        got = statistics.values(merged)
        assert got["mean"] == got["of_mean"] == 0.5
        assert got["of_std"] == 0 and got["of_effective"] == 1
