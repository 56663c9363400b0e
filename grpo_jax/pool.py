"""The rows that are decoded together, as the host knows them.

A question has a slot as long as any of its rows is live. What is known of the rows
stands in arrays [Q, G] over slots and samples; where the rows stand on the device, in
arrays [N, g] over blocks and their rows. Every live row has drawn a whole number of
segments, so the cache needs as many columns as the oldest live row has tokens.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from grpo_jax import crossing, programs, sharding
from grpo_jax.models import transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.sampling import decode, draw, shapes
from grpo_jax.sampling.settings import Sampling
from grpo_jax.section import Refused

# Sees a row between segments: how many tokens to keep, if that is to be its end.
Watch = Callable[[int, int, np.ndarray], int | None]
PREFILL = 2048  # tokens that are prefilled at once


class Sampler(NamedTuple):
    """All that a run's rollouts have in common."""

    spec: Spec
    settings: Sampling
    group_size: int  # G
    stop_ids: tuple[int, ...]
    size: int  # ids from here on only fill the vocabulary up: never drawn
    numerics: Numerics = Numerics()
    mesh: jax.sharding.Mesh | None = None


class Room(NamedTuple):
    """What stands in each lane at once."""

    width: int  # tokens of a question, padded
    ladder: list[shapes.Shape]
    slots: int  # for questions
    batch: int  # questions that enter together
    home: shapes.Shape  # each question's block is its slot: no prefix is copied


