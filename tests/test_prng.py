"""Draws and order are functions of the seed and of a place."""

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import prng

ROOT = prng.root(0)


def uniforms(questions, group_size, length, step=0, stream=prng.Stream.SAMPLE, seed=0):
    key = prng.step_key(prng.root(seed), stream, step)
    keys = prng.sample_keys(key, jnp.asarray(questions), group_size)
    return np.asarray(prng.token_uniforms(keys, length))


def test_a_row_draws_the_same_in_any_batch_group_and_length():
    whole = uniforms([3, 7, 9, 4], 8, 6)
    np.testing.assert_array_equal(uniforms([9], 8, 6), whole[2:3])
    np.testing.assert_array_equal(uniforms([4, 3], 2, 3), whole[[3, 0], :2, :3])


def test_everything_that_names_a_draw_changes_it():
    draw = uniforms([3], 2, 2)
    for other in (
        uniforms([4], 2, 2),
        uniforms([3], 2, 2, step=1),
        uniforms([3], 2, 2, stream=prng.Stream.SELECT),
        uniforms([3], 2, 2, seed=1),
    ):
        assert not np.any(draw == other)


def test_draws_of_samples_and_positions_differ_and_are_uniform():
    draws = uniforms(np.arange(50), 20, 20)
    assert len(np.unique(draws)) > 0.99 * draws.size  # 24 bits: a few may coincide
    counts, _ = np.histogram(draws, 10, (0, 1))
    # χ² with 9 degrees of freedom exceeds 40 once in 10^5; the seed is fixed.
    expected = draws.size / 10
    assert ((counts - expected) ** 2 / expected).sum() < 40


def test_step_and_stream_do_not_add_up_to_one_another():
    a = prng.step_key(ROOT, prng.Stream.SAMPLE, 0)
    b = prng.step_key(ROOT, prng.Stream.INIT, 1)
    assert not jnp.array_equal(jax.random.key_data(a), jax.random.key_data(b))
