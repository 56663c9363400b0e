"""The settings of the objective: paper eq. 3, and what was proposed after it."""

import dataclasses
from typing import ClassVar, Literal, get_args

from grpo_jax.section import Section

Estimator = Literal[
    "mean", "leave_one_out", "length_weighted", "given", "none",
    "best_minus_second", "rank", "max_rl", "softmax", "indicator", "gae",
]  # fmt: skip
Scale = Literal["group", "batch", "others", "nonzero", "none"]
EpsAt = Literal["added", "floor", "under_root"]
Surrogate = Literal[
    "clipped", "reinforce", "cispo", "sapo", "vespo", "gmpo", "dppo_tv", "dppo_kl",
    "dro", "kl_cov", "clip_cov",
]  # fmt: skip
ImportanceLevel = Literal["token", "sequence", "sequence_token"]
LossMean = Literal[
    "per_sequence", "per_token", "per_rollout_token", "per_question",
    "per_sequence_sum", "over_constant", "sum",
]  # fmt: skip
Rejected = Literal["none", "token", "sequence_sum", "sequence_mean", "sequence_max"]
KLEstimator = Literal["k1", "abs", "k2", "k3"]
KLGradient = Literal["own", "straight_through", "ratio"]

# Estimators centred on their group; those that compare its samples at all; those that
# may be divided by a spread; and those that know what to do with a pool of steps.
CENTRED = {
    "mean", "leave_one_out", "length_weighted", "best_minus_second", "rank",
    "max_rl",
}  # fmt: skip
COMPARING = CENTRED | {"softmax"}
SCALABLE = {"mean", "leave_one_out", "length_weighted", "best_minus_second", "given"}
FOR_STEPS = {"mean", "leave_one_out", "rank", "none"}


@dataclasses.dataclass(frozen=True)
class Advantage(Section):
    """How the rewards of a group become advantages (paper 4.1.2 and 4.1.3)."""

    path: ClassVar[str] = "algorithm.advantage"
    supervision: Literal["outcome", "process"] = "outcome"  # reward outputs or steps
    estimator: Estimator = "mean"  # what the reward is compared with
    scale_rewards: Scale = "group"  # what the difference is divided by
    ddof: Literal[0, 1] = 0  # 0: std over n; 1: std over n − 1
    eps: float = 1e-6  # keeps a small std from dividing
    eps_at: EpsAt = "added"  # c/(std+eps), c/max(std,eps) or c/sqrt(var+eps)
    group_of_one: Literal["zero", "raw"] = "zero"  # advantage where one sample is left
    group_by: str = "question"  # or a column of the data (type, level) to pool over
    reward_weights: tuple[float, ...] = ()  # one per reward function; (): all 1
    normalise_each: bool = False  # GDPO: normalise every reward, then add
    whiten: Literal["none", "rows", "tokens"] = "none"  # z-score over the whole batch
    gamma: float = 1.0  # discount per token
    gae_lambda: float = 1.0  # λ of generalized advantage estimation
    reward_temperature: float = 1.0  # of the softmax over the group's rewards
    # a reward above it is right: for indicator, rft, dpo, cosine
    correct_above: float = 0.5
    wrong_weight: float = 0.0  # weight of a wrong answer: 0, or −1 in the ±1 form
    read_by: ClassVar = {
        "group_of_one": ("estimator", CENTRED),
        "group_by": ("estimator", COMPARING),
        "gamma": ("supervision", {"outcome"}),
        "gae_lambda": ("estimator", {"gae"}),
        "reward_temperature": ("estimator", {"softmax"}),
        "wrong_weight": ("estimator", {"indicator"}),
    }

    def check(self):
        divides = self.scale_rewards in {"group", "batch", "others"}
        divides |= self.whiten != "none"
        for name in ("ddof", "eps", "eps_at"):
            reason = (
                f"{self.dotted('scale_rewards')} and whiten take no standard deviation"
            )
            self.need_read(name, divides, reason, "scale_rewards group")
        self.need("eps", self.eps >= 0, "it must not be negative", "Try 1e-6.")
        for name in ("gamma", "gae_lambda"):
            inside = 0 <= getattr(self, name) <= 1
            self.need(name, inside, "it must lie in [0, 1]", "1 discounts nothing.")
        self.need_positive("reward_temperature")
        self.need(
            "scale_rewards",
            self.scale_rewards == "none" or self.estimator in SCALABLE,
            f"{self.dotted('estimator')} {self.estimator!r} is not divided by anything",
            f"Set {self.dotted('scale_rewards')} none.",
        )
        by_output = self.supervision == "outcome"
        by_output &= self.estimator not in {"none", "gae"}
        reason = "advantages are made per token or per step here, not per output"
        readers = "an estimator that compares outputs"
        self.need_read("normalise_each", by_output, reason, readers)
        rows = self.whiten != "rows" or by_output
        self.need("whiten", rows, reason, "Set it to tokens.")
        scaled = self.scale_rewards != "none" or self.estimator not in SCALABLE
        reason = "without a scale, centring each reward and then adding is the sum"
        self.need_read("normalise_each", scaled, reason, "a scale_rewards")
        if self.supervision == "process":
            self._check_process()

    def _check_process(self):
        self.need(
            "estimator",
            self.estimator in FOR_STEPS,
            f"{self.dotted('supervision')} 'process' pools steps, not outputs",
            "Set it to mean, as the paper does.",
        )
        reason = f"{self.dotted('supervision')} 'process' pools one question's steps"
        for name in ("group_by", "reward_weights"):
            self.need_read(name, False, reason, "supervision outcome")


