"""A run from its first step to its last, however often it is stopped in between.

    result = run.train(settings, folder)

A run is a list of stages with one count of steps. Row k of the metrics, and the
checkpoint of step k behind it, are written while step k + 1 is under way. Started
again in the same folder, a run goes on from its last whole checkpoint, and what it
writes from there on is what it would have written.
"""

import dataclasses
import functools
import importlib.metadata
import math
import pathlib
import platform
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from tensorboardX import SummaryWriter

from grpo_jax import (
    __version__,
    checkpoint,
    config,
    crossing,
    display,
    evaluate,
    learner,
    plots,
    prng,
    processes,
    programs,
    runs,
    sharding,
    stage,
    stages,
    stopping,
    task,
    trainer,
    workdir,
)
from grpo_jax.losses import statistics
from grpo_jax.models import load, transformer
from grpo_jax.rewards.calls import Reward
from grpo_jax.rewards.grading import Grader
from grpo_jax.section import Refused
from grpo_jax.stage import Found, State

KINDS = stages.KINDS | {"online": trainer.Online}
CHECKPOINTS = "checkpoints"
ACCURACY = evaluate.PREFIX + "accuracy"


class Result(NamedTuple):
    folder: pathlib.Path
    model: load.Model  # as it is after the last step
    metrics: dict[str, float]  # of the last evaluation


class Leg(NamedTuple):
    """One stage of the list, and its steps: first + 1, ..., last."""

    number: int
    name: str
    first: int
    last: int


def legs(settings: config.Config) -> list[Leg]:
    found, first = [], 0
    for number, name in enumerate(settings.stages):
        chosen = settings.training if name == "online" else getattr(settings, name)
        found.append(Leg(number, name, first, first + chosen.steps))
        first += chosen.steps
    return found


def train(
    settings: config.Config,
    folder: pathlib.Path,
    *,
    rewards: dict[str, Reward] | None = None,
    model: load.Model | None = None,
    fork_from: pathlib.Path | None = None,
    screen: display.Screen | None = None,
) -> Result:
    """Trains, or goes on training; `rewards` are functions that settings name."""
    screen = screen or display.Screen()
    if settings.training.deterministic:
        processes.need_deterministic()
    is_first = crossing.place()[0] == 0
    with workdir.locked(folder, is_first=is_first):
        driver = _Driver(settings, folder, rewards or {}, model, screen)
        try:
            if is_first:
                _settle(settings, folder, fork_from, screen)
            return driver.train()
        finally:
            driver.close()


