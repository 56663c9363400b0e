"""The rewards of whole groups: texts go to the functions as soon as they are there."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from grpo_jax import hacking
from grpo_jax.data.problem import Problem
from grpo_jax.rewards import calls, code, rules
from grpo_jax.rewards.settings import MODEL, Rewarding
from grpo_jax.section import Refused
from grpo_jax.text import answers


class Graded(NamedTuple):
    parts: Float[np.ndarray, "B G R"]  # NaN: could not be scored
    faults: list[str]
    # Where a model gives rewards: what the data's own checker says, which is no reward.
    right: Float[np.ndarray, "B G"] | None = None


class Grader:
    """Threads that call a run's reward functions."""

    def __init__(
        self,
        settings: Rewarding,
        checker: str | None,  # the data's own; None: they say of nothing what is right
        own: dict[str, calls.Reward],
    ):
        self.names = settings.functions or (checker,)
        if MODEL in own:
            raise Refused(
                f"a reward function of your own is called {MODEL!r}, which stands for "
                "a reward model. Give it another name."
            )
        runs = functools.partial(
            code.passes,
            seconds=settings.program_seconds,
            mebibytes=settings.program_memory,
        )
        ours = rules.RULES | {"code": runs}
        known = ours | own | {MODEL: None}
        unknown = [name for name in self.names if name not in known]
        if unknown:
            raise Refused(
                f"rewards.functions names {', '.join(unknown)}; there are "
                f"{', '.join(known)}. An experiment file's own stand in REWARDS there."
            )
        functions = {name: known[name] for name in self.names if name != MODEL}
        self.columns = [i for i, name in enumerate(self.names) if name != MODEL]
        self.judge: int | None = None  # which of the functions says what is right
        if settings.asks_a_model and checker is not None:
            is_there = checker in functions and checker not in own
            if not is_there:
                functions[hacking.RIGHT] = ours[checker]
            name = checker if is_there else hacking.RIGHT
            self.judge = list(functions).index(name)
        if runs in functions.values():
            code.need_jail()
        self.calls = len(functions) + (MODEL in self.names)  # for each sample
        bounded = ours.keys() - own.keys() | {hacking.RIGHT}
        self.pool = calls.Pool(functions, settings.workers, settings.seconds, bounded)

    def submit(
        self,
        problem: Problem,
        texts: Sequence[str | None],
        has_ended: Sequence[bool] | Bool[np.ndarray, "G"],
    ) -> list:
        """Begins to grade a group, and returns at once; None: there is no such row.

        Our own rules grade a text that was cut without what may be unfinished in it.
        """
        begun: list = []
        for text, ended in zip(texts, has_ended, strict=True):
            if text is None:
                begun.append(None)
                continue
            sample = calls.Sample(problem.question, text, problem.answer)
            whole = text if ended else answers.whole(text)
            begun.append(self.pool.submit(sample, sample._replace(completion=whole)))
        return begun

    def collect(self, groups: Sequence[list]) -> Graded:
        """Of groups of one size; waits for what is not done. A model's column is empty:
        what it says comes of the devices (see `neural`)."""
        shape = len(groups), len(groups[0])
        parts, right = (
            np.full((*shape, len(self.names)), np.nan),
            np.full(shape, np.nan),
        )
        faults = []
        for at in np.ndindex(shape):
            begun = groups[at[0]][at[1]]
            if begun is not None:
                said, more = self.pool.collect(begun)
                parts[at][self.columns] = said[: len(self.columns)]
                right[at] = np.nan if self.judge is None else said[self.judge]
                faults += more
        return Graded(parts, faults, None if self.judge is None else right)
