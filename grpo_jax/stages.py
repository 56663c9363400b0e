"""The stages that learn from texts which are there before they begin: SFT, RFT, DPO.

RFT and DPO ask the policy first, as it is when they begin, and keep what they will
learn from in a file: a run that was killed goes on where it was. Kept are the tokens
that were drawn, not their text alone: the text may be cut into other tokens, and ends
in what the policy ended with only where that is written.
"""

import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Key

from grpo_jax import (
    crossing,
    groups,
    learner,
    offline,
    own_answers,
    prng,
    sharding,
    stage,
    task,
)
from grpo_jax.data import problem
from grpo_jax.groups import Group
from grpo_jax.models import transformer
from grpo_jax.section import Refused
from grpo_jax.stage import Found, State


class Offline:
    """Steps over a list of items, in the order of the seed."""

    name: ClassVar[str]

    def __init__(self, run: stage.Run, first: int):
        sharding.own_mesh(run.mesh)  # refused where processes would share a lane
        self.run, self.first = run, first
        self.chosen = getattr(run.settings, self.name)
        self.steps = self.chosen.steps
        self.learner = offline.make(run.spec, run.settings, self.name, run.mesh)
        self.items: Sequence[Any] = ()

    def begin(self, params: transformer.Params, key: Key[Array, ""]) -> State:
        return State(learner.begin(self.learner, params, key), {})

    def step(
        self, state: State, number: int, meanwhile: Callable[[], None]
    ) -> tuple[State, Found]:
        start = time.perf_counter()
        B, count = self.chosen.batch_size, len(self.items)
        process, processes = crossing.place()
        places = range((number - self.first) * B, (number - self.first + 1) * B)
        rows = [problem.row(self.run.settings.seed, i, count) for i in places]
        laid = self.lay([self.items[row] for row in rows[process::processes]])
        learned, measured = self.learn(self.learner, state.learned, laid)
        found = Found(measured, {}, {}, since=start)
        return State(learned, {"items": count}), found

    def lay(self, texts: list[offline.Text]):
        loss_mean = self.chosen.loss_mean
        return offline.lay_texts(self.learner, texts, loss_mean)

    learn = staticmethod(offline.learn_texts)


class SFT(Offline):
    """Demonstrations."""

    name = "sft"

    def __init__(self, run: stage.Run, first: int):
        super().__init__(run, first)
        self.items, long = task.demonstrated(run.task, run.spec.max_length)
        run.task.left_out.extend(long)

    def prepare(
        self, state: State, folder: pathlib.Path, meanwhile: Callable[[], None]
    ):
        """Nothing: demonstrations are there."""

    def lay(self, shown: list[problem.Problem]):
        question, answer = self.run.task.question, self.run.task.answer
        of_one = lambda p: offline.Text(question(p), answer(p.demonstration))  # noqa: E731
        return super().lay(list(map(of_one, shown)))


class OwnAnswers(Offline):
    """Asks the policy before it learns, every question once at most.

    `keep` says what is learned of a group, by the numbers of its samples.
    """

    item: ClassVar[Callable]  # of a question and so many answers

    def prepare(
        self, state: State, folder: pathlib.Path, meanwhile: Callable[[], None]
    ):
        path = folder / f"{self.name}-{self.first}.jsonl"
        count = min(self.chosen.questions, len(self.run.task.train))
        before = len(own_answers.begun(path))
        if state.host and before < count:
            raise Refused(
                f"{path} has {before} of {count} questions. {self.name} began with "
                "all, and the policy that answered them is gone. Put the file back, or "
                "begin anew in another folder."
            )
        run, chosen = self.run, self.chosen
        asker = stage.asker(run, run.settings.sampling, chosen.samples)
        key = run.key(prng.Stream.SAMPLE, self.first)
        at_once = run.settings.training.batch_size
        seed = run.settings.seed
        inquiry = own_answers.Inquiry(run, asker, key, self.row, seed, at_once)
        params = functools.partial(
            stage.published, run, asker, self.learner, state.learned
        )
        rows = own_answers.complete(path, inquiry, range(count), params, meanwhile)
        self.items = [self.item(r["asked"], *kept) for r in rows for kept in r["kept"]]
        if not self.items:
            raise Refused(
                f"{self.name}: of {len(rows)} questions with {self.chosen.samples} "
                "samples each, none gave anything to learn from. Begin with a better "
                f"policy, or raise {self.name}.questions or {self.name}.samples."
            )

    def row(self, group: Group) -> dict[str, Any]:
        """Of equal answers the first. One that did not end, or that could not be
        scored, is none."""
        there = group.answers.length > 0
        reward = groups.reward(self.run.settings, group, there)
        above = self.run.settings.algorithm.advantage.correct_above
        answers, first = group.answers, {}
        for i in np.flatnonzero(answers.has_ended):
            first.setdefault(group.texts[i], int(i))
        right = [i for i in first.values() if reward[i] > above]
        wrong = [i for i in first.values() if reward[i] <= above]  # NaN is neither
        kept = self.keep(right, wrong)
        tokens = [
            row[:n] for row, n in zip(answers.tokens, answers.length, strict=True)
        ]
        return {
            "number": group.question.number,
            "question": group.problem.question,
            "answers": [[group.texts[i] for i in one] for one in kept],
            "asked": list(group.question.tokens),
            "kept": [[tokens[i].tolist() for i in one] for one in kept],
        }


class RFT(OwnAnswers):
    """The different right answers."""

    name, item = "rft", offline.Text

    def keep(self, right: list[int], wrong: list[int]) -> list[tuple[int, ...]]:
        return [(i,) for i in right]


class DPO(OwnAnswers):
    """A right answer and a wrong one, each in one pair alone."""

    name, item = "dpo", offline.Pair

    def keep(self, right: list[int], wrong: list[int]) -> list[tuple[int, ...]]:
        return list(zip(right, wrong, strict=False))

    def lay(self, pairs: list[offline.Pair]):
        return offline.lay_pairs(self.learner, pairs)

    learn = staticmethod(offline.learn_pairs)


KINDS = {kind.name: kind for kind in (SFT, RFT, DPO)}
