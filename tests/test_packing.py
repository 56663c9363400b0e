"""Every token has one place, and few places are for padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax import packing
from grpo_jax.packing import NOWHERE

# questions of a minibatch, G, lanes, M, parts, longest, lanes of other processes
sizes = st.tuples(*[st.integers(1, n) for n in (5, 6, 3, 3, 3, 40)], st.integers(0, 2))
widths = st.one_of(st.just(0), st.integers(1, 90))


@given(sizes, widths, st.integers(0, 2**32 - 1))
def test_every_token_has_one_place(size, width, seed):
    """Tokens are numbered; what is laid out and read back at their places is all."""
    questions, G, lanes, M, parts, most, before = size
    B = questions * M
    length = np.random.default_rng(seed).integers(0, most + 1, (B, G))
    known = packing.Lanes(before, lanes), M, parts, most, 8, width
    layout = packing.lay(length, *known)
    C = layout.columns
    assert length.max() <= C <= most
    number = np.arange(B * G * C).reshape(B, G, C) + 1
    tokens = np.where(np.arange(C) < length[:, :, None], number, 0)
    laid = packing.laid(tokens, layout, of_samples=True)
    asked = packing.laid(np.arange(B) + 1, layout)
    for m in range(M):
        there = layout.order[m] < NOWHERE
        assert set(asked[m][there] - 1) == set(range(m, B, M))
        rows = laid[m].reshape(lanes, -1, parts, laid.shape[2] * C)
        found = [rows[lane, :, p].reshape(-1) for p, lane in np.ndindex(parts, lanes)]
        if layout.place is not None:
            places = layout.place[m].reshape(parts * lanes, -1)
            places = [x[x < NOWHERE] for x in places]
            assert all(len(set(x)) == len(x) for x in places)
            found = [x[i] for x, i in zip(found, places, strict=True)]
        found = np.concatenate(found)
        assert sorted(found[found > 0]) == sorted(tokens[m::M][tokens[m::M] > 0])


@given(sizes, st.integers(0, 2**32 - 1))
def test_blocks_are_found_where_they_stand(size, seed):
    questions, G, lanes, M, parts, most, before = size
    length = np.random.default_rng(seed).integers(0, most + 1, (questions * M, G))
    layout = packing.lay(length, packing.Lanes(before, lanes), M, parts, most, 8)
    N, blocks = layout.order.shape[1], questions * layout.split
    assert layout.stands.shape[1] % (lanes * layout.split) == 0
    for order, stands in zip(layout.order, layout.stands, strict=True):
        stands = stands[:blocks] - before * N // lanes
        np.testing.assert_array_equal(order[stands] - layout.before, np.arange(blocks))
        assert (layout.stands[:, blocks:] == NOWHERE).all()
        assert (order < NOWHERE).sum() == blocks


@given(sizes, widths, st.integers(0, 2**32 - 1))
def test_a_bin_holds_whole_rows_of_one_block(size, width, seed):
    questions, G, lanes, M, parts, most, _ = size
    length = np.random.default_rng(seed).integers(0, most + 1, (questions * M, G))
    layout = packing.lay(length, packing.Lanes(0, lanes), M, parts, most, 8, width)
    if layout.place is None:
        return
    C, W = layout.columns, layout.place.shape[-1]
    assert max(C, width) == W
    for row in layout.place.reshape(-1, W):
        tokens = row[row < NOWHERE]
        assert (row[: len(tokens)] == tokens).all()  # padding is on the right
        assert len(set(tokens // (G // layout.split * C))) <= 1
        starts = np.flatnonzero(np.diff(tokens) != 1) + 1
        assert (tokens[starts] % C == 0).all()


def test_bins_by_hand():
    """Rows of 6, 2, 3 and 1 tokens fill the bins 6 | 3 2 1 of 6 columns."""
    length = np.array([[6, 2, 3, 1]])
    layout = packing.lay(length, packing.Lanes(0, 1), 1, 1, 6, 8)
    assert layout.columns == 6 and layout.place.shape == (1, 1, 1, 2, 6)
    tokens = [[0, 1, 2, 3, 4, 5], [12, 13, 14, 6, 7, 18]]
    np.testing.assert_array_equal(layout.place[0, 0, 0], tokens)


def test_wider_bins_hold_more_rows():
    """The same rows, and one of 4, fill one bin of 16: 6 4 3 2 1."""
    length = np.array([[6, 2, 3, 1, 4]])
    layout = packing.lay(length, packing.Lanes(0, 1), 1, 1, 6, 8, 16)
    tokens = [*range(6), *range(24, 28), *range(12, 15), 6, 7, 18]
    assert layout.columns == 6 and layout.place.shape == (1, 1, 1, 1, 16)
    np.testing.assert_array_equal(layout.place[0, 0, 0, 0], tokens)


def test_full_rows_are_not_packed():
    full = np.full((4, 8), 64)
    assert packing.lay(full, packing.Lanes(0, 1), 1, 2, 64, 8).place is None


@pytest.mark.parametrize(
    ("questions", "lanes", "split"), [(16, 64, 4), (16, 16, 1), (6, 4, 2), (1, 8, 8)]
)
def test_groups_are_cut_where_there_are_fewer_than_lanes(questions, lanes, split):
    length = np.full((questions, 64), 16)
    layout = packing.lay(length, packing.Lanes(0, lanes), 1, 1, 16, 8)
    assert layout.split == split
    assert layout.order.shape[1] == questions * split


@pytest.mark.parametrize(
    ("questions", "cells", "prompt", "split"),
    [(9, 8, 512, 1), (5, 4, 512, 1), (5, 4, 8, 4), (33, 32, 512, 1), (1, 4, 512, 4)],
)
def test_no_group_is_cut_where_its_question_costs_more(questions, cells, prompt, split):
    """Groups of 512 tokens: 2 of 1,024 cost less than 16 of 512 + 64 (9 on 8)."""
    length = np.full((questions, 16), 32)
    layout = packing.lay(length, packing.Lanes(0, 1), 1, cells, 32, prompt)
    assert layout.split == split


def test_few_places_are_empty_where_groups_are_large():
    """Geometric lengths with a mean of a fifth of the longest."""
    rng = np.random.default_rng(0)
    length = np.minimum(rng.geometric(5 / 128, (32, 16)), 128)
    layout = packing.lay(length, packing.Lanes(0, 4), 1, 2, 128, 8)
    assert layout.place.size < 1.5 * length.sum() < 0.35 * length.size * 128


def shapes_of(packs, batches=100):
    """Of batches of geometric lengths, which double meanwhile."""
    rng, found = np.random.default_rng(0), set()
    for i in range(batches):
        mean = 100 * (1 + i / batches)
        length = np.minimum(rng.geometric(1 / mean, (8, 16)), 512)
        given = packing.Lanes(0, 1), 1, 1, 512, 64
        layout = packing.lay(length, *given, packs=packs)
        place = None if layout.place is None else layout.place.shape
        found.add((layout.columns, layout.split, layout.order.shape, place))
    return found


def test_lengths_that_change_meet_few_shapes_and_full_rows_one():
    assert len(shapes_of(True)) <= 6
    assert shapes_of(False) == {(512, 1, (1, 8), None)}


def test_cells_are_given_as_many_rows_and_nearly_as_many_tokens():
    """The costly first, each to the cell with the least that has a place left."""
    assert packing.share_out([9, 1, 2, 7], 2) == [[0, 1], [3, 2]]
    assert packing.share_out([1, 1, 9, 1, 1], 2) == [[2, 4], [0, 1, 3]]


def test_counts_come_in_quarters():
    steps = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    assert sorted({packing.quarters(n) for n in range(1, 33)}) == steps
    assert all(n <= packing.quarters(n) <= 1.25 * n for n in range(1, 1000))