@dataclasses.dataclass(frozen=True)
class KL(Section):
    """The Kullback-Leibler term; its weight is `algorithm.beta`."""

    path: ClassVar[str] = "algorithm.kl"
    estimator: KLEstimator = "k3"  # of log(π/π_ref) per token; k3 is the paper's
    gradient: KLGradient = "own"  # its own, that of k2, or that of estimate·ratio
    placed: Literal["loss", "reward"] = "loss"  # GRPO: in the loss; PPO: in the reward
    log_limit: float | None = 20.0  # |log π_ref − log π| is clamped to it
    limit: float | None = None  # |estimate| is clamped to it
    target: float | None = None  # KL that β is steered to; None: β stays
    horizon: float = 10_000.0  # samples over which β answers to the target
    read_by: ClassVar = {"gradient": ("placed", {"loss"})}

    def check(self):
        self.need_positive("log_limit", "limit", "target", "horizon")
        reason = f"without {self.dotted('target')} β stays as it is"
        self.need_read("horizon", self.target is not None, reason, "a target")


@dataclasses.dataclass(frozen=True)
class Correction(Section):
    """Weights w = π_old/π_sampler where the sampler is not quite the trainer."""

    path: ClassVar[str] = "algorithm.correction"
    level: Literal["none", "token", "sequence"] = "none"  # sequence: Π over its tokens
    mode: Literal["truncate", "mask"] = "truncate"  # clamp w, or 0 outside the bounds
    low: float | None = None  # lower bound of w
    high: float | None = 2.0  # upper bound of w
    normalise: bool = False  # divide by the mean weight of the batch
    read_by: ClassVar = dict.fromkeys(
        ("mode", "low", "high", "normalise"), ("level", {"token", "sequence"})
    )

    def check(self):
        self.need_positive("low", "high")
        self.need_ordered("low", "high")
        bounded = (self.low, self.high) != (None, None)
        rule = f"neither {self.dotted('low')} nor high is set: nothing would be masked"
        self.need("mode", self.mode == "truncate" or bounded, rule, "Set one.")


REJECTING = {"token", "sequence_sum", "sequence_mean", "sequence_max"}


@dataclasses.dataclass(frozen=True)
class Rejection(Section):
    """What leaves the loss, its denominators too, where sampler and trainer differ."""

    path: ClassVar[str] = "algorithm.rejection"
    statistic: Rejected = "none"  # what must lie in the bounds; sequence_*: row leaves
    measure: Literal["ratio", "k2", "k3"] = "ratio"  # ratio: π_old/π_sampler
    low: float | None = None  # lower bound, of the ratio only
    high: float | None = None  # upper bound
    read_by: ClassVar = dict.fromkeys(
        ("measure", "low", "high"), ("statistic", REJECTING)
    )

    def check(self):
        self.need_positive("low", "high")
        self.need_ordered("low", "high")
        rule = "k2 and k3 are 0 where sampler and trainer agree: no bound is too low"
        self.need("low", self.low is None or self.measure == "ratio", rule, "Unset it.")
        bounded = (self.low, self.high) != (None, None)
        rule = (
            f"neither {self.dotted('low')} nor high is set: nothing would be rejected"
        )
        self.need("statistic", self.statistic == "none" or bounded, rule, "Set one.")


