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
    """Whether a run was asked to.

    With several processes SIGTERM is for JAX, which tells all, and they agree on the
    step that is their last; none gives one up alone.
    """

    def __init__(self, notice: float):
        self.notice, self.since, self.looked = notice, None, 0
        self.is_alone = jax.process_count() == 1
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            own = (signal.SIGTERM, signal.SIGINT) if self.is_alone else (signal.SIGINT,)
            for number in own:
                self.before[number] = signal.signal(number, self._asked)

    def close(self):
        for number, handler in self.before.items():
            # None: it was set by a library, and not from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _asked(self, number: int, frame):
        if self.since is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.since = self.since or time.monotonic()
        if not self.is_alone:
            signal.raise_signal(signal.SIGTERM)

    def is_asked(self) -> bool:
        """At the end of each step or batch; all processes look as often.

        They agree on the look after the last that any has had, so none is counted anew.
        """
        if self.is_alone:
            return self.since is not None
        self.looked += 1
        return multihost_utils.reached_preemption_sync_point(self.looked)

    def need_time(self, left: float):
        """Gives the step up, if it would take longer than the notice leaves.

        What has taken longer than was foreseen may end at once; the notice is no
        longer for it.
        """
        if self.since is None or not self.is_alone:
            return
        if time.monotonic() + max(left, 0.0) > self.since + self.notice:
            raise GivenUp
