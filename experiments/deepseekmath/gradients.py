"""The gradients of the start, taken apart: what theory.py measures on the miniature.

    python -m grpo_jax train experiments/deepseekmath/gradients.py

A pool is drawn as a step's rollout is, by the trainer itself: `training.batch_size`
questions, `algorithm.group_size` samples of each. At the policy that drew them every
loss of a group is linear in its advantages,

    g = Σ_i a_i s_i,    s_i = −∇ Σ_t log π(o_it | q, o_i<t),    a_i = Â_i w_i,

where w_i is what a token of row i counts (losses/reduce). So the gradient of each
sample is computed once, of all 525,056 parameters and not projected, by the package's
own loss with Â = w = 1. Then samples are grouped anew, 2 by 2 up to 64 by 64, and the
package's own advantages and weights say what the gradient of each group is. Only inner
products are needed: of a question's samples, and of sums over questions.

A pool's own noise biases no expectation: E‖g‖² is the mean over groups, ‖E g‖² and
⟨E g, ∇J⟩ are means over pairs of different questions, E‖E[g | q]‖² is that over pairs
of different groups of one question. J is the chance to be right, and ∇J the mean over
all samples, each compared with all others of its question (leave-one-out).
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from grpo_jax import (
    config,
    experiment,
    groups,
    prepare,
    prng,
    programs,
    runs,
    sampled,
    scoring,
    sharding,
    stage,
    task,
    train_step,
    trainer,
    workdir,
)
from grpo_jax.losses import statistics
from grpo_jax.models.spec import Spec
from grpo_jax.records import PolicyBatch, Rewards
from grpo_jax.rewards.grading import Grader
from grpo_jax.sampled import Rollout

miniature = experiment.load(str(pathlib.Path(__file__).with_name("miniature.py")))

FOUND = "found.json"
SIZES, SHOWN = (2, 4, 8, 16, 32, 64), 8  # SHOWN: of that, each question is told alone
# A token counts the same in all of them but the last, which is the paper's.
ALIKE = {"loss_mean": "over_constant", "loss_constant": 72, "beta": 0.0}
UNSCALED = config.Advantage(scale_rewards="none")
ARMS: dict[str, config.Algorithm] = {
    "z-score": config.Algorithm(**ALIKE),
    "no std": config.Algorithm(**ALIKE, advantage=UNSCALED),
    "leave-one-out": config.Algorithm(
        **ALIKE, advantage=dataclasses.replace(UNSCALED, estimator="leave_one_out")
    ),
    "no baseline": config.Algorithm(
        **ALIKE, advantage=dataclasses.replace(UNSCALED, estimator="none")
    ),
    "z-score, 1/|o|": config.Algorithm(beta=0.0),
}
UNBIASED = "leave-one-out"
At = tuple[str, int]  # an arm and its group size
Found = Mapping[str, Any]  # what a seed's pool came to
N = miniature.QUESTIONS * miniature.SAMPLES  # samples of a step


def get_config() -> config.Config:
    """A pool of 256 questions and 64 samples of each, of the figures' start."""
    base = miniature.policy()
    return dataclasses.replace(
        base,
        algorithm=config.Algorithm(group_size=64, beta=0.0),
        sampling=dataclasses.replace(base.sampling, rows=512),
        optimizer=config.Optimizer(),
        training=config.Training(batch_size=256),
        evaluation=config.Evaluation(),
        keep=config.Keep(),
    )


class Pool(NamedTuple):
    spec: Spec
    params: Any
    rollout: Rollout
    rewards: Rewards


def run(settings: config.Config, folder: pathlib.Path):
    programs.keep()
    found = measured(settings, drawn(settings))
    workdir.replace(folder / FOUND, json.dumps(found, allow_nan=False) + "\n")
    right = np.array(found["right"]) / found["samples"]
    print(f"{folder / FOUND}: {len(right)} questions, {right.mean():.1%} right")


def drawn(settings: config.Config) -> Pool:
    """As the trainer's first step draws, which learns nothing from it here."""
    found = runs.find(settings.model)
    known = task.make(settings, found.base.spec, found.base.tokenizer)
    mesh = sharding.mesh(1, 1, 1, jax.local_devices()[:1])
    grader = Grader(settings.rewards, known.checker, {})
    given = settings, found.base.spec, known, grader, mesh, prng.root(settings.seed)
    online, key = trainer.Online(stage.Run(*given), 0), jax.random.key(settings.seed)
    step = runs.step(found, "latest", print)
    params = runs.read(found, settings.model.dtype, key, mesh, step=step).params
    state = online.begin(params, key)
    asked = stage.published(online.run, online.asker, online.learner, state.learned)
    answered = online.draw(asked, state.host, 0, lambda: None).groups
    questions, answers = [x.question for x in answered], [x.answers for x in answered]
    rollout = sampled.stack(questions, answers)
    columns = rollout.completion.shape[-1]
    rewards = groups.rewards(settings, online.kinds, answered, columns)
    return Pool(found.base.spec, state.learned.policy.params, rollout, rewards)


