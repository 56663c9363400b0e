"""The settings of rewards: which functions, and what becomes of their faults."""

import dataclasses
from typing import ClassVar, Literal

from grpo_jax.section import Section

MODEL = "model"  # among the functions: a reward model that was trained here


@dataclasses.dataclass(frozen=True)
class Rewarding(Section):
    """What a completion is given. Weights are `algorithm.advantage.reward_weights`."""

    path: ClassVar[str] = "rewards"
    # correct, last, format, model, which is reward_model.name, or an experiment's own;
    # (): the data's own checker
    functions: tuple[str, ...] = ()
    overlong: int = 0  # DAPO: over max_new's last so many tokens, up to −1 is added
    truncated: Literal["kept", "dropped"] = "kept"  # rows that max_new cut: learned?
    seconds: float = 10.0  # that one call may take
    workers: int = 4  # calls at once
    most_faults: float = 0.1  # share of a step's calls that may fail; above it stops

    @property
    def asks_a_model(self) -> bool:
        return MODEL in self.functions

    def check(self):
        self.need_positive("seconds", "workers")
        rule = "one function counts once; weights are reward_weights"
        different = len(set(self.functions)) == len(self.functions)
        self.need("functions", different, rule, "Name each once.")
        rule = "a number of tokens is not negative"
        self.need("overlong", self.overlong >= 0, rule, "0: no penalty.")
        inside = 0 <= self.most_faults <= 1
        self.need("most_faults", inside, "it is a share in [0, 1]", "Try 0.1.")


@dataclasses.dataclass(frozen=True)
class RewardModel(Section):
    """The reward model that rewards.functions names `model`."""

    path: ClassVar[str] = "reward_model"
    name: str | None = None  # a run whose stage was reward: its folder, or FOLDER@STEP
    # logit: the score as it is, of any size; probability: σ of it, that it is right
    output: Literal["logit", "probability"] = "logit"
    # of one that scores steps, a completion's reward: its last step's score, or its
    # worst step's
    of_steps: Literal["last", "least"] = "last"
    batch_size: int = 16  # groups that each process has scored at once

    def check(self):
        self.need_positive("batch_size")
