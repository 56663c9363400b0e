"""The settings of training: how long, on what, towards what, and what is kept."""

import dataclasses
from typing import ClassVar, Literal

from grpo_jax.section import Section


@dataclasses.dataclass(frozen=True)
class Optimizer(Section):
    """How gradients become steps. An update is one step of the optimizer."""

    path: ClassVar[str] = "optimizer"
    name: Literal["adamw", "adafactor", "lion", "sgd"] = "adamw"  # the rule of a step
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
    """How long, on how much, and on which devices."""

    path: ClassVar[str] = "training"
    steps: int = 100  # rollouts; each is used algorithm.mu times
    batch_size: int = 8  # B: questions per rollout
    parts: int = 1  # of an update, computed one after another to save memory
    mesh: tuple[int, int, int] | None = None  # data, fsdp, model; None: all are fsdp
    packed: bool = True  # short completions share a row; False: one shape, full rows
    deterministic: bool = False  # GPUs add in one order, slower; CPUs and TPUs always

    def check(self):
        self.need_positive("steps", "batch_size", "parts")
        some = self.mesh is None or min(self.mesh) > 0
        self.need("mesh", some, "each axis has at least one device", "Try 1 1 1.")


@dataclasses.dataclass(frozen=True)
class Groups(Section):
    """Which groups a step is made of, and how many samples a question gets."""

    path: ClassVar[str] = "groups"
    mixed: bool = False  # DAPO: only groups whose rewards differ, drawn until enough
    rounds: int = 4  # of batch_size questions each, at most, for one step's groups
    # neyman: more samples for a question of which one knows less (see `allocation`)
    allocation: Literal["equal", "neyman"] = "equal"
    mean: int = 8  # samples of a question on average; algorithm.group_size: at most
    least: int = 2  # samples of any question
    read_by: ClassVar = {
        "rounds": ("mixed", {True}),
        "mean": ("allocation", {"neyman"}),
        "least": ("allocation", {"neyman"}),
    }

    def check(self):
        self.need_positive("rounds", "mean", "least")
        rule = f"it must be at least {self.dotted('least')}, {self.least}"
        self.need("mean", self.mean >= self.least, rule, "Raise it.")


TextMean = Literal["per_sequence", "per_token"]


@dataclasses.dataclass(frozen=True)
class SFT(Section):
    """The stage that learns from demonstrations."""

    path: ClassVar[str] = "sft"
    steps: int = 100  # updates
    batch_size: int = 32  # demonstrations per update
    learning_rate: float = 1e-5  # all else is the optimizer's
    loss_mean: TextMean = "per_sequence"  # each text counts alike, or each token

    def check(self):
        self.need_positive("steps", "batch_size", "learning_rate")


@dataclasses.dataclass(frozen=True)
class RFT(SFT):
    """The stage that learns from the policy's own right answers, drawn before it."""

    path: ClassVar[str] = "rft"
    questions: int = 256  # that are asked, each once at most
    samples: int = 8  # of each; the different ones that are right are kept

    def check(self):
        super().check()
        self.need_positive("questions", "samples")


@dataclasses.dataclass(frozen=True)
class DPO(Section):
    """The stage that learns from pairs of the policy's answers, drawn before it."""

    path: ClassVar[str] = "dpo"
    steps: int = 100  # updates
    batch_size: int = 16  # pairs per update
    learning_rate: float = 1e-6  # all else is the optimizer's
    questions: int = 256  # that are asked, each once at most
    samples: int = 8  # of each: right ones are paired with wrong ones
    loss: Literal["dpo", "ipo"] = "dpo"  # of log-sigmoid, or of squares
    beta: float = 0.1  # how far the policy may go from the reference
    form: Literal["sum", "mean"] = "sum"  # of a row's log-ratios; the paper's: mean
    label_smoothing: float = 0.0  # share of pairs taken to be the wrong way round
    read_by: ClassVar = {"label_smoothing": ("loss", {"dpo"})}

    def check(self):
        self.need_positive("steps", "batch_size", "learning_rate", "beta")
        self.need_positive("questions")
        self.need("samples", self.samples >= 2, "a pair has two", "Try 8.")
        inside = 0 <= self.label_smoothing < 0.5
        self.need("label_smoothing", inside, "it lies in [0, 0.5)", "0 trusts all.")