def room(sampler: Sampler, questions: int, longest: int) -> Room:
    """For rollouts of so many questions, the longest of so many tokens."""
    settings, G = sampler.settings, sampler.group_size
    lanes = sharding.lanes(sampler.mesh)
    width = shapes.length(settings.max_prompt or longest)
    each = -(-questions // lanes)
    slots = at_once = shapes.few(each)
    batch = max(1, PREFILL // width)
    if settings.rows is not None:
        slots = at_once = max(1, min(at_once, settings.rows // (G * lanes)))
    by_group = each <= at_once
    if not by_group:  # some rows of more questions may be left
        slots, batch = min(shapes.few(each), 2 * at_once), min(batch, -(-at_once // 4))
    ladder = shapes.ladder(at_once, G, width, settings.rungs, by_group=by_group)
    home = shapes.Shape(slots, G)
    return Room(width, ladder, slots, min(at_once, batch), home)


def widths(settings: Sampling) -> list[int]:
    """Columns of the cache, as it grows."""
    found = [0]
    while found[-1] < settings.max_new:
        given = found[-1] + 1, settings.segment, settings.max_new
        found.append(shapes.columns(*given))
    return found[1:]


class Question(NamedTuple):
    number: int  # in the stream of data: draws follow from it
    tokens: Sequence[int]
    budgets: Sequence[int] | None = None  # of each sample; 0: none; None: max_new


class Answers(NamedTuple):
    """A question's group. Behind a row's length there are zeros."""

    number: int
    tokens: Int[np.ndarray, "G C"]
    length: Int[np.ndarray, "G"]
    logp: Float[np.ndarray, "G C"]  # of the distribution that was drawn from
    plain: Float[np.ndarray, "G C"]  # of softmax(logits)
    has_ended: Bool[np.ndarray, "G"]  # by a stop; False: its budget was used up


class Pool:
    """Questions that wait, and those that are decoded.

    Slots, blocks and rows stand lane after lane. All lanes have the same shape.
    """

    def __init__(
        self,
        sampler: Sampler,
        params: transformer.Params,
        questions: Sequence[Question],
        key: Key[Array, ""],
    ):
        settings, G = sampler.settings, sampler.group_size
        if not isinstance(params["layers"], tuple):
            raise Refused(
                "these parameters are for training. Sample with the copy of them that "
                "programs.publish makes."
            )
        self.sampler, self.params = sampler, params
        self.run = programs.decoding(sampler.spec, sampler.numerics, sampler.mesh)
        self.lanes = sharding.lanes(sampler.mesh)
        self.waiting = deque(questions)
        longest = max(len(question.tokens) for question in questions)
        sizes = room(sampler, len(questions), longest)
        self.width, self.ladder, self.slots, self.batch, self.home = sizes
        self.free = [deque(range(self.slots)) for _ in range(self.lanes)]

        grid = self.lanes * self.slots, G
        self.number, self.first = np.zeros(grid[0], int), np.zeros(grid[0], int)
        self.token, self.age, self.budget = (np.zeros(grid, int) for _ in range(3))
        self.is_live, self.has_ended = (np.zeros(grid, bool) for _ in range(2))
        record = *grid, settings.max_new
        self.tokens = np.zeros(record, np.int32)
        real = np.float64 if sampler.numerics.has_float64 else np.float32
        self.logp, self.plain = (np.zeros(record, real) for _ in range(2))
        self.shape = self.ladder[-1]
        self._stand(self.shape)
        self.column = 0

        columns = shapes.columns(1, settings.segment, settings.max_new)
        self.store = self._empty(self.ladder[0].size, columns)
        of_questions = self._empty(self.slots, self.width - 1)
        masks = np.zeros((self.lanes, self.slots, self.width - 1), int)
        masks = crossing.up((masks, masks > 0), self.run.rows)
        self.prefixes = decode.Prefixes(*of_questions, *masks)
        stops = np.asarray(sampler.stop_ids, int)
        limits = decode.Limits(sampler.size, stops, settings.min_new)
        fixed = limits, draw.rule(settings)
        self.limits, self.rule = crossing.up(fixed, self.run.everywhere)
        place = self.run.everywhere
        self.key = key if place is None else jax.device_put(key, place)

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting) or bool(self.is_live.any())

    def arrange(self):
        """Lets questions in, and lays the live rows into the smallest shape."""
        settings = self.sampler.settings
        segment = settings.segment
        entered = self.enter()
        live = self._live()
        shape = next(s for s in reversed(self.ladder) if all(map(s.holds, live)))
        if entered or shape != self.shape:
            self._relay(shape)
        oldest = int(self.age[self.is_live].max(initial=0))
        columns = shapes.columns(oldest + segment, segment, settings.max_new)
        if columns > self.columns:
            first = crossing.up(
                (self.column - oldest) % self.columns, self.run.everywhere
            )
            self.store = self.run.grow(self.store, first, columns=columns)
            self.column = oldest

    def dispatch(self) -> draw.Drawn:
        """Starts the next segment of every live row."""
        segment = self.sampler.settings.segment
        slot, sample = self.slot, np.maximum(self.sample, 0)
        at = slot[:, None], sample
        rows = decode.Rows(
            slot=slot % self.slots,
            number=self.number[slot],
            sample=sample,
            token=self.token[at],
            first=np.broadcast_to(self.first[slot][:, None], sample.shape),
            age=self.age[at],
            budget=self.budget[at],
            is_live=self.is_live[at] & (self.sample >= 0),
            source=self.source,
        )
        rows = crossing.up(rows, self.run.rows)
        column = crossing.up(self.column % self.columns, self.run.everywhere)
        known = self.limits, self.rule, self.key, column
        self.store, drawn = self.run.segment(
            self.params,
            self.prefixes,
            self.store,
            rows,
            *known,
            steps=segment,
            in_slots=self.shape == self.home,
            at_rest=self.shape == self.ladder[0] and not self.is_moved,
        )
        self.column += segment
        self._come_to_rest()
        return drawn

    def take(self, drawn: draw.Drawn, watch: Watch | None):
        """Writes down what a segment gave, and finds the rows that ended."""
        step, block, row = np.nonzero(drawn.token >= 0)
        slot, sample = self.slot[block], self.sample[block, row]
        place = self.age[slot, sample] + step
        self.tokens[slot, sample, place] = drawn.token[step, block, row]
        self.logp[slot, sample, place] = drawn.logp[step, block, row]
        self.plain[slot, sample, place] = drawn.plain[step, block, row]
        self._check_numbers(slot, sample, place)
        np.add.at(self.age, (slot, sample), 1)
        self.token[slot, sample] = self.tokens[slot, sample, self.age[slot, sample] - 1]
        grown = np.zeros_like(self.is_live)
        grown[slot, sample] = True
        self.has_ended |= grown & np.isin(self.token, self.sampler.stop_ids)
        if watch is not None:
            self._show(grown, watch)
        self.is_live &= ~self.has_ended & (self.age < self.budget)

    def leave(self) -> list[Answers]:
        """The groups without a live row; their slots are free again."""
        done = []
        for slot in np.flatnonzero(~self.is_live.any(1)):
            free = self.free[slot // self.slots]
            if slot % self.slots not in free:
                free.append(int(slot % self.slots))
                done.append(self._answers(int(slot)))
        return done

    def warm_up(self):
        """Runs everything once, in every shape, with no row that is live."""
        settings = self.sampler.settings
        self._prefill([0] * self.lanes)
        for columns in widths(settings):
            if columns > self.columns:
                first = crossing.up(0, self.run.everywhere)
                self.store = self.run.grow(self.store, first, columns=columns)
            for shape in self.ladder:
                self._stand(shape)
                jax.block_until_ready(self.dispatch())
            if settings.rows is not None:  # rows may come in and others move
                self._stand(self.ladder[0])
                self.is_moved = True
                jax.block_until_ready(self.dispatch())

    def _live(self) -> list[list[int]]:
        """The live rows of each group that has any, by lane."""
        by_lane = self.is_live.sum(1).reshape(self.lanes, -1)
        return [lane[lane > 0].tolist() for lane in by_lane]

    @property
    def columns(self) -> int:
        """Of the cache, as it has grown."""
        return self.store.key[0].shape[-1]

    def _empty(self, rows: int, columns: int) -> decode.Store:
        dtype = self.sampler.settings.cache
        return self.run.empty(lanes=self.lanes, rows=rows, columns=columns, dtype=dtype)

    def enter(self) -> bool:
        """Whole batches of waiting questions, as long as there is room for them."""
        entered = False
        while self.waiting:
            whole = min(self.batch * self.lanes, len(self.waiting))
            counts = [len(range(i, whole, self.lanes)) for i in range(self.lanes)]
            G = self.sampler.group_size
            live = [a + [G] * n for a, n in zip(self._live(), counts, strict=True)]
            has_slots = all(n <= len(f) for n, f in zip(counts, self.free, strict=True))
            fits = any(all(map(shape.holds, live)) for shape in self.ladder)
            if not (has_slots and fits):
                break
            self._prefill(counts)
            entered = True
        return entered

    def _prefill(self, counts: list[int]):
        """So many of the waiting questions into each lane."""
        size = self.lanes, self.batch
        ids = np.zeros((*size, self.width), int)
        is_question = np.zeros(ids.shape, bool)
        is_question[:, :, -1] = True  # where no question stands, one token does
        into = np.full(size, self.slots)  # there is no such slot
        for lane, count in enumerate(counts):
            for i in range(count):
                question = self.waiting.popleft()
                n = len(question.tokens)
                ids[lane, i, -n:], is_question[lane, i, -n:] = question.tokens, True
                slot = into[lane, i] = self.free[lane].popleft()
                self._begin(lane * self.slots + slot, question)
        flat = ids.reshape(-1, self.width), is_question.reshape(-1, self.width)
        ids, is_question, into = crossing.up((*flat, into), self.run.rows)
        new = self.run.prefill(self.params, ids, is_question)
        self.prefixes = self.run.enter(self.prefixes, new, into)

    def _begin(self, slot: int, question: Question):
        self.number[slot] = question.number
        self.first[slot] = len(question.tokens) - 1
        self.token[slot], self.age[slot] = question.tokens[-1], 0
        most = self.sampler.settings.max_new
        self.budget[slot] = most if question.budgets is None else question.budgets
        self.is_live[slot] = self.budget[slot] > 0
        self.has_ended[slot] = False

    def _stand(self, shape: shapes.Shape):
        """Places for rows, all of them empty: slots [N], samples [N, g]; −1: none."""
        self.shape = shape
        self.slot = np.repeat(np.arange(self.lanes) * self.slots, shape.blocks)
        self.sample = np.full((len(self.slot), shape.rows), -1)
        self._come_to_rest()

    def _come_to_rest(self):
        """Row i of a lane stands at i of its store."""
        places = np.arange(self.sample.size) % self.shape.size
        self.source, self.is_moved = places.reshape(self.sample.shape), False

    def _relay(self, shape: shapes.Shape):
        """Moves the live rows to where the shape wants them; the dead ones are gone."""
        old, size = np.zeros_like(self.age), self.shape.size  # where each row stood
        block, row = np.nonzero(self.sample >= 0)
        place = block * self.shape.rows + row
        old[self.slot[block], self.sample[block, row]] = place % size
        self._stand(shape)
        block = np.arange(self.lanes) * shape.blocks  # the next one of each lane
        for slot in np.flatnonzero(self.is_live.any(1)):
            lane, live = slot // self.slots, np.flatnonzero(self.is_live[slot])
            if shape == self.home:
                block[lane] = slot
            for start in range(0, len(live), shape.rows):
                part = live[start : start + shape.rows]
                self.slot[block[lane]] = slot
                self.sample[block[lane], : len(part)] = part
                block[lane] += 1
        has_drawn = (self.sample >= 0) & (self.age[self.slot[:, None], self.sample] > 0)
        places = old[self.slot[:, None], np.maximum(self.sample, 0)]
        self.is_moved = bool(np.any(has_drawn & (places != self.source)))
        self.source = places

    def _show(self, grown: np.ndarray, watch: Watch):
        for slot, sample in zip(*np.nonzero(grown), strict=True):
            tokens = self.tokens[slot, sample, : self.age[slot, sample]]
            keep = watch(int(self.number[slot]), int(sample), tokens)
            if keep is None:
                continue
            if not 1 <= keep <= len(tokens):
                raise Refused(
                    f"a row of {len(tokens)} tokens was to keep {keep}. What watches a "
                    "rollout returns None, or how many of the tokens stay."
                )
            least = self.sampler.settings.min_new
            if len(tokens) >= least:
                end = max(keep, least)
                self.age[slot, sample], self.has_ended[slot, sample] = end, True

    def _check_numbers(self, slot: np.ndarray, sample: np.ndarray, place: np.ndarray):
        at = slot, sample, place
        bad = np.flatnonzero(~np.isfinite(self.plain[at] + self.logp[at]))
        if len(bad):
            i = bad[0]
            raise Refused(
                f"question {self.number[slot[i]]}, sample {sample[i]}: the logits of "
                f"token {place[i]} are not numbers. The parameters are damaged, or the "
                "precision is too low: try --model.numerics.compute float32."
            )

    def _answers(self, slot: int) -> Answers:
        length = self.age[slot].copy()
        is_token = np.arange(self.tokens.shape[-1]) < length[:, None]
        record = self.tokens[slot], self.logp[slot], self.plain[slot]
        tokens, logp, plain = (np.where(is_token, x, 0) for x in record)
        ended = self.has_ended[slot].copy()
        return Answers(int(self.number[slot]), tokens, length, logp, plain, ended)
