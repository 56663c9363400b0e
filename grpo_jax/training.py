"""The settings of training: optimizer, reference policy, critic, and how long."""

import dataclasses
from typing import ClassVar, Literal

from grpo_jax.section import Section


@dataclasses.dataclass(frozen=True)
class Optimizer(Section):
    """How gradients become steps. An update is one step of the optimizer."""

    path: ClassVar[str] = "optimizer"
    name: Literal["adamw", "adafactor", "lion", "sgd"] = "adamw"
    learning_rate: float = 1e-6  # the highest that the schedule comes to
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up
    warmup: int = 0  # updates until the learning rate is reached, in equal steps
    final_rate: float = 0.0  # of the last update, as a share of learning_rate
    b1: float = 0.9  # decay of the mean of gradients
    b2: float = 0.999  # decay of the mean of their squares; of lion's mean itself
    eps: float = 1e-8  # added to the root of the mean square
    momentum: float = 0.0  # of sgd
    weight_decay: float = 0.0  # of matrices; norms and biases never decay
    clip_norm: float | None = 1.0  # longest gradient, over all parameters; None: any
    most_skips: int = 10  # updates in a row without a finite gradient, then it stops
    read_by: ClassVar = {
        "final_rate": ("schedule", {"linear", "cosine"}),
        "b1": ("name", {"adamw", "lion"}),
        "b2": ("name", {"adamw", "lion"}),
        "eps": ("name", {"adamw"}),
        "momentum": ("name", {"sgd"}),
    }

    def check(self):
        self.need_positive("learning_rate", "eps", "clip_norm", "most_skips")
        for name in ("warmup", "weight_decay"):
            holds = getattr(self, name) >= 0
            self.need(name, holds, "it must not be negative", self._default(name))
        for name in ("b1", "b2", "momentum"):
            inside = 0 <= getattr(self, name) < 1
            self.need(name, inside, "it must lie in [0, 1)", self._default(name))
        inside = 0 <= self.final_rate <= 1
        self.need("final_rate", inside, "it is a share in [0, 1]", "0: none is left.")


@dataclasses.dataclass(frozen=True)
class Training(Section):
    """How long, and on how much."""

    path: ClassVar[str] = "training"
    steps: int = 100  # rollouts; each is used algorithm.mu times
    batch_size: int = 8  # B: questions per rollout
    parts: int = 1  # of an update, computed one after another to save memory

    def check(self):
        self.need_positive("steps", "batch_size", "parts")


@dataclasses.dataclass(frozen=True)
class Reference(Section):
    """The policy that the KL is taken to: the model that the run began with.

    With adapters it is the model without them, and nothing is held.
    """

    path: ClassVar[str] = "reference"
    held: Literal["device", "host"] = "device"  # host: on the devices while it scores
    every: int | None = None  # steps after which it follows the policy; None: never
    mix: float = 1.0  # the policy's share in it then; 1: the policy itself

    def check(self):
        self.need_positive("every")
        inside = 0 < self.mix <= 1
        self.need("mix", inside, "it is a share in (0, 1]", self._default("mix"))
        reason = f"{self.dotted('every')} is None: the reference stays as it is"
        self.need_read("mix", self.every is not None, reason, "a number of steps")


@dataclasses.dataclass(frozen=True)
class Critic(Section):
    """PPO's value function: one number for each token, from a head on a trunk."""

    path: ClassVar[str] = "critic"
    trunk: Literal["own", "shared"] = "own"  # own: another copy of the model
    learning_rate: float = 1e-5  # of its own trunk; all else is the optimizer's
    weight: float = 0.1  # of its loss, on a trunk that it shares with the policy
    clip: float = 0.2  # a value counts as moved by at most that in one rollout
    read_by: ClassVar = {
        "learning_rate": ("trunk", {"own"}),
        "weight": ("trunk", {"shared"}),
    }

    def check(self):
        self.need_positive("learning_rate", "weight", "clip")
