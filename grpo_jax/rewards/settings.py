"""The settings of rewards: which functions, what goes with them, what may fail."""

import dataclasses
from typing import ClassVar, Literal

from grpo_jax.section import Section

MODEL = "model"  # among the functions: a reward model that was trained here


@dataclasses.dataclass(frozen=True)
class Rewarding(Section):
    """What a completion is given. Weights are `algorithm.advantage.reward_weights`."""

    path: ClassVar[str] = "rewards"
    # correct, last, format, think, exact, f1, code, model, which is reward_model.name,
    # or an experiment's own; (): the data's own checker
    functions: tuple[str, ...] = ()
    clip: tuple[float, float] | None = None  # what each function gives is kept within
    # chain, model, which is reward_model.name, or an experiment's own: what rewards
    # steps, in process supervision, where the functions only measure
    steps: str | None = None
    overlong: int = 0  # DAPO: over max_new's last so many tokens, up to −1 is added
    repetition: int = 0  # n: of n-grams of tokens, the share that repeats is taken off
    cosine: int = 0  # tokens over which what is added goes from the first to the second
    cosine_right: tuple[float, float] = (1.0, 0.5)  # ... of these, where the answer is
    cosine_wrong: tuple[float, float] = (-1.0, -0.5)  # right: as the first function is
    truncated: Literal["kept", "dropped"] = "kept"  # rows that max_new cut: learned?
    seconds: float = 10.0  # that a call of an own function may take
    workers: int = 4  # calls at once
    most_faults: float = 0.1  # share of a step's calls that may fail; above it stops
    most_unscored: float = 0.5  # share of its samples that may get no reward; as above
    program_seconds: float = 5.0  # that a program may take with all its tests: code
    program_memory: int = 512  # MiB that it may take

    @property
    def asks_a_model(self) -> bool:
        return MODEL in self.functions or self.steps == MODEL

    def check(self):
        self.need_positive("seconds", "workers", "program_seconds", "program_memory")
        rule = "one function counts once; weights are reward_weights"
        different = len(set(self.functions)) == len(self.functions)
        self.need("functions", different, rule, "Name each once.")
        rule = "a number of tokens is not negative"
        for name in ("overlong", "repetition", "cosine"):
            holds = getattr(self, name) >= 0
            self.need(name, holds, rule, "0: nothing is added.")
        reason = f"{self.dotted('cosine')} is 0"
        for name in ("cosine_right", "cosine_wrong"):
            self.need_read(name, self.cosine > 0, reason, "a number of tokens")
        low, high = self.clip or (0.0, 1.0)
        rule = "the first must be below the second"
        self.need("clip", low < high, rule, "None: all as it is.")
        for name in ("most_faults", "most_unscored"):
            inside = 0 <= getattr(self, name) <= 1
            self.need(name, inside, "it is a share in [0, 1]", self._default(name))


@dataclasses.dataclass(frozen=True)
class RewardModel(Section):
    """The reward model that rewards.functions, or rewards.steps, names `model`."""

    path: ClassVar[str] = "reward_model"
    name: str | None = None  # a run whose stage was reward: its folder, or FOLDER@STEP
    # logit: the score as it is, of any size; probability: σ of it, that it is right
    output: Literal["logit", "probability"] = "logit"
    # of one that scores steps, the reward of a whole completion, which is what
    # rewards.functions asks for: its last step's score, or its worst step's
    of_steps: Literal["last", "least"] = "last"
    batch_size: int = 16  # groups that each process has scored at once

    def check(self):
        self.need_positive("batch_size")
