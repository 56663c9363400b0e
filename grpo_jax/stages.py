"""The stages that learn from texts which are there before they begin: SFT, RFT, DPO.

RFT and DPO ask the policy first, as it is when they begin, and keep what they will
learn from in a file: a run that was killed goes on where it was, and asks no question
twice.
"""

import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxtyping import Array, Key

from grpo_jax import (
    asking,
    crossing,
    groups,
    learner,
    offline,
    prng,
    stage,
    task,
    workdir,
)
from grpo_jax.data import problem
from grpo_jax.groups import Group
from grpo_jax.models import transformer
from grpo_jax.section import Refused
from grpo_jax.stage import Found, State


class Offline:
    """Steps over a list of texts or pairs, in the order of the seed."""

    def __init__(self, run: stage.Run, first: int, name: str):
        self.run, self.first, self.name = run, first, name
        self.chosen = getattr(run.settings, name)
        self.steps = self.chosen.steps
        self.learner = offline.make(run.spec, run.settings, name, run.mesh)
        self.items: Sequence[Any] = ()

    def begin(self, params: transformer.Params, key: Key[Array, ""]) -> State:
        return State(learner.begin(self.learner, params, key), {})

    def prepare(self, state: State, folder: pathlib.Path):
        """Finds what is to be learned. `state` is that of the stage's first step, or
        of a later one, if all was found before."""
        demonstrated = task.demonstrated(self.run.task)
        self.items = [self.text(p, p.demonstration) for p in demonstrated]

    def step(
        self, state: State, number: int, meanwhile: Callable[[], None]
    ) -> tuple[State, Found]:
        start = time.perf_counter()
        meanwhile()
        B, count = self.chosen.batch_size, len(self.items)
        process, processes = crossing.place()
        places = range((number - self.first) * B, (number - self.first + 1) * B)
        rows = [problem.row(self.run.settings.seed, i, count) for i in places]
        batch = [self.items[row] for row in rows[process::processes]]
        learned, measured = self.learn(state.learned, batch)
        seconds = {"learn": time.perf_counter() - start}
        return State(learned, {}), Found(measured, {}, seconds)

    def learn(self, state: learner.State, batch: list[offline.Text]):
        loss_mean = self.chosen.loss_mean
        return offline.learn_texts(self.learner, state, batch, loss_mean)

    def text(self, asked: problem.Problem, told: str) -> offline.Text:
        known = self.run.task
        return offline.Text(known.question(asked), known.answer(told))


class OwnAnswers(Offline):
    """Asks the policy before it learns; `keep` says what of a group is learned."""

    def prepare(self, state: State, folder: pathlib.Path):
        path = folder / f"{self.name}-{self.first}.jsonl"
        rows = list(workdir.rows(path))
        if crossing.place()[0] == 0:
            workdir.replace(path, "".join(map(workdir.line, rows)))
        for group in self.asked(state, len(rows)):
            rows.append({"kept": self.keep(group)})
            if crossing.place()[0] == 0:
                workdir.append(path, rows[-1])
        self.items = [self.item(*one) for row in rows for one in row["kept"]]
        if not self.items:
            raise Refused(
                f"{self.name}: of {len(rows)} questions with {self.chosen.samples} "
                "samples each, none gave anything to learn from. Begin with a better "
                f"policy, or raise {self.name}.questions."
            )

    def asked(self, state: State, done: int) -> Iterator[Group]:
        """The groups that are not in the file yet."""
        run, chosen = self.run, self.chosen
        if done >= chosen.questions:
            return
        asker = stage.asker(run, run.settings.sampling, chosen.samples)
        params = stage.published(run, asker, self.learner, state.learned)
        key = run.key(prng.Stream.SAMPLE, self.first)
        at_once = run.settings.training.batch_size
        for first in range(done, chosen.questions, at_once):
            numbers = range(first, min(first + at_once, chosen.questions))
            problems = [run.task.problem(run.settings.seed, i) for i in numbers]
            yield from groups.of(asking.ask(asker, params, problems, numbers, key))

    def right(self, group: Group) -> Iterator[tuple[str, bool]]:
        """The different answers of a group, and whether each is right."""
        reward = groups.total(self.run.settings, group.parts)
        is_right = reward > self.run.settings.algorithm.advantage.correct_above
        ended = group.answers.has_ended
        of_text = {}
        for i, text in enumerate(group.texts):
            if ended[i]:
                of_text.setdefault(text, bool(is_right[i]))
        yield from of_text.items()


class RFT(OwnAnswers):
    """The different right answers."""

    def keep(self, group: Group) -> list[tuple[str, ...]]:
        asked = group.problem.question
        return [(asked, text) for text, is_right in self.right(group) if is_right]

    def item(self, asked: str, told: str) -> offline.Text:
        return self.text(problem.Problem(asked, None), told)


class DPO(OwnAnswers):
    """A right answer and a wrong one, each in one pair alone."""

    def keep(self, group: Group) -> list[tuple[str, ...]]:
        found = list(self.right(group))
        better = [text for text, is_right in found if is_right]
        worse = [text for text, is_right in found if not is_right]
        asked = group.problem.question
        return [(asked, *both) for both in zip(better, worse, strict=False)]

    def item(self, asked: str, better: str, worse: str) -> offline.Pair:
        told = self.run.task.answer
        question = self.run.task.question(problem.Problem(asked, None))
        return offline.Pair(question, told(better), told(worse))

    def learn(self, state: learner.State, batch: list[offline.Pair]):
        return offline.learn_pairs(self.learner, state, batch)


KINDS = {
    "sft": functools.partial(Offline, name="sft"),
    "rft": functools.partial(RFT, name="rft"),
    "dpo": functools.partial(DPO, name="dpo"),
}
