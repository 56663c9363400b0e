"""How good a policy is on questions that it was not trained on."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax import accuracy, asking, crossing, prng, stage
from grpo_jax.asking import Asker
from grpo_jax.data.problem import Problem
from grpo_jax.models import transformer

PREFIX = "eval/"


class Examined(NamedTuple):
    """What was answered to each question, in their order: [N], and samples [N, n]."""

    is_right: Bool[np.ndarray, "N"]  # the likeliest answer
    has_answer: Bool[np.ndarray, "N"]
    length: Int[np.ndarray, "N"]
    has_ended: Bool[np.ndarray, "N"]
    passes: Float[np.ndarray, "N K"]  # pass@k of the samples, for each k
    majorities: Float[np.ndarray, "N K"]


class Examiner:
    """Asks the same questions each time, and draws the same way."""

    def __init__(self, run: stage.Run, problems: Sequence[Problem]):
        chosen, sampling = run.settings.evaluation, run.settings.sampling
        self.run, self.settings = run, chosen
        self.problems = problems[: chosen.questions]
        self.greedy = stage.asker(run, stage.greedily(sampling), 1)
        if chosen.samples:
            warm = dataclasses.replace(sampling, temperature=chosen.temperature)
            self.warm = stage.asker(run, warm, chosen.samples)

    def examine(self, params: transformer.Params) -> Examined:
        """By the parameters of stage.published."""
        process, processes = crossing.place()
        own = range(process, len(self.problems), processes)
        each = -(-len(self.problems) // processes)
        blank = np.zeros((each, 4 + 2 * len(self.ks)))
        for start in range(0, len(own), self.settings.batch_size):
            numbers = own[start : start + self.settings.batch_size]
            blank[start : start + len(numbers)] = self._batch(params, numbers)
        found = crossing.gathered(blank).reshape(processes, each, -1)
        found = found.swapaxes(0, 1).reshape(each * processes, -1)
        found = found[: len(self.problems)]
        right, answered, length, ended = found[:, :4].T
        K = len(self.ks)
        return Examined(
            right > 0,
            answered > 0,
            length.astype(int),
            ended > 0,
            found[:, 4 : 4 + K],
            found[:, 4 + K :],
        )

    @property
    def ks(self) -> list[int]:
        """1, 2, 4, ... up to the number of samples, and that number."""
        n = self.settings.samples
        return sorted({1 << i for i in range(n.bit_length()) if n} | ({n} - {0}))

    def _batch(self, params, numbers: Sequence[int]) -> np.ndarray:
        task = self.run.task
        asked = self._ask(self.greedy, params, numbers)
        rows = []
        for problem, group, (text,) in zip(
            asked.problems, asked.groups, asked.texts, strict=True
        ):
            said = task.said(text)
            right = task.is_right(problem, said)
            rows.append([right, said is not None, group.length[0], group.has_ended[0]])
        if not self.ks:
            return np.array(rows, float)
        drawn = self._ask(self.warm, params, numbers)
        more = [
            self._of_samples(problem, texts)
            for problem, texts in zip(drawn.problems, drawn.texts, strict=True)
        ]
        return np.concatenate([rows, more], -1, dtype=float)

    def _ask(self, asker: Asker, params, numbers: Sequence[int]) -> asking.Asked:
        problems = [self.problems[i] for i in numbers]
        key = self.run.key(prng.Stream.EVALUATE, 0)
        return asking.ask(asker, params, problems, numbers, key)

    def _of_samples(self, problem: Problem, texts: Sequence[str]) -> list[float]:
        task = self.run.task
        said = [task.said(text) for text in texts]
        is_right = lambda one: task.is_right(problem, one)  # noqa: E731
        right = sum(map(is_right, said))
        passes = [accuracy.pass_at(k, right, len(said)) for k in self.ks]
        return passes + [accuracy.majority_at(k, said, is_right) for k in self.ks]


def summary(ks: Sequence[int], found: Examined) -> dict[str, float]:
    """The numbers of a row of metrics."""
    share = accuracy.wilson(int(found.is_right.sum()), len(found.is_right))
    out = {
        "accuracy": share.value,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "length": found.length.mean(),
        "truncated": 1 - found.has_ended.mean(),
        "format": found.has_answer.mean(),
    }
    for name, values in (("pass", found.passes), ("maj", found.majorities)):
        for k, of_questions in zip(ks, values.T, strict=True):
            interval = accuracy.bootstrap(of_questions, 0)
            for suffix, x in zip(("", "_low", "_high"), interval, strict=True):
                out[f"{name}@{k}{suffix}"] = x
    return {PREFIX + name: float(x) for name, x in out.items()}
