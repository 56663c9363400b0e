"""Points of a sweep: commands of this package, each in a process of its own.

    ROOT/NAME/               what a point writes
    ROOT/points/NAME.log     what it says, beside
    ROOT/points/NAME.json    what it is, and its seconds, when it is done
    ROOT/points/NAME.lock    held while it runs

A point is made once. The same sweep started again skips those that are done; all else
goes on where it was, as runs, labels and evaluations do, or begins anew. The lock of a
point belongs to the process that runs it as well as to the one that started it: if the
latter is killed, the point runs on, and who starts the sweep again, or another that
shares the point, waits for its end.
"""

import collections
import contextlib
import fcntl
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from grpo_jax import workdir
from grpo_jax.section import Refused

POINTS = "points"
PACKAGE = pathlib.Path(__file__).parent
# How commands are told a folder, or a file in it.
OUT = {"train": "--workdir", "label": "--out", "evaluate": "--out", "plan": "--out"}
FILE = {"evaluate": "evaluation.json", "plan": "plan.json"}
PAUSE = 0.2  # seconds between two looks at what runs
REFUSED, STOPPED = 2, 33  # exit codes of commands
# The C library would give large buffers back after each program and ask for them anew,
# page by page: an eighth of what a small model's step takes.
KEEPING = "mmap_max=0", "trim_threshold=17179869184", "arena_max=1"
TUNED = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{x}" for x in KEEPING)}


class Made(NamedTuple):
    """A path within what another point makes, which is needed for this one."""

    name: str
    path: str = "."


class Point(NamedTuple):
    """A command with what it is about, and settings by name."""

    command: str
    subject: str | Made
    settings: Mapping[str, Any] = {}

    @property
    def needs(self) -> set[str]:
        """The points that must be done before."""
        given = self.subject, *self.settings.values()
        return {one.name for one in given if isinstance(one, Made)}


Points = Mapping[str, Point]


def words(point: Point, name: str, root: pathlib.Path) -> list[str]:
    """The command line, behind `python -m grpo_jax`."""
    found = [point.command, *_said(point.subject, root)]
    found += [OUT[point.command], str(root / name / FILE.get(point.command, ""))]
    for setting, value in point.settings.items():
        found += [f"--{setting.replace('_', '-')}", *_said(value, root)]
    return found


def _said(value: Any, root: pathlib.Path) -> list[str]:
    if isinstance(value, Made):
        return [str(root / value.name / value.path)]
    if isinstance(value, tuple | list):
        return [word for one in value for word in _said(one, root)]
    return [str(value)]


def needed(points: Points, names: Collection[str]) -> dict[str, Point]:
    """Those points, and all that has to be there before."""
    wanted = list(names)
    for name in wanted:  # it grows
        wanted += [x for x in sorted(points[name].needs) if x not in wanted]
    return {name: point for name, point in points.items() if name in wanted}


def check(points: Points):
    """Refuses what could not be carried through."""
    for name, point in points.items():
        if point.command not in OUT:
            raise Refused(
                f"point {name} is a {point.command!r}; there are {', '.join(OUT)}."
            )
        for other in sorted(point.needs - points.keys()):
            raise Refused(f"point {name} needs {other}, which is none of the sweep.")
    left = dict(points)
    while left:
        free = [name for name, point in left.items() if not point.needs & left.keys()]
        if not free:
            raise Refused(f"points need each other in a ring: {', '.join(left)}.")
        for name in free:
            del left[name]


class Done(NamedTuple):
    """What is written of a point that is done."""

    words: list[str]
    identity: str  # of all that it depends on
    seconds: float  # of the process that ended it
    code: str  # digest of the package and of the experiment's folder


def done(name: str, root: pathlib.Path, identity: str) -> Done | None:
    """What was made by that name, if it is that and is still there."""
    path = beside(name, root, "json")
    if not (path.exists() and (root / name).exists()):
        return None
    found = Done(**json.loads(path.read_text()))
    return found if found.identity == identity else None


