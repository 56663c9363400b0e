"""Denominators: by hand, and the same under any split and any sharding."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import algorithm, config
from grpo_jax.losses import objective, reduce, statistics
from tests.losses import batches

REDUCTIONS = [
    pytest.param(name, empty, id=f"{name}-{empty}")
    for name in get_args(algorithm.LossMean)
    for empty in ("counted", "dropped")
    if empty == "counted" or name not in ("per_token", "per_rollout_token", "sum")
]
SPLITS = {  # along B, of 3 questions; along G, of 4 samples; by single rows
    "by question": [np.s_[0:1], np.s_[1:2], np.s_[2:3]],
    "two, ragged": [np.s_[0:1], np.s_[1:3]],
    "by two samples": [np.s_[:, 0:2], np.s_[:, 2:4]],
    "by samples, ragged": [np.s_[:, 0:3], np.s_[:, 3:4]],
    "twelve rows": [np.s_[b : b + 1, g : g + 1] for b in range(3) for g in range(4)],
}


def settings_for(name, empty="counted", **options):
    constant = 7 if name == "over_constant" else None
    return config.Algorithm(
        loss_mean=name,
        empty_rows=empty,
        loss_constant=constant,
        entropy_coef=0.1,
        **options,
    )


def cut(batch, where):
    """The part of a batch; numbers that belong to the whole stay."""
    return jax.tree.map(lambda x: x[where] if x.ndim > 1 else x, batch)


def test_every_choice_has_a_function_and_every_function_a_choice():
    assert set(reduce.REDUCTIONS) == set(get_args(algorithm.LossMean))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("name", "empty"), REDUCTIONS)
def test_parts_add_up_to_the_whole(name, empty, split, float64):
    settings = settings_for(name, empty)
    logp, entropy, batch = batches.make(settings)
    total, measured, grads = batches.loss(settings, logp, entropy, batch)
    value, gathered = 0.0, None
    slopes = [np.zeros_like(logp), np.zeros_like(entropy)]
    for where in SPLITS[split]:
        part, more, grad = batches.loss(
            settings, logp[where], entropy[where], cut(batch, where)
        )
        value += part
        gathered = more if gathered is None else statistics.merge(gathered, more)
        for slope, g in zip(slopes, grad, strict=True):
            slope[where] += g
    np.testing.assert_allclose(value, total, rtol=1e-12, atol=1e-12)
    for slope, g in zip(slopes, grads, strict=True):
        np.testing.assert_allclose(slope, g, rtol=1e-12, atol=1e-12)
    whole = statistics.values(measured)
    for key, number in statistics.values(gathered).items():
        np.testing.assert_allclose(number, whole[key], 1e-10, 1e-12, err_msg=key)


@pytest.mark.parametrize(("name", "empty"), REDUCTIONS)
def test_shards_give_the_same_loss_and_gradient(name, empty, float64):
    settings = settings_for(name, empty)
    logp, entropy, batch = batches.make(settings)
    total, _, grads = batches.loss(settings, logp, entropy, batch)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    by_sample = NamedSharding(mesh, P(None, "data"))
    everywhere = NamedSharding(mesh, P())

    def place(x):
        return jax.device_put(x, by_sample if x.ndim > 1 else everywhere)

    data = jax.tree.map(place, (logp, entropy, batch))
    value, _, slopes = jax.jit(lambda *x: batches.loss(settings, *x))(*data)
    np.testing.assert_allclose(value, total, rtol=1e-12, atol=1e-12)
    for slope, grad in zip(slopes, grads, strict=True):
        assert len(slope.sharding.device_set) == 4
        np.testing.assert_allclose(slope, grad, rtol=1e-12, atol=1e-12)


# Two questions of three samples with 2 4 0 | 1 1 4 tokens; the last row only fills up.
COUNTS = np.array([[2, 4, 0], [1, 1, 4]])
HAND = {  # (empty rows counted, dropped): 5 rows of which one is empty, 8 tokens
    "per_sequence": (
        [1 / 10, 1 / 20, 0, 1 / 5, 1 / 5],
        [1 / 8, 1 / 16, 0, 1 / 4, 1 / 4],
    ),
    "per_token": ([1 / 8, 1 / 8, 0, 1 / 8, 1 / 8],) * 2,
    "per_rollout_token": ([2 / 20, 2 / 20, 0, 2 / 20, 2 / 20],) * 2,
    "per_question": ([1 / 12, 1 / 12, 0, 1 / 4, 1 / 4],) * 2,
    "per_sequence_sum": (
        [1 / 5, 1 / 5, 0, 1 / 5, 1 / 5],
        [1 / 4, 1 / 4, 0, 1 / 4, 1 / 4],
    ),
    "over_constant": (
        [1 / 35, 1 / 35, 0, 1 / 35, 1 / 35],
        [1 / 28, 1 / 28, 0, 1 / 28, 1 / 28],
    ),
    "sum": ([1, 1, 0, 1, 1],) * 2,
}


@pytest.mark.parametrize(("name", "empty"), REDUCTIONS)
def test_weights_by_hand(name, empty):
    settings = settings_for(name, empty)
    mask = jnp.asarray(np.arange(4) < COUNTS[:, :, None])
    is_row = jnp.asarray([[True] * 3, [True, True, False]])
    weight = reduce.row_weights(settings, mask, is_row, rollout_tokens=20, parts=2)
    expected = [*HAND[name][empty == "dropped"], 0]
    np.testing.assert_allclose(np.ravel(weight), expected, 1e-6)


def test_a_question_without_tokens_is_counted_or_dropped():
    mask = jnp.asarray(np.arange(4) < np.array([[0, 0], [1, 3]])[:, :, None])
    for empty, share in (("counted", 1 / 8), ("dropped", 1 / 4)):
        weight = reduce.row_weights(
            settings_for("per_question", empty),
            mask,
            jnp.ones((2, 2), bool),
            rollout_tokens=4,
            parts=1,
        )
        np.testing.assert_allclose(weight, [[0, 0], [share, share]])


def test_one_question_of_one_token_has_weight_one():
    one = jnp.ones((1, 1, 1), bool)
    for name in ("per_question", "per_sequence", "per_token", "per_sequence_sum"):
        weight = reduce.row_weights(
            settings_for(name), one, one[:, :, 0], rollout_tokens=1, parts=1
        )
        assert weight == 1


def test_minibatches_of_unequal_length_average_to_the_rollouts_token_mean(float64):
    settings = settings_for("per_rollout_token")
    logp, _entropy, whole = batches.make(settings)
    total = (reduce.weighted_sum(logp, whole.is_completion, whole.row_weight)).sum()
    parts = []
    for where in (np.s_[0:1], np.s_[1:3]):
        mask, rows = whole.is_completion[where], whole.is_row[where]
        weight = reduce.row_weights(
            settings, mask, rows, rollout_tokens=int(batches.MASK.sum()), parts=2
        )
        parts.append(reduce.weighted_sum(logp[where], mask, weight))
    np.testing.assert_allclose(np.mean(parts), total, 1e-12)


@pytest.mark.parametrize(("name", "empty"), REDUCTIONS)
def test_padding_columns_and_filling_rows_change_nothing(name, empty, float64):
    settings = settings_for(name, empty)
    logp, entropy, batch = batches.make(settings)
    total, _, grads = batches.loss(settings, logp, entropy, batch)

    def pad(x, value):
        width = ((0, 0), (0, 2), (0, 3))[: x.ndim]
        return jnp.pad(x, width, constant_values=value) if x.ndim > 1 else x

    wide = jax.tree.map(lambda x: pad(x, x.dtype != bool), batch)
    weight = reduce.row_weights(
        settings,
        wide.is_completion,
        wide.is_row,
        rollout_tokens=int(batches.MASK.sum()),
        parts=1,
    )
    wide = wide._replace(row_weight=weight)
    data = pad(logp, 1.0), pad(entropy, 1.0), wide
    value, _, slopes = batches.loss(settings, *data)
    np.testing.assert_allclose(value, total, rtol=1e-12)
    for slope, grad in zip(slopes, grads, strict=True):
        np.testing.assert_allclose(slope[:, :4, :5], grad, rtol=1e-12, atol=1e-15)
        assert not np.any(slope.at[:, :4, :5].set(0))


def test_objective_is_the_paper_s_mean_of_means(float64):
    # 1/G Σ 1/|o_i| Σ_t over two questions: −ρA of ones is −A
    settings = config.Algorithm()
    logp, _entropy, batch = batches.make(settings)
    batch = batch._replace(old_logp=None, ref_logp=None, weight=None)
    value, _ = objective.policy_loss(settings, logp, batch, beta=0.0)
    a, mask = np.asarray(batch.advantage), batches.MASK
    means = np.where(mask, a, 0).sum(-1) / np.maximum(mask.sum(-1), 1)
    np.testing.assert_allclose(value, -means.mean(), 1e-12)
