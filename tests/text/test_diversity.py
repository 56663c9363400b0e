"""Diversity of a group, by hand."""

import math

from grpo_jax.text import diversity


def test_distinct_completions():
    assert diversity.distinct([[1, 2], [1, 2], [2, 1], [3]]) == 3 / 4
    assert diversity.distinct(["ab", "ab"]) == 1 / 2


def test_distinct_ngrams_are_counted_over_the_group():
    # bigrams: 12 23 | 12 21 → {12, 23, 21} of 4
    assert diversity.distinct_ngrams([[1, 2, 3], [1, 2, 1]], 2) == 3 / 4
    assert math.isnan(diversity.distinct_ngrams([[1], [2]], 2))


def test_agreement_is_over_pairs_and_no_answer_agrees_with_nothing():
    # pairs: (5,5) (5,7) (5,7) → 1 of 3
    assert diversity.agreement(["5", "5", "7"]) == 1 / 3
    assert diversity.agreement([None, None]) == 0
    assert math.isnan(diversity.agreement(["5"]))


def test_a_group_is_looked_at_in_three_ways():
    texts = ["so 5", r"\boxed{5} is it", "7"]
    found = diversity.of_group([[1, 2, 3], [1, 2, 1], [1, 2, 1]], texts)
    assert found == (2 / 3, 3 / 6, 1 / 3) and len(found) == len(diversity.NAMES)
    assert all(map(math.isnan, diversity.of_group([], [])))
