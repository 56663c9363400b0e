"""Where the tokens of a ragged batch stand, so that few places are for padding.

A batch is computed in cells: each part of each minibatch has as many questions on each
lane of the mesh. In a cell the completions of one question are laid one behind another
into bins, as wide as the longest of the batch, and every cell has as many bins as the
fullest needs: so each is given some long questions and some short ones.
"""

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from grpo_jax.sampling import shapes

NOWHERE = np.iinfo(np.int32).max
WORTH = 0.8  # a share of the unpacked batch above which bins are not worth gathering


class Layout(NamedTuple):
    """How one batch lies on the devices."""

    order: Int[np.ndarray, "B"]  # the question that stands there; -1: none
    columns: int  # of the completions: the longest, and few more
    place: Int[np.ndarray, "cells lanes N W"] | None  # None: each row is its own bin


def lay(
    length: Int[np.ndarray, "B G"], lanes: int, minibatches: int, parts: int, most: int
) -> Layout:
    """The layout of completions of these lengths, none above `most`.

    Question i belongs to the minibatch i mod M, whatever its length. Cell p·M + m of a
    lane is part p of minibatch m, and has every (parts·M)-th question of that lane.
    """
    B, G = length.shape
    columns = min(shapes.length(int(length.max())), most)
    bins = [_bins(lengths, columns) for lengths in length]
    cells = {}
    for m in range(minibatches):
        questions = range(m, B, minibatches)
        shares = _share_out({q: len(bins[q]) for q in questions}, lanes * parts)
        for number, share in enumerate(shares):
            lane, p = divmod(number, parts)
            cells[p * minibatches + m, lane] = share
    each = max(map(len, cells.values()))
    order = np.full((lanes, each, parts * minibatches), -1)
    for (cell, lane), share in cells.items():
        order[lane, : len(share), cell] = share
    needed = max(sum(len(bins[q]) for q in share) for share in cells.values())
    needed = quarters(max(needed, 1))
    place = None
    if needed < WORTH * each * G:
        place = np.full((parts * minibatches, lanes, needed, columns), NOWHERE)
        for where, share in cells.items():
            _fill(place[where], [(bins[q], length[q]) for q in share])
    return Layout(order.reshape(-1), columns, place)


def quarters(n: int) -> int:
    """The next of 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...: at most a fifth is unused."""
    step = 1 << max(0, n.bit_length() - 3)
    return -(-n // step) * step


def _bins(lengths: np.ndarray, width: int) -> list[list[int]]:
    """The rows of each bin: long ones first, each into the first with room for it."""
    bins, room = [], []
    for row in np.argsort(-lengths, kind="stable"):
        n = int(lengths[row])
        if n == 0:
            continue
        fits = next((i for i, left in enumerate(room) if left >= n), None)
        if fits is None:
            fits = len(bins)
            bins.append([])
            room.append(width)
        bins[fits].append(int(row))
        room[fits] -= n
    return bins


def _share_out(cost: dict[int, int], cells: int) -> list[list[int]]:
    """Questions to cells: the costly first, each to the cell that has the least."""
    most = -(-len(cost) // cells)
    shares = [[] for _ in range(cells)]
    least = [(0, cell) for cell in range(cells)]
    for question in sorted(cost, key=cost.get, reverse=True):
        load, cell = heapq.heappop(least)
        shares[cell].append(question)
        if len(shares[cell]) < most:
            heapq.heappush(least, (load + cost[question], cell))
    return shares


def _fill(place: np.ndarray, questions: list[tuple[list[list[int]], np.ndarray]]):
    """Bin after bin, the number of each token among all places of the cell's rows."""
    width, b = place.shape[1], 0
    for i, (bins, length) in enumerate(questions):
        for rows in bins:
            first = (i * len(length) + np.array(rows)) * width
            tokens = [
                f + np.arange(length[r]) for f, r in zip(first, rows, strict=True)
            ]
            tokens = np.concatenate(tokens)
            place[b, : len(tokens)] = tokens
            b += 1
