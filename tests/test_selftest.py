"""The test of the sampler: it finds a wrong one, and leaves a right one alone."""

import numpy as np
import pytest

from grpo_jax import selftest
from grpo_jax.sampling import draw

LOGITS = np.random.default_rng(0).normal(0, 1, 300).astype(np.float32)
P = selftest.probabilities(LOGITS, draw.Rule(1.0))


def drawn_from(p, seed=0, draws=selftest.DRAWS):
    return np.random.default_rng(seed).choice(len(p), draws, p=p)


def test_a_right_sampler_passes_and_its_p_is_uniform():
    chances = [
        selftest.verdict("right", drawn_from(P, seed, 50_000), P).p
        for seed in range(200)
    ]
    assert min(chances) > 1e-4
    counts = np.histogram(chances, 4, (0, 1))[0]
    assert np.all(counts > 25)  # 50 expected in each quarter


@pytest.mark.parametrize("seed", range(10))
def test_two_percent_off_is_found(seed):
    """Each probability 2% too high or too low, in turn: by bins, the hardest case."""
    order = np.argsort(-P)
    bins = np.minimum((np.cumsum(P[order]) - P[order]) * 16, 15).astype(int)
    off = np.empty_like(P)
    off[order] = P[order] * np.where(bins % 2 == 0, 1.02, 0.98)
    found = selftest.verdict("off", drawn_from(off / off.sum(), seed), P)
    assert not found.is_right and found.bins == 16


def test_a_greedy_sampler_is_found_with_few_draws():
    greedy = np.full(10_000, P.argmax())
    assert not selftest.verdict("greedy", greedy, P).is_right


def test_a_token_without_a_chance_is_found_at_once():
    cut = selftest.probabilities(LOGITS, draw.Rule(1.0, top_k=20))
    tokens = drawn_from(cut, draws=10_000)
    assert selftest.verdict("cut", tokens, cut).is_right
    tokens[17] = np.flatnonzero(cut == 0)[0]
    assert selftest.verdict("cut", tokens, cut).p == 0


def test_expected_counts_are_large_enough_however_steep():
    steep = selftest.probabilities(LOGITS * 8, draw.Rule(1.0))
    verdict = selftest.verdict("steep", drawn_from(steep, draws=2_000), steep)
    assert verdict.is_right and 1 <= verdict.bins < 16


def test_where_one_token_is_certain_it_makes_the_logits_flatter():
    """A greedy sampler would look right there; one bin is not taken for an answer."""
    certain = np.eye(5)[2]
    assert not selftest.verdict("certain", np.full(100, 2), certain).is_right
    peaked = LOGITS.copy()
    peaked[7] = 60.0
    heat = selftest.heat_of(peaked)
    p = selftest.probabilities(peaked, draw.Rule(heat))
    assert heat > 4 and selftest.verdict("flat", drawn_from(p), p).bins >= 8
    assert not selftest.verdict("greedy", np.full(5120, 7), p).is_right
    assert selftest.heat_of(LOGITS) == 1.0


def test_probabilities_by_hand():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    rule = draw.Rule(1.0, top_k=3, top_p=0.7, min_p=0.1)
    np.testing.assert_allclose(
        selftest.probabilities(logits, rule), [0, 4 / 7, 0, 3 / 7], 1e-12
    )
    halved = selftest.probabilities(logits, draw.Rule(0.5))
    np.testing.assert_allclose(halved, np.array([1, 16, 4, 9]) / 30, 1e-12)
