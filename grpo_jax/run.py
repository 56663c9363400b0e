"""A run from its first step to its last, however often it is stopped in between.

    result = run.train(settings, folder)

A run is a list of stages with one count of steps. Row k of the metrics, and the
checkpoint of step k behind it, are written while step k + 1 is under way. Started
again in the same folder, a run goes on from its last whole checkpoint, and what it
writes from there on is what it would have written.
"""

import functools
import math
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from tensorboardX import SummaryWriter

from grpo_jax import (
    beginning,
    checkpoint,
    config,
    crossing,
    display,
    evaluate,
    hacking,
    labels,
    learner,
    plots,
    prng,
    processes,
    programs,
    reward_stage,
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
from grpo_jax.rewards.steps import Rule
from grpo_jax.rewards.stepwise import StepGrader
from grpo_jax.section import Refused
from grpo_jax.stage import Found, State

KINDS = stages.KINDS | {"online": trainer.Online, "reward": reward_stage.Reward}
ACCURACY = evaluate.PREFIX + "accuracy"


class Result(NamedTuple):
    folder: pathlib.Path
    model: load.Model  # as it is after the last step
    metrics: dict[str, float]  # of the last evaluation


def train(
    settings: config.Config,
    folder: pathlib.Path | str = "runs/train",
    *,
    rewards: dict[str, Reward] | None = None,
    step_rewards: dict[str, Rule] | None = None,
    model: load.Model | None = None,
    fork_from: pathlib.Path | None = None,
    screen: display.Screen | None = None,
    stop: stopping.Stop | None = None,
) -> Result:
    """Trains, or goes on training; rewards are functions that settings name.

    One run alone: `iterative.train` makes several, where settings call for them.
    """
    if settings.makes_several:
        raise Refused(
            f"stages are {', '.join(settings.stages)} and iterative.rounds is "
            f"{settings.iterative.rounds}, which takes several runs. Call "
            "grpo_jax.train, which makes them."
        )
    programs.keep()
    folder, screen = pathlib.Path(folder), screen or display.Screen()
    if settings.training.deterministic:
        processes.need_deterministic()
    is_first = crossing.place()[0] == 0
    with workdir.locked(folder, is_first=is_first):
        own = rewards or {}, step_rewards or {}
        driver = _Driver(settings, folder, *own, model, screen, stop)
        try:
            if is_first:
                beginning.settle(
                    settings,
                    folder,
                    fork_from,
                    driver.fitting,
                    screen.tell,
                    problems=driver.run.task.digest,
                    is_given=model is not None,
                    judged_by=driver.judged_by,
                )
            return driver.train()
        finally:
            driver.close()


class _Driver:
    """One run, in this process."""

    def __init__(self, settings, folder, rewards, step_rewards, model, screen, stop):
        self.settings, self.folder, self.screen = settings, folder, screen
        self.legs, self.given = beginning.legs(settings), model
        self.mesh = sharding.of_axes(settings.training.mesh)
        self.source = None
        if model is None:
            self.source = runs.find(settings.model, _begins_with(settings))
        self.found = self.source.base if model is None else model
        self.is_policy = "reward" not in settings.stages
        data = task if self.is_policy else labels
        known = data.make(settings, self.found.spec, self.found.tokenizer)
        task.need_answers(settings, known)
        grader = Grader(settings.rewards, known.checker, rewards)
        root = prng.root(settings.seed)
        by_step = None
        if settings.algorithm.advantage.supervision == "process":
            by_step = StepGrader(settings.rewards, step_rewards, known.tokenizer)
        given = settings, self.found.spec, known, grader, self.mesh, root
        self.run = stage.Run(*given, by_step)
        # Nothing may begin that could not be carried through.
        self.stages = [KINDS[leg.name](self.run, leg.first) for leg in self.legs]
        examining = evaluate if self.is_policy else reward_stage
        self.examiner = examining.Examiners(self.run)
        self.values = programs.forward(statistics.values)
        self.pending: Callable[[], None] | None = None
        self.best, self.examined, self.typical = -1.0, {}, 0.0
        self.examining, self.gave_up = float("inf"), False  # seconds; the last one?
        self.written = -1  # the step of the last row
        self.past: list[hacking.Row] = []  # of the rows up to there
        self.kept: checkpoint.Checkpoints | None = None
        self.board: SummaryWriter | None = None
        self.stop = stop or stopping.Stop(settings.keep.notice)
        self.owns_stop = stop is None
        self.compilations = programs.Compilations()

    @property
    def judged_by(self) -> str | None:
        """The weights of the reward model that is asked, if one is."""
        online = (one for one in self.stages if isinstance(one, trainer.Online))
        return next((x.model.identity for x in online if x.model is not None), None)

    def close(self):
        if self.owns_stop:
            self.stop.close()
        self.screen.close()
        for one in (self.kept, self.board):
            if one is not None:
                one.close()

    def train(self) -> Result:
        keep, tell = self.settings.keep, self.screen.tell
        self.kept = checkpoint.Checkpoints(
            self.folder / workdir.CHECKPOINTS, keep, tell
        )
        leg, step, state = self._resumed()
        is_finished = step == self.legs[-1].last
        if is_finished:
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
                params = learner.policy(doing.learner, state.learned)
                return self._result(params, is_new=not is_finished)
            step, leg = leg.last, self.legs[leg.number + 1]
            params = learner.policy(doing.learner, state.learned)
            state = self._begun(leg, params)

    def _resumed(self) -> tuple[beginning.Leg, int, State]:
        """Where the run is."""
        step = self.kept.latest
        if crossing.place()[0] == 0:
            since = beginning.judged_since(self.folder, step)
            workdir.keep_until(self.metrics, -1 if step is None else step)
            self.past = hacking.past(workdir.rows(self.metrics), since)
        if step is None:
            return self.legs[0], 0, self._begun(self.legs[0], self._params())
        leg, host, like = self.fitting(self.kept, step)
        self.best = host["best"]
        state = State(self.kept.load(step, like), host["carried"])
        if not host["examined"]:
            self._examine_late(leg, step, state)
        return leg, step, state

    def fitting(self, kept: checkpoint.Checkpoints, step: int):
        """Where a checkpoint is in this run, and what it carries; refused if it is of
        another."""
        host = kept.host(step)
        leg = beginning.leg(self.legs, step, host["stage"], host["first"])
        like = learner.abstract(self.stages[leg.number].learner)
        kept.need_alike(step, like)
        return leg, host, like

    @property
    def metrics(self) -> pathlib.Path:
        return self.folder / workdir.METRICS

    def _begun(self, leg: beginning.Leg, params: transformer.Params) -> State:
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

    def _through(self, leg: beginning.Leg, state: State, step: int) -> State:
        """All steps of a stage that are left."""
        doing, last = self.stages[leg.number], time.perf_counter()
        if step == 0:
            self._write(leg, 0, state, Found({}, {}, {}))
            if self.gave_up:
                raise stopping.Stopped(0)
        for number in range(step, leg.last):
            glance = functools.partial(self._glance, last)
            compiled = self.compilations.count
            try:
                self.stop.need_time(self.typical + self.kept.seconds)
                with jax.transfer_guard("disallow"):
                    state, found = doing.step(state, number, glance)
            except Exception as error:
                self._save_what_is_there(leg, number, state)
                if isinstance(error, stopping.GivenUp):
                    raise stopping.Stopped(number) from None
                raise
            self._flush()  # the devices have work: so there is time
            now, done = time.perf_counter(), number + 1
            found.seconds["step"] = self.typical = now - last
            found.numbers["perf/compiled"] = self.compilations.count - compiled
            last = now
            self.pending = functools.partial(self._write, leg, done, state, found)
            is_asked = self.stop.is_asked()
            if is_asked or self._is_examined(leg, done) or self._is_saved(leg, done):
                self._flush()
                is_asked = is_asked or self.gave_up
                self._save(leg, done, state, is_asked)
                last = time.perf_counter()
            if is_asked:
                raise stopping.Stopped(done)
        return state

    def _halt(self, step: int):
        """Stops a stage that prepares: it will go on from where it is."""
        if crossing.place()[1] == 1 and self.stop.is_asked():
            raise stopping.Stopped(step)

    def _glance(self, since: float):
        """While a step is under way: what is left of the one before; is there time?"""
        self._flush()
        left = self.typical - (time.perf_counter() - since)
        self.stop.need_time(max(left, 0.0) + self.kept.seconds)

    def _flush(self):
        write, self.pending = self.pending, None
        if write is not None:
            write()

    def _write(self, leg: beginning.Leg, step: int, state: State, found: Found):
        """The row of a step, on disk."""
        row = {"step": step, "stage": leg.name}
        measured = crossing.down(self.values(found.measured)).items()
        row |= {name: float(x) for name, x in measured} | found.numbers
        row |= {f"time/{name}": x for name, x in found.seconds.items()}
        if found.since is not None:
            row["time/learn"] = time.perf_counter() - found.since
        if "samples/tokens" in row:
            row["perf/tokens_per_second"] = row["samples/tokens"] / row["time/step"]
        if self._is_examined(leg, step):
            row |= self._examine(leg, state)
        shows = step % self.settings.keep.samples == 0 or step == leg.last
        table = crossing.listed(found.table()) if shows else []
        if crossing.place()[0] == 0:
            more, warning = hacking.look(self.past, row)
            row |= more
            workdir.append(self.metrics, row)
            self.past.append(hacking.read(row))
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
            if warning is not None:
                self.screen.warn(f"step {step}: {warning}")

    def _is_examined(self, leg: beginning.Leg, step: int) -> bool:
        every = self.settings.evaluation.every
        is_border = step in (0, leg.last)
        is_due = is_border or (every is not None and step % every == 0)
        return is_due and bool(self.examiner)

    def _examine(self, leg: beginning.Leg, state: State) -> dict[str, float]:
        """What is found; nothing, if it was given up for lack of time."""
        trained, start = self.stages[leg.number].learner, time.perf_counter()

        def glance():
            self.stop.need_time(self.examining - (time.perf_counter() - start))

        try:
            found = self.examiner.numbers(trained, state.learned, glance)
        except stopping.GivenUp:
            self.gave_up = True
            return {}
        self.examining, self.gave_up = time.perf_counter() - start, False
        self.examined = found
        return self.examined | {"time/eval": self.examining}

    def _examine_late(self, leg: beginning.Leg, step: int, state: State):
        """A step whose examination was given up gets what its row lacks."""
        found = self._examine(leg, state)
        if self.gave_up:
            raise stopping.Stopped(step)
        if crossing.place()[0] == 0:
            *before, last = workdir.rows(self.metrics)
            lines = map(workdir.line, [*before, last | found])
            workdir.replace(self.metrics, "".join(lines))
        self._save(leg, step, state, is_asked=True, again=True)

    def _is_saved(self, leg: beginning.Leg, step: int) -> bool:
        return step % self.settings.keep.every == 0 or step == leg.last

    def _save(
        self, leg: beginning.Leg, step: int, state: State, is_asked: bool, again=False
    ):
        """If it is time, or if it is the best so far."""
        accuracy = None
        if self._is_examined(leg, step) and not self.gave_up:
            accuracy = self.examined.get(ACCURACY)
        is_best = accuracy is not None and accuracy > self.best
        self.best = max(self.best, -1.0 if accuracy is None else accuracy)
        if is_asked or is_best or self._is_saved(leg, step):
            host = {"stage": leg.name, "first": leg.first, "best": self.best}
            host |= {"carried": state.host, "examined": int(not self.gave_up)}
            self.kept.save(step, state.learned, host, accuracy, again=again)

    def _save_what_is_there(self, leg: beginning.Leg, step: int, state: State):
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

    def _result(self, params: transformer.Params, *, is_new: bool) -> Result:
        self.kept.wait()
        rows = list(workdir.rows(self.metrics))
        examined = [row for row in rows if ACCURACY in row]
        if crossing.place()[0] == 0:
            path = self.folder / "figures" / "learning.png"
            if is_new or not path.exists():
                plots.learning(rows, path)
            can_answer = self.given is None and self.is_policy
            can_be_right = can_answer and self.run.task.has_answers
            self.screen.end(rows, path, self.folder if can_be_right else None)
        crossing.agreed(0)  # none leaves while the first is still needed
        model = load.Model(
            self.found.spec, params, self.found.tokenizer, self.found.generation
        )
        return Result(self.folder, model, (examined or rows)[-1])


def _begins_with(settings: config.Config) -> runs.Kind:
    """What a run's model may be: a reward model goes on from either."""
    return "either" if "reward" in settings.stages else "policy"