def of_samples(
    settings: config.Config, pool: Pool
) -> Iterator[Float[np.ndarray, "S P"]]:
    """Question by question the gradient of each sample, of the package's loss with an
    advantage and a weight of 1."""
    numerics, lora = settings.model.numerics, settings.model.lora
    loss = functools.partial(train_step.policy_loss, pool.spec, numerics, lora)
    chosen = config.Algorithm(beta=0.0)
    known = train_step.Known(chosen, settings.sampling.temperature, 0.0)

    def one(params, question, is_question, completion, length):
        here = jnp.arange(len(completion))[None, None] < length
        texts = question[None], is_question[None], completion[None, None], here
        row = jnp.ones((1, 1))
        policy = PolicyBatch(here, here.astype(float), row > 0, row_weight=row)
        batch = train_step.Batch(scoring.Texts(*texts), policy)
        return ravel_pytree(train_step.gradient(loss, params, known, batch)[0])[0]

    def several(params, question, is_question, *rows):
        each = functools.partial(one, params, question, is_question)
        # So many at once as stay in a cache: it takes half as long as with all.
        return jax.lax.map(lambda row: each(*row), rows, batch_size=4)

    program, given = programs.forward(several), pool.rollout
    every = given.question, given.is_question, given.completion, given.length
    for question in zip(*every, strict=True):
        yield np.asarray(program(pool.params, *question))


class Grouped(NamedTuple):
    """Of a question's samples, in groups."""

    weight: Float[np.ndarray, "Q J G"]  # a_i: of a sample's gradient in its group's
    mixed: float  # share of the groups that have a spread


def grouped(chosen: config.Algorithm, rewards: Rewards) -> Grouped:
    """By the package's advantages and denominators. A step's gradient is the mean of
    those of its groups."""
    G = chosen.group_size
    J = rewards.is_valid.shape[1] // G
    parts, here = (
        jnp.asarray(x.reshape(-1, G, x.shape[-1]))
        for x in (rewards.parts, rewards.is_completion)
    )
    weight, told = _weights(chosen, Rewards(parts, here, here.any(-1)))
    weight = np.asarray(weight, float).reshape(-1, J, G) * len(parts)
    return Grouped(weight, 1 - float(statistics.values(told)["groups/no_spread"]))


@programs.forward
def _weights(chosen: config.Algorithm, rewards: Rewards):
    """Of all groups as one step's."""
    given = rewards, prepare.Scores(None, None, None), rewards.is_valid
    batch, told = prepare.rollout(chosen, *given, beta=0.0)
    known = {"rollout_tokens": batch.is_completion.sum(), "parts": 1}
    batch = prepare.minibatch(chosen, batch, None, None, None, **known)
    return batch.advantage[:, :, 0] * batch.row_weight, told


def in_rows(weight: Float[np.ndarray, "J G"]) -> Float[np.ndarray, "J S"]:
    """The weights of each group where its samples stand, and 0 elsewhere."""
    J, G = weight.shape
    return (np.eye(J)[:, :, None] * weight).reshape(J, J * G)


def apart(product: Float[np.ndarray, "J J"]) -> float:
    """The mean over pairs of different ones; NaN if there is but one."""
    J = len(product)
    return float((product.sum() - np.trace(product)) / (J * (J - 1) or np.nan))


class Products(NamedTuple):
    """Of the gradients of a question's groups; of each question, or their means."""

    square: Any  # the mean of ‖g‖²
    same: Any  # that of ⟨g, g'⟩, of different groups
    centre: Any  # ‖mean of g‖²
    along: Any  # ⟨mean of g, ∇J of this question⟩
    across: Any  # the mean of ⟨g, g'⟩, g' leave-one-out and of a different group


def products(
    inner: Float[np.ndarray, "S S"],
    rows: Mapping[At, Float[np.ndarray, "J S"]],
    truth: Float[np.ndarray, "S"],
) -> dict[At, Products]:
    """Of one question, from the inner products of its samples' gradients."""
    found = {}
    for (arm, G), row in rows.items():
        own, others = row @ inner @ row.T, row @ inner @ rows[UNBIASED, G].T
        along = row.mean(0) @ inner @ truth
        square = np.trace(own) / len(own)
        found[arm, G] = Products(square, apart(own), own.mean(), along, apart(others))
    return found


