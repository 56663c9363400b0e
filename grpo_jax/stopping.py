"""Being asked to stop: by SIGTERM, or with Ctrl-C.

The step under way is finished and saved, and the program exits with 33: start it again,
and it goes on. Where the notice is shorter than what is left of the step, the step is
given up while it can be, and the one before it is saved. Ctrl-C once more ends at once.
"""

import signal
import threading
import time

import jax
from jax.experimental import multihost_utils

CODE = 33


class Stopped(Exception):
    """Work was asked to stop; all that it did is saved."""

    def __init__(self, number: int, what: str = "step"):
        self.number, where = number, f"after {what} {number}"
        super().__init__(f"stopped {where}, and saved: the same command goes on")


class GivenUp(Exception):
    """A step was, for lack of time."""


class Stop:
    """Whether a run was asked to. With several processes they all agree on the step."""

    def __init__(self, notice: float):
        self.notice, self.since = notice, None
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                is_agreed = number == signal.SIGTERM and jax.process_count() > 1
                if not is_agreed:  # that one is for JAX, which tells all processes
                    self.before[number] = signal.signal(number, self._asked)

    def close(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame):
        if self.since is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.since = self.since or time.monotonic()

    def is_asked(self, step: int) -> bool:
        """After step `step`, once for each."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.since is not None

    def need_time(self, left: float):
        """Gives the step up, if it would take longer than the notice leaves."""
        if self.since is None:
            return
        if time.monotonic() + left > self.since + self.notice:
            raise GivenUp
