"""One token: by hand, against sorting in numpy, and counted a million times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import prng, selftest
from grpo_jax.sampling import draw
from grpo_jax.sampling.settings import Sampling

SHARES = jnp.array([0.1, 0.4, 0.2, 0.3])
LOGITS = jnp.log(SHARES)
DRAW = jax.jit(draw.draw)
RULES = {
    **selftest.RULES,
    "top-k 1": draw.Rule(1.3, top_k=1),
    "top-p tiny": draw.Rule(1.0, top_p=1e-6),
    "min-p 1": draw.Rule(1.0, min_p=1.0),
    "hot": draw.Rule(5.0),
}


def one(logits, uniform, rule=RULES["softmax"], allowed=None):
    allowed = jnp.ones(logits.shape, bool) if allowed is None else allowed
    return DRAW(logits, jnp.asarray(uniform, jnp.float32), rule, allowed)


@pytest.mark.parametrize(
    ("uniform", "token"),
    # blocks of two tokens: [0.1, 0.4] has half of all, 0.1 a fifth of it
    [
        ((0.0, 0.0), 0),
        ((0.3, 0.19), 0),
        ((0.49, 0.21), 1),
        ((0.51, 0.39), 2),
        ((0.51, 0.41), 3),
        ((1 - 2**-23, 1 - 2**-23), 3),
    ],
)
def test_a_draw_by_hand(uniform, token):
    drawn = one(LOGITS, uniform)
    assert drawn.token == token
    np.testing.assert_allclose(drawn.logp, np.log(SHARES[token]), 1e-6)
    np.testing.assert_allclose(drawn.plain, np.log(SHARES[token]), 1e-6)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (draw.Rule(1.0, top_k=2), [1, 3]),
        (draw.Rule(1.0, top_k=9), [0, 1, 2, 3]),
        (draw.Rule(1.0, top_p=0.3), [1]),
        (draw.Rule(1.0, top_p=0.6), [1, 3]),
        (draw.Rule(1.0, top_p=0.71), [1, 2, 3]),
        (draw.Rule(1.0, min_p=0.49), [1, 2, 3]),
        (draw.Rule(1.0, min_p=0.51), [1, 3]),
        # after top-k 2: 4/7 and 3/7, so top-p 0.5 is the first alone
        (draw.Rule(1.0, top_k=2, top_p=0.5), [1]),
    ],
)
def test_what_is_kept_by_hand(rule, kept):
    weight = draw.weights(LOGITS, LOGITS.max(keepdims=True), rule, jnp.ones(4, bool))
    assert np.flatnonzero(weight).tolist() == kept
    expected = np.where(np.isin(np.arange(4), kept), SHARES / 0.4, 0)
    np.testing.assert_allclose(weight, expected, 1e-6)


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("size", [3, 257, 5000])
def test_weights_are_those_that_sorting_gives(name, size):
    logits = np.random.default_rng(size).normal(0, 3, size).astype(np.float32)
    x = jnp.asarray(logits)
    weight = draw.weights(x, x.max(keepdims=True), RULES[name], jnp.ones(size, bool))
    expected = selftest.probabilities(logits, RULES[name])
    np.testing.assert_allclose(weight / weight.sum(), expected, 1e-4, 1e-9)


def test_equal_tokens_stay_together():
    logits = jnp.log(jnp.array([0.3, 0.3, 0.3, 0.1]))
    for rule in (draw.Rule(1.0, top_k=2), draw.Rule(1.0, top_p=0.5)):
        weight = draw.weights(
            logits, logits.max(keepdims=True), rule, jnp.ones(4, bool)
        )
        assert np.flatnonzero(weight).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_recorded_probability_is_that_of_the_draw(name):
    """Over all draws of a row: what was recorded of a token is its true chance."""
    logits = jax.random.normal(jax.random.key(1), (40,)) * 2
    uniform = jax.random.uniform(jax.random.key(2), (500, 2))
    everything = jnp.ones(40, bool)
    drawn = jax.vmap(lambda u: draw.draw(logits, u, RULES[name], everything))(uniform)
    p = selftest.probabilities(np.asarray(logits), RULES[name])
    np.testing.assert_allclose(np.exp(drawn.logp), p[drawn.token], 1e-5)
    plain = jax.nn.log_softmax(logits)[drawn.token]
    np.testing.assert_allclose(drawn.plain, plain, 1e-5, 1e-6)


def test_without_a_temperature_the_likeliest_is_certain():
    drawn = one(LOGITS, (0.9, 0.9), draw.Rule(None))
    assert drawn.token == 1 and drawn.logp == 0
    np.testing.assert_allclose(drawn.plain, np.log(0.4), 1e-6)
    allowed = jnp.array([True, False, True, True])
    assert one(LOGITS, (0.9, 0.9), draw.Rule(None), allowed).token == 3


@pytest.mark.parametrize("rule", [draw.Rule(1.0), draw.Rule(0.5, 2, 0.9, 0.01)])
def test_what_is_not_allowed_is_never_drawn(rule):
    allowed = jnp.array([True, False, True, False])
    grid = np.linspace(0, 1 - 2**-23, 33)
    for uniform in [(a, b) for a in grid for b in grid]:
        drawn = one(LOGITS, uniform, rule, allowed)
        assert drawn.token in (0, 2)
    expected = {0: 1 / 3, 2: 2 / 3}[int(drawn.token)]
    if rule.top_k is None:
        np.testing.assert_allclose(np.exp(drawn.logp), expected, 1e-6)


def test_extremes_stay_numbers_and_damage_is_recorded():
    steep = jnp.array([0.0, 1e30, -1e30, -jnp.inf])
    drawn = one(steep, (0.7, 0.7), draw.Rule(1e-3))
    assert drawn.token == 1 and drawn.logp == 0 and drawn.plain == 0
    for bad in (jnp.nan, jnp.inf):
        assert not np.isfinite(one(LOGITS.at[2].set(bad), (0.5, 0.5)).plain)


def test_no_cut_token_of_a_large_vocabulary_is_drawn():
    """Sums computed in parallel are not monotone: half the tokens have weight 0."""
    size, width = 151_936, 512
    allowed = jnp.asarray(np.random.default_rng(0).random(size) < 0.5)
    logits = jax.random.normal(jax.random.key(0), (size,))
    weight = draw.weights(logits, logits.max(keepdims=True), RULES["softmax"], allowed)
    block = np.asarray(weight[: size // width * width]).reshape(-1, width)[1]
    sums = np.asarray(jnp.cumsum(jnp.asarray(block)))
    # aim at the edges of every token in one block
    inside = np.concatenate([sums / sums[-1] + d for d in (-6e-8, 0.0, 6e-8)])
    inside = np.clip(inside, 0, 1 - 2**-23).astype(np.float32)
    total = np.asarray(weight, np.float64)
    before = total[:width].sum() + total[width : 2 * width].sum() / 2
    first = np.full(len(inside), before / total.sum(), np.float32)
    uniform = jnp.stack([jnp.asarray(first), jnp.asarray(inside)], -1)
    drawn = jax.vmap(lambda u: draw.draw(logits, u, RULES["softmax"], allowed))(uniform)
    assert np.all(np.asarray(drawn.token) // width == 1)
    assert np.all(np.asarray(allowed)[drawn.token])


def test_the_first_and_the_last_token_of_a_large_vocabulary_are_within_reach():
    size = 260_000
    last = one(jnp.zeros(size), (1 - 2**-23, 1 - 2**-23))
    assert last.token == size - 1 and one(jnp.zeros(size), (0.0, 0.0)).token == 0


def test_where_rounding_leaves_nothing_above_the_last_weight_is_drawn():
    weight = jnp.array([0.5, 0.5, 0.0])
    flat = jnp.array([0.5, 1.0, 1.0])
    assert draw._first_above(flat, jnp.asarray(1.0), weight) == 1
    falling = jnp.array([0.5, 0.4, 1.0])  # adding 0 took something away
    holed = jnp.array([0.5, 0.0, 0.5])
    assert draw._first_above(falling, jnp.asarray(0.45), holed) == 0
    assert draw._first_above(falling, jnp.asarray(0.5), holed) == 2


def test_a_setting_of_one_is_no_cut():
    assert draw.rule(Sampling(top_p=1.0)) == draw.Rule(0.7)
    assert draw.rule(Sampling(temperature=0.0)) == draw.Rule(None)
    every = draw.rule(Sampling(temperature=0.5, top_k=3, top_p=0.9, min_p=0.1))
    assert every == draw.Rule(0.5, 3, 0.9, 0.1)


# Counted --------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(selftest.RULES))
def test_draws_are_distributed_as_the_rule_says(name):
    logits = np.random.default_rng(3).normal(0, 2, 400).astype(np.float32)
    rule = selftest.RULES[name]
    tokens = selftest.many(logits, rule, selftest.DRAWS, seed=5)
    p = selftest.probabilities(logits, rule)
    assert selftest.verdict(name, tokens, p).is_right


def test_uniforms_of_a_row_are_its_own():
    key = prng.step_key(prng.root(0), prng.Stream.SAMPLE, 0)
    keys = prng.sample_keys(key, jnp.arange(2), 3)
    assert len({tuple(np.ravel(jax.random.key_data(k))) for k in keys.ravel()}) == 6