_CLIPS = {"clipped", "gmpo", "dppo_tv", "dppo_kl", "clip_cov"}
_BOUNDS_WEIGHT = {"cispo", "dppo_tv", "dppo_kl"}
_COUNTS_ROWS = {"per_sequence", "per_question", "per_sequence_sum", "over_constant"}


@dataclasses.dataclass(frozen=True)
class Algorithm(Section):
    """The objective: paper eq. 3, and what was proposed after it."""

    path: ClassVar[str] = "algorithm"
    group_size: int = 8  # G: samples per question
    mu: int = 1  # μ: times that a rollout is gone through
    minibatches: int = 1  # updates of each time, on equal shares of the questions
    beta: float = 0.01  # β: weight of the KL to the reference policy
    surrogate: Surrogate = "clipped"  # the policy term of the loss
    clip_low: float = 0.2  # the ratio is clipped below 1 − clip_low ...
    clip_high: float = 0.2  # ... and above 1 + clip_high
    importance_level: ImportanceLevel = "token"  # the ratio of a token or of its row
    ratio_to: Literal["old", "reference"] = "old"  # the policy below the fraction bar
    log_ratio_limit: float | None = 20.0  # |log ratio| is clamped to it
    ratio_max: float | None = None  # δ: bounds the ratio where A < 0 leaves it free
    dual_clip: float | None = None  # c: where A < 0 the loss is at most −c·A
    weight_low: float | None = None  # bounds of the stopped ratio ...
    weight_high: float | None = None  # ... in cispo and dppo
    gate_positive: float = 1.0  # SAPO's τ where A > 0 ...
    gate_negative: float = 1.05  # ... and elsewhere
    gamma_positive: tuple[float, float] = (2.0, 3.0)  # VESPO's (k, λ) where A ≥ 0 ...
    gamma_negative: tuple[float, float] = (3.0, 2.0)  # ... and where A < 0
    quadratic: float = 1.0  # DRO's weight of (log ratio)²/2
    cov_fraction: float = 2e-4  # share of tokens that KL-Cov and Clip-Cov select
    cov_coef: float = 0.1  # KL-Cov's weight of |log ratio| on them
    cov_low: float = 1.0  # Clip-Cov selects among tokens with a covariance above it ...
    cov_high: float = 5.0  # ... and below it
    off_policy_limit: float | None = None  # A<0 is dropped if mean log(π_old/π) > it
    top_entropy: float | None = None  # share of tokens trained, highest entropy first
    entropy_coef: float = 0.0  # weight of the entropy bonus
    loss_mean: LossMean = "per_sequence"  # the denominator; per_sequence is the paper's
    loss_constant: int | None = None  # L of over_constant: tokens a row could have
    empty_rows: Literal["counted", "dropped"] = "counted"  # rows without a token left
    advantage: Advantage = Advantage()
    kl: KL = KL()
    correction: Correction = Correction()
    rejection: Rejection = Rejection()
    read_by: ClassVar = {
        "clip_low": ("surrogate", _CLIPS),
        "clip_high": ("surrogate", _CLIPS),
        "importance_level": ("surrogate", {"clipped", "cispo", "sapo", "kl_cov"}),
        "ratio_to": ("surrogate", set(get_args(Surrogate)) - {"reinforce"}),
        "log_ratio_limit": ("surrogate", set(get_args(Surrogate)) - {"reinforce"}),
        "ratio_max": ("surrogate", {"clipped"}),
        "dual_clip": ("surrogate", {"clipped"}),
        "weight_low": ("surrogate", _BOUNDS_WEIGHT),
        "weight_high": ("surrogate", _BOUNDS_WEIGHT),
        "gate_positive": ("surrogate", {"sapo"}),
        "gate_negative": ("surrogate", {"sapo"}),
        "gamma_positive": ("surrogate", {"vespo"}),
        "gamma_negative": ("surrogate", {"vespo"}),
        "quadratic": ("surrogate", {"dro"}),
        "cov_fraction": ("surrogate", {"kl_cov", "clip_cov"}),
        "cov_coef": ("surrogate", {"kl_cov"}),
        "cov_low": ("surrogate", {"clip_cov"}),
        "cov_high": ("surrogate", {"clip_cov"}),
        "loss_constant": ("loss_mean", {"over_constant"}),
        "empty_rows": ("loss_mean", _COUNTS_ROWS),
    }

    def check(self):
        compares = self.advantage.estimator in COMPARING
        pools = self.advantage.group_by != "question"
        self.need(
            "group_size",
            self.group_size >= (2 if compares and not pools else 1),
            f"the advantage {self.advantage.estimator!r} compares a group's samples"
            if self.group_size == 1
            else "a group has at least one sample",
            "Set it to 2 or more, or algorithm.advantage.estimator to given or gae.",
        )
        self.need("mu", self.mu >= 1, "a rollout is used at least once", "Set it to 1.")
        self.need_positive("minibatches")
        rule = "a KL weight is not negative"
        self.need("beta", self.beta >= 0, rule, "0 switches the KL term off.")
        self._check_clips()
        self._check_rows()
        self.need_positive("log_ratio_limit", "gate_positive", "gate_negative")
        self.need_positive("quadratic", "cov_coef", "loss_constant")
        for name in ("top_entropy", "cov_fraction"):
            share = getattr(self, name)
            inside = share is None or 0 < share <= 1
            self.need(name, inside, "it is a share in (0, 1]", self._default(name))
        self.need_ordered("cov_low", "cov_high")
        named = self.loss_mean != "over_constant" or self.loss_constant is not None
        rule = "over_constant divides by a constant that is not set"
        self.need("loss_mean", named, rule, "Set algorithm.loss_constant.")
        self._check_kl_in_reward()
        steered = self.kl.target is None or self.beta > 0
        rule = "the controller multiplies β, and 0 stays 0"
        self.need("beta", steered, rule, "Start above 0, or unset algorithm.kl.target.")

    @property
    def needs_reference(self) -> bool:
        """Whether the reference policy must score the rollout; not of traced ones."""
        in_reward = self.kl.placed == "reward"
        return self.beta > 0 or in_reward or self.ratio_to == "reference"

    @property
    def needs_old(self) -> bool:
        """Whether the policy must score the rollout before its first update."""
        return (
            self.mu * self.minibatches > 1
            or self.kl.placed == "reward"
            or self.correction.level != "none"
            or self.rejection.statistic != "none"
        )

    @property
    def has_critic(self) -> bool:
        return self.advantage.estimator == "gae"

    @property
    def selects(self) -> bool:
        """Whether an update's tokens are chosen by the policy right before it."""
        chooses = self.surrogate in ("kl_cov", "clip_cov")
        return chooses or self.top_entropy is not None

    def _check_rows(self):
        """What takes a whole row, or a whole group, and cannot do with part of it."""
        chosen = self.advantage
        alone = self.group_size == 1 and chosen.group_by == "question"
        chosen.need(
            "scale_rewards",
            not alone or chosen.scale_rewards not in ("group", "others"),
            "algorithm.group_size is 1, and one sample has no spread",
            "Set it to none or batch.",
        )
        whole = self.surrogate == "gmpo" or self.importance_level == "sequence"
        rule = "the ratio of a whole row has a gradient on the dropped tokens too"
        remedy = "Unset it, or use the ratio of tokens."
        self.need("top_entropy", not whole or self.top_entropy is None, rule, remedy)
        fits = self.surrogate != "gmpo" or self.loss_mean == "per_sequence"
        rule = "gmpo has one loss for a row, not one for each token"
        self.need("loss_mean", fits, rule, "Set it to per_sequence.")

    def _check_kl_in_reward(self):
        chosen = self.advantage
        by_output = chosen.supervision == "outcome" and not chosen.normalise_each
        by_value = chosen.estimator != "indicator"
        by_value &= chosen.scale_rewards != "nonzero"
        for holds, rule in (
            (
                by_output,
                "it is taken from an output's whole reward, not steps or parts",
            ),
            (by_value, "indicator and nonzero ask whether a reward is right, not less"),
        ):
            fits = self.kl.placed == "loss" or holds
            self.kl.need("placed", fits, rule, "Set it to loss.")

    def _check_clips(self):
        for name in ("clip_low", "clip_high"):
            right = getattr(self, name) >= 0
            self.need(name, right, "a clip range is not negative", self._default(name))
        below = self.clip_low <= 1 or self.surrogate == "gmpo"
        self.need("clip_low", below, "no ratio is below 0", "Set it to at most 1.")
        self.need_positive("weight_low", "weight_high")
        self.need_ordered("weight_low", "weight_high")
        wide = self.ratio_max is None or self.ratio_max > 1 + self.clip_high
        rule = "δ lies above 1 + algorithm.clip_high, or it undoes that clip"
        self.need("ratio_max", wide, rule, "Raise it, or lower algorithm.clip_high.")
        wide = self.dual_clip is None or self.dual_clip > 1
        rule = "at or below 1 it blocks the update on policy"
        self.need("dual_clip", wide, rule, "3 is a common value.")