class _Driver:
    """One run, in this process."""

    def __init__(self, settings, folder, rewards, model, screen):
        self.settings, self.folder, self.screen = settings, folder, screen
        self.legs, self.given = legs(settings), model
        self.mesh = sharding.of_axes(settings.training.mesh)
        self.source = runs.find(settings.model) if model is None else None
        self.found = self.source.base if model is None else model
        known = task.make(settings, self.found.spec, self.found.tokenizer)
        grader = Grader(settings.rewards, known.checker, rewards)
        root = prng.root(settings.seed)
        given = settings, self.found.spec, known, grader, self.mesh, root
        self.run = stage.Run(*given)
        # Nothing may begin that could not be carried through.
        self.stages = [KINDS[leg.name](self.run, leg.first) for leg in self.legs]
        self.examiner = None
        if known.held_out:
            self.examiner = evaluate.Examiner(self.run, known.held_out)
        self.values = programs.forward(statistics.values)
        self.pending: Callable[[], None] | None = None
        self.best, self.examined, self.typical = -1.0, {}, 0.0
        self.written = -1  # the step of the last row
        self.kept: checkpoint.Checkpoints | None = None
        self.board: SummaryWriter | None = None
        self.stop = stopping.Stop(settings.keep.notice)
        self.compilations = programs.Compilations()

    def close(self):
        self.stop.close()
        self.screen.close()
        for one in (self.kept, self.board):
            if one is not None:
                one.close()

    def train(self) -> Result:
        keep, tell = self.settings.keep, self.screen.tell
        self.kept = checkpoint.Checkpoints(self.folder / CHECKPOINTS, keep, tell)
        leg, step, state = self._resumed()
        if step == self.legs[-1].last:
            self.screen.tell("the run is finished; with more steps it would go on")
        elif crossing.place()[0] == 0:
            board = str(self.folder / "tensorboard")
            self.board = SummaryWriter(board, purge_step=step + 1)
        self.screen.begin(self.folder, self.run.task, step, self.legs[-1].last)
        while True:
            doing = self.stages[leg.number]
            if step < leg.last:
                folder = self.folder / workdir.SAMPLES
                doing.prepare(state, folder, functools.partial(self._halt, step))
            state = self._through(leg, state, step)
            if leg is self.legs[-1]:
                return self._result(learner.policy(doing.learner, state.learned))
            step, leg = leg.last, self.legs[leg.number + 1]
            params = learner.policy(doing.learner, state.learned)
            state = self._begun(leg, params)

    def _resumed(self) -> tuple[Leg, int, State]:
        """Where the run is."""
        step = self.kept.latest
        if crossing.place()[0] == 0:
            workdir.keep_until(self.metrics, -1 if step is None else step)
        if step is None:
            return self.legs[0], 0, self._begun(self.legs[0], self._params())
        host = self.kept.host(step)
        leg, self.best = self.legs[host["leg"]], host["best"]
        like = learner.abstract(self.stages[leg.number].learner)
        learned = self.kept.load(step, like)
        return leg, step, State(learned, host["carried"])

    @property
    def metrics(self) -> pathlib.Path:
        return self.folder / workdir.METRICS

    def _begun(self, leg: Leg, params: transformer.Params) -> State:
        key = self.run.key(prng.Stream.INIT, leg.number + 1)
        return self.stages[leg.number].begin(params, key)

    def _params(self) -> transformer.Params:
        """Of the model that the run begins with."""
        if self.given is not None:
            return programs.copy(self.given.params)
        key = self.run.key(prng.Stream.INIT, 0)
        dtype = self.settings.model.dtype
        step = runs.step(self.source, "latest", self.screen.tell)
        return runs.read(self.source, dtype, key, self.mesh, step=step).params

    def _through(self, leg: Leg, state: State, step: int) -> State:
        """All steps of a stage that are left."""
        doing, last = self.stages[leg.number], time.perf_counter()
        if step == 0:
            self._write(leg, 0, state, Found({}, {}, {}))
        for number in range(step, leg.last):
            glance = functools.partial(self._glance, last)
            compiled = self.compilations.count
            try:
                with jax.transfer_guard("disallow"):
                    state, found = doing.step(state, number, glance)
            except Exception as error:
                self._save_what_is_there(leg, number, state)
                if isinstance(error, stopping.GivenUp):
                    raise stopping.Stopped(number) from None
                raise
            now, done = time.perf_counter(), number + 1
            found.seconds["step"] = self.typical = now - last
            found.numbers["perf/compiled"] = self.compilations.count - compiled
            last = now
            self.pending = functools.partial(self._write, leg, done, state, found)
            is_asked = self.stop.is_asked(done)
            if is_asked or self._is_examined(leg, done) or self._is_saved(leg, done):
                self._flush()
                self._save(leg, done, state, is_asked)
                last = time.perf_counter()
            if is_asked:
                raise stopping.Stopped(done)
        return state

    def _halt(self, step: int):
        """Stops a stage that prepares: it will go on from where it is."""
        if crossing.place()[1] == 1 and self.stop.is_asked(step):
            raise stopping.Stopped(step)

    def _glance(self, since: float):
        """While a step is under way: what is left of the one before; is there time?"""
        self._flush()
        self.stop.need_time(self.typical - (time.perf_counter() - since))

    def _flush(self):
        write, self.pending = self.pending, None
        if write is not None:
            write()

    def _write(self, leg: Leg, step: int, state: State, found: Found):
        """The row of a step, on disk."""
        row = {"step": step, "stage": leg.name}
        measured = crossing.down(self.values(found.measured)).items()
        row |= {name: float(x) for name, x in measured} | found.numbers
        row |= {f"time/{name}": x for name, x in found.seconds.items()}
        if "samples/tokens" in row:
            row["perf/tokens_per_second"] = row["samples/tokens"] / row["time/step"]
        if self._is_examined(leg, step):
            start = time.perf_counter()
            self.examined = self._examine(leg, state)
            row |= self.examined | {"time/eval": time.perf_counter() - start}
        shows = step % self.settings.keep.samples == 0 or step == leg.last
        table = crossing.listed(found.table()) if shows else []
        if crossing.place()[0] == 0:
            workdir.append(self.metrics, row)
        self.written = step
        if crossing.place()[0] == 0:
            if table:
                path = self.folder / workdir.SAMPLES / f"{step:06}.jsonl"
                workdir.replace(path, "".join(map(workdir.line, table)))
            for name, x in row.items():
                if name not in ("step", "stage") and math.isfinite(x):
                    self.board.add_scalar(name, x, step)
            self.screen.show(row)
            self.screen.answers(table)

    def _is_examined(self, leg: Leg, step: int) -> bool:
        every = self.settings.evaluation.every
        is_border = step in (0, leg.last)
        is_due = is_border or (every is not None and step % every == 0)
        return is_due and self.examiner is not None

    def _examine(self, leg: Leg, state: State) -> dict[str, float]:
        trained = self.stages[leg.number].learner
        params = stage.published(self.run, self.examiner.greedy, trained, state.learned)
        return evaluate.summary(self.examiner.ks, self.examiner.examine(params))

    def _is_saved(self, leg: Leg, step: int) -> bool:
        return step % self.settings.keep.every == 0 or step == leg.last

    def _save(self, leg: Leg, step: int, state: State, is_asked: bool = False):
        """If it is time, or if it is the best so far."""
        accuracy = None
        if self._is_examined(leg, step):
            accuracy = self.examined[ACCURACY]
        is_best = accuracy is not None and accuracy > self.best
        self.best = max(self.best, -1.0 if accuracy is None else accuracy)
        if is_asked or is_best or self._is_saved(leg, step):
            host = {"leg": leg.number, "best": self.best, "carried": state.host}
            self.kept.save(step, state.learned, host, accuracy)

    def _save_what_is_there(self, leg: Leg, step: int, state: State):
        """Of a step that failed: what was before it, if that is still there.

        Of several processes one alone may have failed, and all are needed to save.
        """
        if crossing.place()[1] > 1:
            return
        self._flush()
        is_there = not any(x.is_deleted() for x in jax.tree.leaves(state.learned))
        self.kept.wait()
        has_row = self.written == step  # a checkpoint without it would lose it
        if is_there and has_row and step > 0 and step not in self.kept.steps():
            self._save(leg, step, state, is_asked=True)

    def _result(self, params: transformer.Params) -> Result:
        self.kept.wait()
        rows = list(workdir.rows(self.metrics))
        examined = [row for row in rows if ACCURACY in row]
        if crossing.place()[0] == 0:
            path = self.folder / "figures" / "learning.png"
            self.screen.end(rows, plots.learning(rows, path), self.folder)
        crossing.agreed(0)  # none leaves while the first is still needed
        model = load.Model(
            self.found.spec, params, self.found.tokenizer, self.found.generation
        )
        return Result(self.folder, model, (examined or rows)[-1])


