"""The steps of whole groups and what a rule gives each: rewards of process supervision.

As in `grading`, texts go to the rule as soon as they are there. A call that fails
leaves all steps of its sample unscored; one that returns None for some, those. What a
reward model says comes of the devices (see `neural`): here its steps are only cut.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax.data.problem import Problem
from grpo_jax.rewards import calls
from grpo_jax.rewards.settings import MODEL, Rewarding
from grpo_jax.rewards.steps import RULES, Rule
from grpo_jax.section import Refused
from grpo_jax.text import answers, steps
from grpo_jax.text.tokenizer import Tokenizer


class Stepped(NamedTuple):
    """One sample."""

    texts: list[str]
    ends: Int[np.ndarray, "S"]  # the place of each step's last token
    reward: Float[np.ndarray, "S"]  # NaN: could not be scored


class Graded(NamedTuple):
    groups: list[list[Stepped | None]]  # None: that row was not drawn
    faults: list[str]


class StepGrader:
    """Threads that call a run's rule for steps; a model's are unscored here."""

    def __init__(self, settings: Rewarding, own: dict[str, Rule], tokenizer: Tokenizer):
        self.name, known = settings.steps, RULES | own | {MODEL: None}
        if MODEL in own:
            raise Refused(
                f"a rule of your own is called {MODEL!r}, which stands for a reward "
                "model. Give it another name."
            )
        if self.name not in known:
            raise Refused(
                f"rewards.steps is {self.name!r}; algorithm.advantage.supervision is "
                f"'process', and there are rules for steps named {', '.join(known)}. "
                "Choose one. An experiment file's own stand in STEP_REWARDS there."
            )
        rule = {self.name: known[self.name]} if self.name != MODEL else {}
        bounded = RULES.keys() - own.keys()
        self.pool = calls.Pool(rule, settings.workers, settings.seconds, bounded)
        self.splitter = steps.Splitter(tokenizer.decode, tokenizer.size)

    def submit(
        self,
        problem: Problem,
        tokens: Int[np.ndarray, "G C"],
        length: Int[np.ndarray, "G"],
        texts: Sequence[str | None],
        has_ended: Sequence[bool] | Bool[np.ndarray, "G"],
    ) -> list[tuple | None]:
        """Cuts a group into steps, begins to grade them, and returns.

        Our own rules grade the last step of a text that was cut without what may be
        unfinished in it.
        """
        begun: list = []
        for row, n, text, ended in zip(tokens, length, texts, has_ended, strict=True):
            if text is None:
                begun.append(None)
                continue
            found = self.splitter.split(row[:n], text)
            texts_, last = list(found.texts), found.texts[-1]
            whole = [*texts_[:-1], last if ended else answers.whole(last)]
            given, whole = (
                (problem.question, told, problem.answer) for told in (texts_, whole)
            )
            begun.append((found, *self.pool.submit(given, whole)))
        return begun

    def collect(self, groups: Sequence[list]) -> Graded:
        """Waits for what is not done."""
        faults: list[str] = []
        return Graded([[self._of(x, faults) for x in g] for g in groups], faults)

    def _of(self, begun: tuple | None, faults: list[str]) -> Stepped | None:
        if begun is None:
            return None
        (texts, ends), *futures = begun
        read = functools.partial(_numbers, count=len(texts))
        reward = [None] * len(texts)
        for future in futures:  # of a model there is none
            said, fault = self.pool.result(self.name, future, read)
            if fault:
                faults.append(f"{self.name} {fault}")
            else:
                reward = said
        known = [np.nan if x is None else x for x in reward]
        return Stepped(texts, np.array(ends, np.int32), np.array(known, float))


def _numbers(value: Any, count: int) -> tuple[list[float | None] | None, str]:
    """One for each step; or what is wrong with what should be."""
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != count:
        return None, f"returned {str(value)[:80]!r} for {count} steps"
    read = [calls.number(x) for x in value]
    fault = next((fault for _, fault in read if fault), "")
    return [x for x, _ in read], fault
