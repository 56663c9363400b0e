"""How good a policy is on questions that it was not trained on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax import accuracy, asking, crossing, learner, prng, stage
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

    def examine(
        self, params: transformer.Params, meanwhile: Callable[[], None] = lambda: None
    ) -> Examined:
        """By the parameters of stage.published."""
        process, processes = crossing.place()
        own = range(process, len(self.problems), processes)
        each = -(-len(self.problems) // processes)
        blank = np.zeros((each, 4 + 2 * len(self.ks)))
        for start in range(0, len(own), self.settings.batch_size):
            numbers = own[start : start + self.settings.batch_size]
            blank[start : start + len(numbers)], _ = self.batch(
                params, numbers, meanwhile
            )
        found = crossing.gathered(blank).reshape(processes, each, -1)
        found = found.swapaxes(0, 1).reshape(each * processes, -1)
        return examined(found[: len(self.problems)])

    def numbers(
        self,
        trained: learner.Learner,
        learned: learner.State,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Of a policy, in a row of metrics."""
        params = stage.published(self.run, self.greedy, trained, learned)
        return summary(self.ks, self.examine(params, meanwhile))

    @property
    def ks(self) -> list[int]:
        return ks(self.settings.samples)

    def batch(
        self,
        params: transformer.Params,
        numbers: Sequence[int],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> tuple[Float[np.ndarray, "N R"], list[str]]:
        """Of some questions a row each, as `names` has it; and the likeliest answers.

        A row does not depend on the others.
        """
        task = self.run.task
        asked = self._ask(self.greedy, params, numbers, meanwhile)
        rows, texts = [], [text for (text,) in asked.texts]
        for problem, group, text in zip(
            asked.problems, asked.groups, texts, strict=True
        ):
            said = task.said(text)
            right = task.is_right(problem, said)
            rows.append([right, said is not None, group.length[0], group.has_ended[0]])
        found = np.array(rows, float)
        if not self.ks:
            return found, texts
        drawn = self._ask(self.warm, params, numbers, meanwhile)
        more = [
            self._of_samples(problem, texts)
            for problem, texts in zip(drawn.problems, drawn.texts, strict=True)
        ]
        return np.concatenate([found, more], -1, dtype=float), texts

    def _ask(
        self, asker: Asker, params, numbers: Sequence[int], meanwhile
    ) -> asking.Asked:
        problems = [self.problems[i] for i in numbers]
        key = self.run.key(prng.Stream.EVALUATE, 0)
        given = params, problems, numbers, key
        return asking.ask(asker, *given, meanwhile=meanwhile)

    def _of_samples(self, problem: Problem, texts: Sequence[str]) -> list[float]:
        task = self.run.task
        said = [task.said(text) for text in texts]
        is_right = lambda one: task.is_right(problem, one)  # noqa: E731
        right = sum(map(is_right, said))
        passes = [accuracy.pass_at(k, right, len(said)) for k in self.ks]
        return passes + [accuracy.majority_at(k, said, is_right) for k in self.ks]


def ks(samples: int) -> list[int]:
    """1, 2, 4, ... up to the number of samples, and that number."""
    powers = {1 << i for i in range(samples.bit_length())}
    return sorted((powers | {samples}) - {0})


def names(ks: Sequence[int]) -> list[str]:
    """Of what is known of a question, in the order of its row."""
    of_samples = [f"{name}@{k}" for name in ("pass", "maj") for k in ks]
    return ["right", "answered", "length", "ended", *of_samples]


def examined(rows: Float[np.ndarray, "N R"]) -> Examined:
    right, answered, length, ended = rows[:, :4].T
    passes, majorities = np.split(rows[:, 4:], 2, -1)
    known = right > 0, answered > 0, length.astype(int), ended > 0
    return Examined(*known, passes, majorities)


def compared(
    names: Sequence[str],
    ours: Float[np.ndarray, "N R"],
    theirs: Float[np.ndarray, "N R"],
) -> dict[str, float]:
    """Of the same questions: what is gained over others, and how sure that is.

    The interval is of differences question by question, which vary less than answers.
    """
    at = list(names).index("right")
    one, other = ours[:, at] > 0, theirs[:, at] > 0
    out = {
        "only_ours": int((one & ~other).sum()),
        "only_theirs": int((other & ~one).sum()),
    }
    out["mcnemar_p"] = accuracy.mcnemar(one, other)
    for i, name in enumerate(names):
        if name == "right" or "@" in name:
            out[name] = float(theirs[:, i].mean())
            interval = accuracy.bootstrap(ours[:, i] - theirs[:, i], 0)
            out |= _with_interval(f"{name}_gain", interval)
    return out


def summary(ks: Sequence[int], found: Examined) -> dict[str, float]:
    """The numbers of a row of metrics."""
    share = accuracy.wilson(int(found.is_right.sum()), len(found.is_right))
    out = _with_interval("accuracy", share) | {
        "length": found.length.mean(),
        "truncated": 1 - found.has_ended.mean(),
        "format": found.has_answer.mean(),
    }
    for name, values in (("pass", found.passes), ("maj", found.majorities)):
        for k, of_questions in zip(ks, values.T, strict=True):
            interval = accuracy.bootstrap(of_questions, 0)
            out |= _with_interval(f"{name}@{k}", interval)
    return {PREFIX + name: float(x) for name, x in out.items()}


def _with_interval(name: str, interval: accuracy.Interval) -> dict[str, float]:
    keys = name, f"{name}_low", f"{name}_high"
    return dict(zip(keys, interval, strict=True))
