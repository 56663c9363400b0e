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


def test_means_leave_out_groups_that_cannot_say():
    measured = diversity.of_groups([[[1], [1]], [[2]]], [["1", "1"], ["2"]], n=1)
    assert measured["diversity/agreement"] == 1
    assert measured["diversity/distinct"] == 3 / 4
    assert measured["diversity/ngrams"] == 3 / 4
    assert math.isnan(diversity.of_groups([[[]]], [["1"]], n=1)["diversity/agreement"])
