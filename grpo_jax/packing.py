"""Where the tokens of a ragged batch stand, so that few places are for padding.

A batch is computed in cells: each part of each minibatch has as many blocks on each
lane of the mesh. A block is a question's group, or an equal share of it: where there
are so few that cells would be idle, and computing a question again costs less. In a
cell the completions of one block are laid one behind another into bins, as wide as the
longest of the batch, and every cell has as many bins as the fullest needs: so each is
given some long blocks and some short ones. Sizes are rounded up to few, so that lengths
as they change from step to step meet few programs.
"""

import heapq
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from grpo_jax.sampling import shapes

NOWHERE = np.iinfo(np.int32).max
WORTH = 0.8  # a share of the unpacked batch above which bins are not worth gathering


class Lanes(NamedTuple):
    """Those that this process feeds; with others', if it is not alone."""

    first: int
    count: int
    agreed: Callable[..., tuple[int, ...]] = lambda *sizes: sizes


class Layout(NamedTuple):
    """How one rollout lies on the devices, M minibatches of it.

    Blocks are numbered as their questions are, those of a minibatch by themselves.
    """

    columns: int  # of the completions: the longest, and few more
    split: int  # blocks of a group
    before: int  # blocks of a minibatch that other processes have before these
    order: Int[np.ndarray, "M N"]  # the block that stands there, or NOWHERE
    stands: Int[np.ndarray, "M blocks"]  # where a block stands, or NOWHERE
    place: Int[np.ndarray, "M parts lanes bins W"] | None  # None: a row is its own bin


def lay(
    length: Int[np.ndarray, "B G"],
    lanes: Lanes,
    minibatches: int,
    parts: int,
    most: int,
    prompt: int,
    width: int = 0,
    packs: bool = True,
) -> Layout:
    """The layout of completions of these lengths, none above `most`, to questions of so
    many tokens, in bins of at least that width: short rows leave little of it empty. If
    it does not pack, every batch has one shape: that of full rows.

    Question i belongs to minibatch i mod M, whatever its length. In its order part p
    has every parts-th block of each lane.
    """
    (B, G), M = length.shape, minibatches
    longest, tokens = lanes.agreed(int(length.max()), int(length.sum()))
    if not packs:
        longest, tokens = most, B * G * most
    columns = shapes.shortened(most, longest)
    typical = 2.0 ** round(math.log2(max(tokens / B, 1)))  # or every batch has its own
    split = _split(B // M, G, lanes.count * parts, prompt, typical)
    length = _in_blocks(length, M, split, of_samples=True)
    width = max(columns, width)
    bins = [[_bins(lengths, width) for lengths in blocks] for blocks in length]
    cells = [share_out([len(b) for b in some], lanes.count * parts) for some in bins]
    each = max(len(cell) for some in cells for cell in some)
    needed = max(
        sum(len(bins[m][i]) for i in cell) for m in range(M) for cell in cells[m]
    )
    each, needed = lanes.agreed(each, quarters(max(needed, 1)))
    # As many questions of a minibatch on every lane, some of which may be empty.
    blocks = -(-length.shape[1] // (split * lanes.count)) * split * lanes.count
    before = lanes.first * blocks // lanes.count
    order = np.full((M, lanes.count, each, parts), NOWHERE)
    stands = np.full((M, blocks), NOWHERE)
    place = np.full((M, parts, lanes.count, needed, width), NOWHERE)
    for m, some in enumerate(cells):
        for number, cell in enumerate(some):
            lane, part = divmod(number, parts)
            order[m, lane, : len(cell), part] = before + np.array(cell, int)
            at = (lanes.first + lane) * each + np.arange(len(cell))
            stands[m, cell] = at * parts + part
            blocks_ = [(bins[m][i], length[m, i]) for i in cell]
            _fill(place[m, part, lane], blocks_, columns)
    packs &= needed * width < WORTH * each * (G // split) * columns
    layout = columns, split, before, order.reshape(M, -1), stands
    return Layout(*layout, place if packs else None)


def _split(questions: int, group: int, cells: int, prompt: int, tokens: float) -> int:
    """Into how many blocks groups of so many tokens are cut: what takes a cell least.

    Each block computes its question again.
    """

    def cost(split):
        return -(-questions * split // cells) * (prompt + tokens / split)

    divisors = [n for n in range(1, group + 1) if group % n == 0]
    return min(divisors, key=lambda n: (cost(n), n))


def laid(x: np.ndarray, layout: Layout, *, of_samples: bool = False) -> np.ndarray:
    """[B, ...], or [B, G, ...] of samples → [M, N, ...]: zeros where nothing stands."""
    blocks = _in_blocks(x, len(layout.order), layout.split, of_samples)
    is_there, at = layout.order < NOWHERE, layout.order - layout.before
    at = np.minimum(at, blocks.shape[1] - 1)
    taken = np.stack([some[i] for some, i in zip(blocks, at, strict=True)])
    is_there = is_there.reshape(*is_there.shape, *(1,) * (taken.ndim - 2))
    return np.where(is_there, taken, np.zeros((), x.dtype))


def _in_blocks(x: np.ndarray, parts: int, split: int, of_samples: bool) -> np.ndarray:
    """[B, ...] → [M, blocks, ...]; samples are shared out, all else is repeated."""
    x = x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
    if not of_samples:
        return np.repeat(x, split, 1)
    return x.reshape(parts, -1, x.shape[2] // split, *x.shape[3:])


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


def share_out(cost: list[int], cells: int) -> list[list[int]]:
    """Blocks to cells: the costly first, each to the cell that has the least."""
    most = -(-len(cost) // cells)
    shares = [[] for _ in range(cells)]
    least = [(0, cell) for cell in range(cells)]
    for block in np.argsort(-np.array(cost), kind="stable"):
        load, cell = heapq.heappop(least)
        shares[cell].append(int(block))
        if len(shares[cell]) < most:
            heapq.heappush(least, (load + cost[block], cell))
    return shares


def _fill(place: np.ndarray, blocks: list[tuple], columns: int):
    """Bin after bin, the number of each token among all places of the cell's rows.

    Of each block its bins, and the lengths of its rows.
    """
    b = 0
    for i, (bins, length) in enumerate(blocks):
        for rows in bins:
            first = (i * len(length) + np.array(rows)) * columns
            tokens = [
                f + np.arange(length[r]) for f, r in zip(first, rows, strict=True)
            ]
            tokens = np.concatenate(tokens)
            place[b, : len(tokens)] = tokens
            b += 1
