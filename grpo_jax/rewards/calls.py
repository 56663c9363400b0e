"""Calls of reward functions, which may be slow, wrong, or never return.

Each runs in a thread of a pool while the devices sample. One that raises, takes too
long, or returns what is no number leaves that sample unscored: NaN, counted and told.
If too many do, the run stops with the first of these errors.
"""

import math
import threading
import time
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from grpo_jax.section import Refused

Reward = Callable[[str, str, str], float | None]


class Sample(NamedTuple):
    question: str
    completion: str
    answer: str


class Scored(NamedTuple):
    parts: Float[np.ndarray, "R"]  # NaN: could not be scored
    faults: list[str]  # of each call that failed, why


class Pool:
    """Threads for calls. One that takes too long keeps its thread, which ends with it;
    another starts. Functions that bound themselves are waited for. All end when nobody
    holds the pool any more."""

    def __init__(
        self,
        rewards: dict[str, Reward],
        workers: int,
        seconds: float,
        bounded: Collection[str] = (),
    ):
        self.rewards, self.seconds, self.bounded = rewards, seconds, bounded
        self._calls: SimpleQueue = SimpleQueue()
        for _ in range(workers):
            self._start()
        weakref.finalize(self, _end, self._calls, workers)

    def _start(self):
        threading.Thread(target=_work, args=(self._calls,), daemon=True).start()

    def submit(self, sample: tuple, whole: tuple) -> list[Future]:
        """Begins to score, and returns at once; `whole`, without what may be unfinished
        in a text that was cut, is for our own rules."""
        futures = [Future() for _ in self.rewards]
        for (name, function), future in zip(self.rewards.items(), futures, strict=True):
            future.began, future.is_given_up = None, False
            given = whole if name in self.bounded else sample
            self._calls.put((function, given, future))
        return futures

    def collect(self, futures: list[Future]) -> Scored:
        """What was said of one; waits for it, but for no call longer than allowed."""
        parts, faults = np.full(len(futures), np.nan), []
        for j, (name, future) in enumerate(zip(self.rewards, futures, strict=True)):
            value, fault = self.result(name, future, number)
            if fault:
                faults.append(f"{name} {fault}")
            elif value is not None:
                parts[j] = value
        return Scored(parts, faults)

    def result(self, name: str, future: Future, read: Callable) -> tuple[Any, str]:
        """What was returned, as it is read, or None and what went wrong."""
        seconds = math.inf if name in self.bounded else self.seconds
        while True:
            try:
                error = future.exception(timeout=0.05)
            except TimeoutError:
                began = future.began  # None: it waits for a thread
                if began is None or time.monotonic() < began + seconds:
                    continue
                future.is_given_up = True
                self._start()  # in place of the thread that is lost
                return None, f"took longer than {seconds:g} s"
            if error is not None:
                return None, f"raised {type(error).__name__}: {error}"
            return read(future.result())


def _work(calls: SimpleQueue):
    """What a thread does. It does not hold the pool."""
    while (call := calls.get()) is not None:
        function, sample, future = call
        if future.set_running_or_notify_cancel():
            future.began = time.monotonic()
            try:
                future.set_result(function(*sample))
            except BaseException as error:
                future.set_exception(error)
            if future.is_given_up:
                return
        del call, function, sample, future  # or the next wait would hold them


def _end(calls: SimpleQueue, workers: int):
    for _ in range(workers):
        calls.put(None)


def number(value: Any) -> tuple[float | None, str]:
    """None: it could not tell; or what is wrong with what should be a number."""
    if value is None:
        return None, ""
    is_number = isinstance(value, int | float | np.integer | np.floating | np.bool_)
    if not is_number or math.isinf(value):
        return None, f"returned {str(value)[:80]!r}, no finite number"
    return float(value), ""


def need_few(faults: int, calls: int, first: str, most: float):
    """Stops where more than such a share of the calls failed."""
    if faults > most * calls:
        raise Refused(
            f"{faults} of {calls} rewards failed; rewards.most_faults is {most:g}. "
            f"The first: {first}."
        )


def need_scored(unscored: int, samples: int, most: float):
    """Stops where more than such a share of the samples got no reward."""
    if unscored > most * samples:
        raise Refused(
            f"{unscored} of {samples} samples could not be scored: a function gave "
            f"None, or failed. rewards.most_unscored is {most:g}. Look at `unscored/` "
            "in the metrics and at the samples; mend the function, leave out what it "
            "does not apply to, or raise that."
        )