@dataclasses.dataclass(frozen=True)
class Reward(Section):
    """The stage that makes a reward model of the model, from what people or rules said.

    A completion is scored at its end, or at the end of each of its steps: at a newline,
    or at a tag. A preference is of two completions, a label of one or of a step.
    """

    path: ClassVar[str] = "reward"
    labels: Literal["preferences", "correct", "steps"] = "correct"  # the data's kind
    steps: int = 100  # updates
    batch_size: int = 32  # preferences, or labelled completions, per update
    # tokens of a question with its completion: what has more is left out, and told
    longest: int | None = None  # None: as many as the model was made for
    learning_rate: float = 2e-5  # all else is the optimizer's
    # what says the score: a linear map of its own, or log P(good) / P(bad) as the next
    # token, which needs no new weights
    head: Literal["scalar", "tokens"] = "scalar"
    good: str = "+"  # one token ...
    bad: str = "-"  # ... and the other
    tag: str | None = None  # one token written behind each step; None: the newline is
    read_by: ClassVar = {
        "good": ("head", {"tokens"}),
        "bad": ("head", {"tokens"}),
        "tag": ("labels", {"steps"}),
    }

    def check(self):
        self.need_positive("steps", "batch_size", "learning_rate", "longest")
        rule = f"{self.dotted('good')} and bad are the same token"
        self.need("bad", self.bad != self.good, rule, "Name another.")
        some = self.tag is None or bool(self.tag.strip())
        self.need("tag", some, "it is empty", "None: the newline behind a step.")


@dataclasses.dataclass(frozen=True)
class Evaluation(Section):
    """Questions that are never trained on, answered at temperature 0 and above."""

    path: ClassVar[str] = "evaluation"
    every: int | None = None  # steps; None: before the first and after the last
    questions: int = 200  # at most
    batch_size: int = 64  # asked at once
    samples: int = 0  # answers drawn to each besides the greedy one: pass@k, maj@k
    temperature: float = 0.7  # of those
    others: tuple[str, ...] = ()  # sets examined as well: gsm8k, series-5, a file

    def check(self):
        self.need_positive("every", "questions", "batch_size", "temperature")
        rule = "a number of answers is not negative"
        self.need("samples", self.samples >= 0, rule, "0: only the greedy one.")
        reason = f"{self.dotted('samples')} is 0: nothing is drawn"
        self.need_read("temperature", self.samples > 0, reason, "a number of samples")
        once = len(set(self.others)) == len(self.others)
        self.need("others", once, "each is examined once", "Name it once.")


@dataclasses.dataclass(frozen=True)
class Keep(Section):
    """What a run leaves behind in its folder."""

    path: ClassVar[str] = "keep"
    every: int = 50  # steps between checkpoints; the last step has one in any case
    latest: int = 2  # checkpoints that stay, at least 2
    best: int = 1  # more that stay: those with the highest eval/accuracy
    samples: int = 10  # steps between tables of questions, completions and rewards
    notice: float = 25.0  # seconds from SIGTERM to the end: a longer step is given up

    def check(self):
        self.need_positive("every", "samples", "notice")
        rule = "the last is not whole until it is written; one before it must be there"
        self.need("latest", self.latest >= 2, rule, "Try 2.")
        rule = "a number of checkpoints is not negative"
        self.need("best", self.best >= 0, rule, "0: only the latest.")


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


@dataclasses.dataclass(frozen=True)
class Iterative(Section):
    """Iterative RL, the paper's Algorithm 1: between rounds of the stage online its
    reward model learns from what the policy says by then, and the reference follows.
    """

    path: ClassVar[str] = "iterative"
    rounds: int = 0  # after the first one, each of training.steps; 0: that is all
    renews: Literal["both", "model", "reference", "none"] = "both"  # between rounds
    questions: int = 256  # that the policy is asked for it, others each time
    samples: int = 8  # answers to each, which the data's own checker judges
    # so much of what it was taught before is learned again, but for what a judge that
    # is given was taught elsewhere ...
    replay: float = 0.1
    replay_of: Literal["mix", "history"] = "mix"  # ... of all it learns, of all before

    @property
    def renews_model(self) -> bool:
        return self.rounds > 0 and self.renews in ("both", "model")

    @property
    def renews_reference(self) -> bool:
        return self.rounds > 0 and self.renews in ("both", "reference")

    def check(self):
        rule = "a number of rounds is not negative"
        self.need("rounds", self.rounds >= 0, rule, "0: one without an end.")
        reason = f"{self.dotted('rounds')} is 0"
        for name in ("renews", "questions", "samples"):
            self.need_read(name, self.rounds > 0, reason, "a number of rounds")
        reason = f"{self.dotted('rounds')} and renews let the reward model be"
        for name in ("replay", "replay_of"):
            self.need_read(name, self.renews_model, reason, "to renew it")
        self.need_positive("questions", "samples")
        inside = 0 <= self.replay < 1
        self.need("replay", inside, "it is a share in [0, 1)", self._default("replay"))
