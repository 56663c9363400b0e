"""The rewards of whole groups: texts go to the functions as soon as they are there."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from grpo_jax.data.problem import Problem
from grpo_jax.rewards import calls, rules
from grpo_jax.rewards.settings import MODEL, Rewarding
from grpo_jax.section import Refused


class Graded(NamedTuple):
    parts: Float[np.ndarray, "B G R"]  # NaN: could not be scored
    faults: list[str]


class Grader:
    """Threads that call a run's reward functions."""

    def __init__(self, settings: Rewarding, checker: str, own: dict[str, calls.Reward]):
        self.names = settings.functions or (checker,)
        if MODEL in own:
            raise Refused(
                f"a reward function of your own is called {MODEL!r}, which stands for "
                "a reward model. Give it another name."
            )
        known = rules.RULES | own | {MODEL: None}
        unknown = [name for name in self.names if name not in known]
        if unknown:
            raise Refused(
                f"rewards.functions names {', '.join(unknown)}; there are "
                f"{', '.join(known)}. An experiment file's own stand in REWARDS there."
            )
        functions = {name: known[name] for name in self.names if name != MODEL}
        self.columns = [i for i, name in enumerate(self.names) if name != MODEL]
        self.pool = calls.Pool(functions, settings.workers, settings.seconds)

    def submit(self, problem: Problem, texts: Sequence[str | None]) -> list:
        """Begins to grade a group, and returns at once; None: there is no such row."""
        return [
            None
            if text is None
            else self.pool.submit(calls.Sample(problem.question, text, problem.answer))
            for text in texts
        ]

    def collect(self, groups: Sequence[list]) -> Graded:
        """Of groups of one size; waits for what is not done. A model's column is empty:
        what it says comes of the devices (see `neural`)."""
        parts = np.full((len(groups), len(groups[0]), len(self.names)), np.nan)
        faults = []
        for at in np.ndindex(parts.shape[:2]):
            begun = groups[at[0]][at[1]]
            if begun is not None:
                parts[at][self.columns], more = self.pool.collect(begun)
                faults += more
        return Graded(parts, faults)
