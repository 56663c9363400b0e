"""The settings of rewards: which functions, and what becomes of their faults."""

import dataclasses
from typing import ClassVar, Literal

from grpo_jax.section import Section


@dataclasses.dataclass(frozen=True)
class Rewarding(Section):
    """What a completion is given. Weights are `algorithm.advantage.reward_weights`."""

    path: ClassVar[str] = "rewards"
    # correct, last, format, or an experiment's own; (): the data's own checker
    functions: tuple[str, ...] = ()
    # chain, or an experiment's own: what rewards steps, in process supervision, where
    # the functions only measure
    steps: str | None = None
    overlong: int = 0  # DAPO: over max_new's last so many tokens, up to −1 is added
    truncated: Literal["kept", "dropped"] = "kept"  # rows that max_new cut: learned?
    seconds: float = 10.0  # that one call may take
    workers: int = 4  # calls at once
    most_faults: float = 0.1  # share of a step's calls that may fail; above it stops

    def check(self):
        self.need_positive("seconds", "workers")
        rule = "one function counts once; weights are reward_weights"
        different = len(set(self.functions)) == len(self.functions)
        self.need("functions", different, rule, "Name each once.")
        rule = "a number of tokens is not negative"
        self.need("overlong", self.overlong >= 0, rule, "0: no penalty.")
        inside = 0 <= self.most_faults <= 1
        self.need("most_faults", inside, "it is a share in [0, 1]", "Try 0.1.")