def beside(name: str, root: pathlib.Path, kind: str) -> pathlib.Path:
    return root / POINTS / f"{name}.{kind}"


def _claimed(path: pathlib.Path) -> int | None:
    """A lock, until it is closed here and in whom it was passed to; None: another has
    it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


class Child(NamedTuple):
    """A point that runs, and on which cores."""

    process: subprocess.Popen
    cores: frozenset[int]
    since: float
    code: str
    lock: int  # ours, until it is written that it is done


class Failed(NamedTuple):
    """How a point ended that is not done, and the last that it said."""

    code: int
    said: str


class Outcome(NamedTuple):
    failed: dict[str, Failed]
    left: list[str]  # neither failed nor done: stopped, or in need of what failed
    is_stopped: bool


class Sweep:
    """Runs points, so many at a time, on cores of their own."""

    def __init__(
        self,
        points: Points,
        root: pathlib.Path,
        identity: Mapping[str, str],  # of each point
        jobs: int = 1,
        tries: int = 2,
        ended: Callable[[str], None] = lambda name: None,  # when one is done
    ):
        check(points)
        for name, value in (("jobs", jobs), ("tries", tries)):
            if value < 1:
                raise Refused(f"--{name} is {value}; it must be at least 1.")
        self.points, self.root, self.identity = points, root, identity
        self.tries, self.ended = tries, ended
        cores = sorted(os.sched_getaffinity(0))
        self.free = [
            frozenset(cores[job::jobs] or [cores[job % len(cores)]])
            for job in range(jobs)
        ]
        self.running: dict[str, Child] = {}
        self.failed: dict[str, Failed] = {}
        self.tried: collections.Counter[str] = collections.Counter()
        self.seen: set[str] = set()  # done: that is looked up once
        self.is_asked = False

    def run(self, board: "Board") -> Outcome:
        """Until all are done or failed; or, on SIGTERM and Ctrl-C, all are saved."""
        board.begin(self)
        with self._asked(), board:
            try:
                while not self.is_asked:
                    self._reap(board)
                    looks_again = self._start()
                    if not (self.running or looks_again):
                        break
                    board.show(self)
                    time.sleep(PAUSE)
            finally:
                self._stop(board)
        return Outcome(self.failed, self.left(), self.is_asked)

    def _stop(self, board: "Board"):
        """Nothing that was begun here outlives this."""
        for child in self.running.values():
            child.process.send_signal(signal.SIGTERM)
        for child in self.running.values():
            child.process.wait()
        self._reap(board)

    def left(self) -> list[str]:
        """Points that are neither done, nor running, nor failed."""
        taken = self.running.keys() | self.failed.keys()
        return [x for x in self.points if x not in taken and not self.is_done(x)]

    def is_done(self, name: str) -> bool:
        if name not in self.seen and done(name, self.root, self.identity[name]):
            self.seen.add(name)
        return name in self.seen

    def _words(self, name: str) -> list[str]:
        return words(self.points[name], name, self.root)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Children in the same terminal have heard Ctrl-C themselves; again, and all
        end at once."""

        def asked(number, frame):
            if self.is_asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.is_asked = True

        numbers = signal.SIGTERM, signal.SIGINT
        before = {number: signal.signal(number, asked) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> bool:
        """What can be; whether something is left that others run, or have ended."""
        looks_again = False
        for name in self.left():
            if not self.free:
                break
            if not all(map(self.is_done, self.points[name].needs)):
                continue
            lock = _claimed(beside(name, self.root, "lock"))
            if lock is None:
                looks_again = True
            elif self.is_done(name):  # by others, just now
                os.close(lock)
                looks_again = True
            else:
                self.running[name] = self._child(name, lock)
        return looks_again

    def _child(self, name: str, lock: int) -> Child:
        cores, ours = self.free.pop(0), os.sched_getaffinity(0)
        self.tried[name] += 1
        command = [sys.executable, "-m", "grpo_jax", *self._words(name)]
        with beside(name, self.root, "log").open("a") as log:
            log.write(f"$ python {shlex.join(command[1:])}\n")
            log.flush()
            os.sched_setaffinity(0, cores)  # which a child inherits
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock],
                    env=TUNED | os.environ,
                )
            finally:
                os.sched_setaffinity(0, ours)
        return Child(process, cores, time.monotonic(), self._code(name), lock)

    def _code(self, name: str) -> str:
        """What the point imports, as it is on disk."""
        found, subject = [workdir.digest(PACKAGE)], str(self.points[name].subject)
        if subject.endswith(".py"):
            found.append(workdir.digest(pathlib.Path(subject).parent, "*.py"))
        return "-".join(found)

    def _reap(self, board: "Board"):
        """What has ended is done, has failed, or is tried once more."""
        for name, child in list(self.running.items()):
            code = child.process.poll()
            if code is None:
                continue
            del self.running[name]
            self.free.append(child.cores)
            if code == 0 and (self.root / name).exists():
                seconds = time.monotonic() - child.since
                known = self._words(name), self.identity[name]
                after = self._code(name)  # it may have been edited meanwhile
                of = child.code if after == child.code else f"{child.code} to {after}"
                found = Done(*known, seconds, of)
                text = json.dumps(found._asdict()) + "\n"
                workdir.replace(beside(name, self.root, "json"), text)
                self.ended(name)
                board.ended(self, name, seconds)
            elif not self._goes_on(name, code):
                self.failed[name] = Failed(code, self._last(name))
                board.failed(name, self.failed[name])
            os.close(child.lock)

    def _goes_on(self, name: str, code: int) -> bool:
        """Whether a point that is not done yet may be: here, or in another sweep."""
        return code != REFUSED and (self.is_asked or self.tried[name] < self.tries)

    def _last(self, name: str) -> str:
        lines = beside(name, self.root, "log").read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")


