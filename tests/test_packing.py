"""Every token has one place, and few places are for padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grpo_jax import packing

sizes = st.tuples(*[st.integers(1, n) for n in (9, 5, 3, 3, 3, 40)])


@given(sizes, st.integers(0, 2**32 - 1))
def test_every_token_has_one_place_in_its_questions_cell(size, seed):
    B, G, lanes, M, parts, most = size
    length = np.random.default_rng(seed).integers(0, most + 1, (B, G))
    layout = packing.lay(length, lanes, M, parts, most)
    questions = layout.order.reshape(lanes, -1, parts * M)
    assert sorted(layout.order[layout.order >= 0]) == list(range(B))
    for cell in range(parts * M):
        own = questions[:, :, cell].reshape(-1)
        assert all(q % M == cell % M for q in own if q >= 0)
    assert length.max() <= layout.columns <= most
    if layout.place is None:
        return
    assert layout.place.shape[:2] == (parts * M, lanes)
    for cell, lane in np.ndindex(parts * M, lanes):
        own = questions[lane, :, cell]
        expected = [
            (i * G + g) * layout.columns + c
            for i, q in enumerate(own)
            if q >= 0
            for g in range(G)
            for c in range(length[q, g])
        ]
        place = layout.place[cell, lane]
        assert sorted(place[place < packing.NOWHERE]) == expected
        for row in place:
            tokens = row[row < packing.NOWHERE]
            assert (row[: len(tokens)] == tokens).all()  # padding is on the right
            assert len(set(tokens // (G * layout.columns))) <= 1  # one question
            starts = np.flatnonzero(np.diff(tokens) != 1) + 1
            assert (tokens[starts] % layout.columns == 0).all()  # rows are whole


def test_bins_by_hand():
    """Rows of 6, 2, 3 and 1 tokens fill the bins 6 | 3 2 1 of 6 columns."""
    length = np.array([[6, 2, 3, 1]])
    layout = packing.lay(length, 1, 1, 1, 6)
    assert layout.columns == 6 and layout.place.shape == (1, 1, 2, 6)
    tokens = [[0, 1, 2, 3, 4, 5], [12, 13, 14, 6, 7, 18]]
    np.testing.assert_array_equal(layout.place[0, 0], tokens)


def test_full_rows_are_not_packed():
    assert packing.lay(np.full((4, 8), 64), 1, 1, 2, 64).place is None


def test_few_places_are_empty_where_groups_are_large():
    """Geometric lengths with a mean of a fifth of the longest."""
    rng = np.random.default_rng(0)
    length = np.minimum(rng.geometric(5 / 128, (32, 16)), 128)
    layout = packing.lay(length, 4, 1, 2, 128)
    assert layout.place.size < 1.5 * length.sum() < 0.35 * length.size * 128


def test_counts_come_in_quarters():
    steps = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    assert sorted({packing.quarters(n) for n in range(1, 33)}) == steps
    assert all(n <= packing.quarters(n) <= 1.25 * n for n in range(1, 1000))
