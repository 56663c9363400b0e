"""Optimizers by hand, schedules at their corners, and gradients that are no numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo_jax import optimizers
from grpo_jax.config import Optimizer
from grpo_jax.section import Refused

PARAMS = {"w": jnp.array([[1.0, -2.0]]), "attn_norm": jnp.array([4.0])}
GRADS = {"w": jnp.array([[0.3, -0.4]]), "attn_norm": jnp.array([0.0])}


def rates(updates=6, **settings):
    chosen = Optimizer(learning_rate=1.0, **settings)
    return [float(optimizers.schedule(chosen, updates)(n)) for n in range(updates)]


def after(grads, updates=10, **settings):
    """Parameters after one update for each of the gradients, and the state."""
    optimizer = optimizers.make(Optimizer(learning_rate=0.1, **settings), updates)
    params, state = PARAMS, optimizer.init(PARAMS)
    for grad in grads:
        step, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, step)
    return params, state


def test_schedules_by_hand():
    assert rates() == [1.0] * 6
    np.testing.assert_allclose(rates(warmup=4), [0.25, 0.5, 0.75, 1, 1, 1])
    linear = rates(schedule="linear", final_rate=0.5)
    np.testing.assert_allclose(linear, [1, 0.9, 0.8, 0.7, 0.6, 0.5], rtol=1e-6)
    both = rates(schedule="linear", warmup=2)
    np.testing.assert_allclose(both, [0.5, 1, 1, 2 / 3, 1 / 3, 0], atol=1e-6)
    cosine = rates(5, schedule="cosine")
    expected = [(1 + np.cos(np.pi * n / 4)) / 2 for n in range(5)]
    np.testing.assert_allclose(cosine, expected, atol=1e-6)
    assert rates(2, warmup=1) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Adam's first step is the sign of the gradient, whatever its length.
        ({}, [0.9, -1.9]),
        ({"name": "lion"}, [0.9, -1.9]),
        # The gradient is 0.5 long.
        ({"name": "sgd"}, [0.97, -1.96]),
        ({"name": "sgd", "clip_norm": 0.1}, [0.994, -1.992]),
        ({"name": "sgd", "clip_norm": None, "weight_decay": 0.5}, [0.92, -1.86]),
    ],
)
def test_one_update_by_hand(settings, expected):
    params, _ = after([GRADS], **settings)
    np.testing.assert_allclose(params["w"][0], expected, rtol=1e-6)
    assert params["attn_norm"] == 4.0  # no gradient, and norms do not decay


def test_momentum_by_hand():
    params, _ = after([GRADS, GRADS], name="sgd", momentum=0.5)
    np.testing.assert_allclose(params["w"][0, 0], 1 - 0.1 * (0.3 + 0.45), rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "sgd"])
def test_each_finds_the_bottom_of_a_bowl(name):
    optimizer = optimizers.make(
        Optimizer(name=name, learning_rate=0.1, schedule="linear", clip_norm=None), 300
    )
    params = {"w": jnp.full((3, 3), 2.0)}
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for _ in range(300):
        updates, state = step(params, state, params)  # of x²/2
        params = optax.apply_updates(params, updates)
    assert float(jnp.abs(params["w"]).max()) < 0.05


def test_the_decaying_parameters_are_the_matrices():
    names = ["layers/wq", "layers/wq_a", "embed", "layers/attn_norm", "norm"]
    names += ["layers/bq", "layers/q_norm"]
    tree = {"layers": {n[7:]: 0 for n in names if "/" in n}, "embed": 0, "norm": 0}
    found = optimizers.decays(tree)
    decaying = {k for k, yes in found["layers"].items() if yes}
    assert decaying == {"wq", "wq_a"} and found["embed"] and not found["norm"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_changes_nothing_and_is_counted(value):
    bad = GRADS | {"w": GRADS["w"].at[0, 1].set(value)}
    clean, _ = after([GRADS, GRADS])
    params, state = after([GRADS, bad, GRADS])
    np.testing.assert_array_equal(params["w"], clean["w"])
    assert (state.notfinite_count, state.total_notfinite) == (0, 1)


def test_too_many_of_them_in_a_row_stop_the_run():
    bad = jax.tree.map(lambda x: x * np.nan, GRADS)
    chosen = Optimizer(most_skips=2)
    optimizers.check(chosen, after([bad, GRADS, bad])[1])
    with pytest.raises(
        Refused, match="last 2 updates had no finite gradient, 3 in all"
    ):
        optimizers.check(chosen, after([bad, GRADS, bad, bad])[1])