def measured(settings: config.Config, pool: Pool) -> dict[str, Any]:
    """What theory.py needs of a pool, as JSON has it."""
    S, Q = settings.algorithm.group_size, len(pool.rewards.parts)
    known = {
        (arm, G): grouped(dataclasses.replace(chosen, group_size=G), pool.rewards)
        for arm, chosen in ARMS.items()
        for G in SIZES
        if S % G == 0
    }
    whole = dataclasses.replace(ARMS[UNBIASED], group_size=S)
    truth = grouped(whole, pool.rewards).weight[:, 0]
    of_questions: dict[At, list[Products]] = {at: [] for at in known}
    right, norms = pool.rewards.parts[:, :, 0], np.zeros((Q, S))
    own, sums = 0.0, 0.0
    for q, samples in enumerate(of_samples(settings, pool)):
        rows = {at: in_rows(one.weight[q]) for at, one in known.items()}
        inner = (samples @ samples.T).astype(float)
        for at, one in products(inner, rows, truth[q]).items():
            of_questions[at].append(one)
        centres = [row.mean(0) for row in rows.values()]
        sums = sums + np.array([*centres, truth[q]], np.float32) @ samples
        own, norms[q] = own + truth[q] @ inner @ truth[q], np.diag(inner)
    of_sums = (sums @ sums.T).astype(float)
    pairs = Q * (Q - 1)
    told, each = {}, {}
    for i, at in enumerate(known):
        each[at] = Products(*map(np.array, zip(*of_questions[at], strict=True)))
        told.setdefault(at[0], {})[at[1]] = {
            "square": each[at].square.mean(),
            "same": each[at].same.mean() if at[1] < S else None,
            "mean": (of_sums[i, i] - each[at].centre.sum()) / pairs,
            "along": (of_sums[i, -1] - each[at].along.sum()) / pairs,
        }
    of_mean, of_unbiased = each["z-score", SHOWN], each[UNBIASED, SHOWN]
    return {
        "samples": S,
        "right": right.sum(1).tolist(),
        "mixed": {G: one.mixed for (arm, G), one in known.items() if arm == UNBIASED},
        "arms": told,
        "truth": (of_sums[-1, -1] - own) / pairs,
        # of the samples that are, the mean of ‖s_i‖²
        "norms": {
            "right": (norms * right).sum() / right.sum(),
            "wrong": (norms * (1 - right)).sum() / (1 - right).sum(),
        },
        "shown": {
            "z-score": of_mean.across.tolist(),
            "leave-one-out": of_unbiased.same.tolist(),
            "square": of_unbiased.square.tolist(),
        },
    }


class Estimate(NamedTuple):
    """Of all seeds, and half of its 95% interval; None: one seed does not say."""

    value: np.ndarray
    half: np.ndarray | None


def jackknifed(of: Callable[[Sequence[int]], np.ndarray], seeds: int) -> Estimate:
    """A function of seeds, and how much it owes to each of them."""
    every = list(range(seeds))
    if seeds == 1:
        return Estimate(of(every), None)
    without = np.stack([of([s for s in every if s != out]) for out in every])
    error = np.sqrt((seeds - 1) * without.var(0))
    return Estimate(of(every), scipy.stats.t.ppf(0.975, seeds - 1) * error)


def sizes(pools: Sequence[Found]) -> Int[np.ndarray, "K"]:
    return np.array([int(G) for G in pools[0]["mixed"]])


def means(
    pools: Sequence[Found], arm: str, some: Sequence[int]
) -> dict[str, Float[np.ndarray, "K"]]:
    """By group size, over some of the pools; what one group does not say is NaN."""
    found = [list(pools[s]["arms"][arm].values()) for s in some]
    return {
        key: np.array([[x[key] for x in one] for one in found], float).mean(0)
        for key in ("square", "same", "mean", "along")
    }


def noise(pools: Sequence[Found], arm: str) -> Estimate:
    """Of steps of N samples [3, K]: variance over the squared mean; E⟨g, ∇J⟩ / √(E‖g‖²
    ‖∇J‖²); and the cosine of E g and ∇J."""

    def of(some: Sequence[int]) -> Float[np.ndarray, "3 K"]:
        x = means(pools, arm, some)
        truth = np.mean([pools[s]["truth"] for s in some])
        variance = (x["square"] - x["mean"]) * sizes(pools) / N
        with np.errstate(invalid="ignore"):  # few questions can say that ‖E g‖² < 0
            along = x["along"] / np.sqrt(truth)
            cosine = along / np.sqrt(variance + x["mean"])
            turned = along / np.sqrt(x["mean"])
        return np.stack([variance / x["mean"], cosine, turned])

    return jackknifed(of, len(pools))


class Law(NamedTuple):
    """The variances of statement 1, over ‖∇J‖²."""

    sample: float  # σ²
    pair: float  # ζ
    question: float  # τ²

    @classmethod
    def of(cls, pools: Sequence[Found]) -> "Law":
        """By the groups of 2 and of SHOWN; what it says of others is not fitted."""
        x = means(pools, UNBIASED, range(len(pools)))
        G, squared = sizes(pools), np.mean([pool["truth"] for pool in pools])
        within = (x["square"] - x["same"]) / squared
        question = ((x["same"] - x["mean"]) / squared)[within == within].mean()
        pair, shown = within[G == 2].item(), within[G == SHOWN].item()
        sample = (SHOWN * (SHOWN - 1) * shown - 2 * pair) / (SHOWN - 2)
        return cls(sample, pair, question)

    def noise(self, size: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        of_pairs = (2 * self.pair - self.sample) / (size - 1)
        return (self.sample + of_pairs + self.question * size) / N

    @property
    def best(self) -> float:
        """The size of the groups whose noise is least."""
        with np.errstate(invalid="ignore"):
            return float(1 + np.sqrt((2 * self.pair - self.sample) / self.question))
