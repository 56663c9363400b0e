"""Whether two formulas are equal, asked of processes that can be killed.

A reward must be a function of its arguments: a run that goes on has to find what it
would have found. So the bound on most comparisons is a number of calls, on the others
a processor's time (see `worker`); what goes beyond it is late, and that is final: an
answer that asks for the absurd is wrong, not unscored, or a policy could choose to be
left out of its group. Only where a worker is silent for very long, or dies again and
again, is there no verdict: the machine has failed, not the answer, and an error says
so.

Processes begin when first needed, one for each thread that waits for an answer.
"""

import atexit
import contextlib
import functools
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import threading
from typing import Literal

WORKER = pathlib.Path(__file__).with_name("worker.py")
SECONDS = (
    120.0  # without a word; a worker is done or late after a tenth of that at most
)
TRIES = 3

Rule = Literal["algebra", "paper"]


def equal(gold: str, given: str) -> bool:
    """By algebra; what cannot be read or takes too long is not equal."""
    return verdict("algebra", gold, given) == "equal"


@functools.lru_cache(1 << 16)
def verdict(rule: Rule, gold: str, given: str) -> str:
    """One of worker.WORDS."""
    for _ in range(TRIES):
        worker = POOL.take()
        try:
            word = worker.ask(rule, gold, given)
        except BaseException:
            worker.end()
            raise
        if word:
            POOL.give(worker)
            return word
        worker.end()
    raise RuntimeError(f"{TRIES} workers died or were silent over {gold!r}, {given!r}")


class Worker:
    """A process that compares, one pair at a time."""

    def __init__(self):
        environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,  # killed with its child; deaf to Ctrl-C
        )

    def ask(self, rule: str, gold: str, given: str) -> str:
        """Its word; nothing if it is dead or silent."""
        process = self.process
        try:
            process.stdin.write(json.dumps([rule, gold, given]) + "\n")
            process.stdin.flush()
        except OSError:
            return ""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(SECONDS):
                return ""
        return process.stdout.readline().strip()

    def end(self):
        """Kills it, and what it has begun."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()


class Pool:
    """Workers that wait to be asked."""

    def __init__(self):
        self.idle: list[Worker] = []
        self._lock = threading.Lock()

    def take(self) -> Worker:
        with self._lock:
            if self.idle:
                return self.idle.pop()
        return Worker()

    def give(self, worker: Worker):
        with self._lock:
            self.idle.append(worker)

    def close(self):
        """Ends those that wait."""
        with self._lock:
            idle, self.idle = self.idle, []
        for worker in idle:
            worker.end()


POOL = Pool()
atexit.register(POOL.close)