class Board:
    """What a person sees: how many are done, what runs, how long it will take.

    A bar on a terminal, and a line for each point that ends elsewhere as well.
    """

    def __init__(self):
        self.console = Console(highlight=False)
        self.bar = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            console=self.console,
        )
        self.seconds: list[float] = []  # of the points that ended here

    def begin(self, sweep: Sweep):
        total, left = len(sweep.points), len(sweep.left())
        self.task = self.bar.add_task("", total=total, completed=total - left)
        self.tell(f"{sweep.root}: {total} points, {left} to run")

    def __enter__(self):
        if self.console.is_terminal:
            self.bar.start()

    def __exit__(self, *error):
        self.bar.stop()

    def show(self, sweep: Sweep):
        running, failed = ", ".join(sweep.running), len(sweep.failed)
        known = [self.remaining(sweep), f"{failed} failed" * bool(failed), running]
        self.bar.update(self.task, description="; ".join(filter(None, known)))

    def ended(self, sweep: Sweep, name: str, seconds: float):
        self.seconds.append(seconds)
        self.bar.advance(self.task)
        total = len(sweep.points)
        at = total - len(sweep.left()) - len(sweep.running) - len(sweep.failed)
        told = [f"{at} of {total}: {name} done in {seconds:.0f} s"]
        self.tell("; ".join([*told, *filter(None, [self.remaining(sweep)])]))

    def failed(self, name: str, found: Failed):
        self.tell(f"{name} failed with code {found.code}: {found.said}")

    def tell(self, text: str):
        self.console.print(text, markup=False, soft_wrap=True)

    def remaining(self, sweep: Sweep) -> str:
        """By the mean of the points that ended; nothing is known before one has."""
        left = len(sweep.left()) + len(sweep.running) / 2
        if not (self.seconds and left):
            return ""
        jobs = len(sweep.running) + len(sweep.free)
        seconds = left * sum(self.seconds) / len(self.seconds) / jobs
        return f"about {seconds / 60:.0f} minutes left"
