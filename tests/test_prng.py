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


def test_an_epoch_is_a_permutation_that_no_library_version_may_change():
    np.testing.assert_array_equal(prng.order(0, 0, 8), [0, 2, 1, 5, 4, 3, 6, 7])
    assert not np.array_equal(prng.order(0, 1, 8), prng.order(0, 0, 8))
    assert not np.array_equal(prng.order(1, 0, 8), prng.order(0, 0, 8))
    assert sorted(prng.order(5, 3, 1000)) == list(range(1000))


def test_running_numbers_read_every_row_once_an_epoch_however_batched():
    whole = prng.dataset_rows(0, np.arange(21), 7)
    for epoch in range(3):
        assert sorted(whole[epoch * 7 : epoch * 7 + 7]) == list(range(7))
        np.testing.assert_array_equal(
            whole[epoch * 7 : epoch * 7 + 7], prng.order(0, epoch, 7)
        )
    across = prng.dataset_rows(0, np.array([13, 5, 14]), 7)
    np.testing.assert_array_equal(across, whole[[13, 5, 14]])