def _settle(settings: config.Config, folder: pathlib.Path, fork_from, screen):
    """Makes the folder that of these settings, or refuses it."""
    if fork_from is not None and not (folder / workdir.CONFIG).exists():
        _fork(fork_from, folder, screen)
    described = {"config": dataclasses.asdict(settings), **_circumstances()}
    # How long, how often examined, what is kept and where: no update changes by that,
    # but for its last bits on other devices.
    on = ("mesh", "parts", "deterministic")
    may_change = ["evaluation.", "keep.", *(f"training.{name}" for name in on)]
    if settings.optimizer.schedule == "constant":
        last = settings.stages[-1]
        may_change.append(f"{'training' if last == 'online' else last}.steps")
    changed = workdir.settle(folder, described, may_change)
    for name, (before, now) in changed.items():
        screen.tell(f"{name} was {before!r}, and is {now!r} from here on")


def _fork(source: pathlib.Path, folder: pathlib.Path, screen: display.Screen):
    """Begins a run where another one is; that one stays as it is."""
    at = source / CHECKPOINTS
    steps = checkpoint.whole(at)
    if not steps:
        raise Refused(f"--fork-from is {source}, where no checkpoint is whole.")
    checkpoint.copy(at, folder / CHECKPOINTS, steps[-1])
    tables = source / workdir.SAMPLES
    if tables.is_dir():
        shutil.copytree(tables, folder / workdir.SAMPLES, dirs_exist_ok=True)
    rows = workdir.rows(source / workdir.METRICS)
    kept = [workdir.line(row) for row in rows if row["step"] <= steps[-1]]
    workdir.replace(folder / workdir.METRICS, "".join(kept))
    screen.tell(f"{folder} goes on from step {steps[-1]} of {source}")


def _circumstances() -> dict[str, Any]:
    """With what the run was made."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {
        "code": workdir.digest(pathlib.Path(__file__).parent),
        "versions": {"grpo_jax": __version__, **versions},
        "python": platform.python_version(),
        "devices": [jax.devices()[0].device_kind, jax.device_count()],
        "processes": jax.process_count(),
    }
