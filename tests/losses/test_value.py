"""The critic's loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.losses import statistics, value

MASK = jnp.array([[[True, True, True, False]]])
V = jnp.array([[[1.0, 1.0, 0.0, jnp.nan]]])
OLD = jnp.array([[[0.5, 1.0, 0.5, jnp.nan]]])
RETURNS = jnp.array([[[0.0, 3.0, 2.0, jnp.nan]]])


def loss(v, weight=1 / 3):
    return value.value_loss(v, OLD, RETURNS, MASK, clip=0.2, token_weight=weight)


def test_by_hand():
    # V clipped to 0.7, 1.0, 0.3; errors free 1, 4, 4 and held 0.49, 4, 2.89
    (total, measured), grad = jax.value_and_grad(loss, has_aux=True)(V)
    np.testing.assert_allclose(total, 0.5 * (1 + 4 + 4) / 3, 1e-6)
    np.testing.assert_allclose(grad[0, 0], [1 / 3, -2 / 3, -2 / 3, 0], 1e-6)
    values = statistics.values(measured)
    assert values["value/clipped"] == 0
    np.testing.assert_allclose(values["value/error"], 3, 1e-6)


def test_no_gradient_is_left_where_the_clipped_error_is_larger():
    # V at 2 is nearer to the return 3 than 1.2, where the clip holds it
    v = V.at[0, 0, 1].set(2.0)
    (total, measured), grad = jax.value_and_grad(loss, has_aux=True)(v)
    np.testing.assert_allclose(total, 0.5 * (1 + 1.8**2 + 4) / 3, 1e-6)
    assert grad[0, 0, 1] == 0
    np.testing.assert_allclose(
        statistics.values(measured)["value/clipped"], 1 / 3, 1e-6
    )


def test_parts_add_up():
    parts = [
        value.value_loss(
            *(x[:, :, i : i + 2] for x in (V, OLD, RETURNS, MASK)),
            clip=0.2,
            token_weight=1 / 3,
        )[0]
        for i in (0, 2)
    ]
    np.testing.assert_allclose(sum(parts), loss(V)[0], 1e-6)
