"""Bandits whose expectations can be enumerated: the other half of theory.py.

    python -m grpo_jax train experiments/deepseekmath/bandits.py

The policy of experiments/optimum.py: a table with a row of logits for each question and
one token, a digit, for each answer. Sampling, advantages, losses and the optimizer are
the package's own. Three things are measured with it.

`gained`: at which slope the chance of the right answer rises, beside that of its own
gradient, for policies that are right with chances from 0.025 to 0.975. `optima`: where
a run with a KL ends, beside the optimum that `optimum.optimum` enumerates. `taught`:
64 questions that are asked 16 at a time with 128 samples, 8 of each or by a rule of
grpo_jax/allocation.py: how often they are answered rightly in the end.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int

from grpo_jax import (
    allocation,
    config,
    experiment,
    optimizers,
    prng,
    programs,
    train_step,
    workdir,
)
from grpo_jax.advantages import estimate
from grpo_jax.data import problem
from grpo_jax.records import Rewards

HERE = pathlib.Path(__file__)
optimum = experiment.load(str(HERE.parents[1] / "optimum.py"))
gradients = experiment.load(str(HERE.with_name("gradients.py")))

FOUND = "found.json"
UNSCALED = gradients.ARMS["no std"]
UNBIASED = gradients.ARMS["leave-one-out"]
PLACES = (np.arange(20) + 0.5) / 20  # chances to be right, amid twenty equal parts
CLIMBED = 2, 8, 64  # group sizes
BETAS = 0.1, 0.2, 0.4, 0.8
OPTIMA: dict[str, config.Algorithm] = {
    "z-score, G = 2": config.Algorithm(group_size=2),
    "z-score, G = 16": config.Algorithm(group_size=16),
    "no std, G = 16": config.Algorithm(group_size=16, advantage=UNSCALED.advantage),
}
ALLOTTED = "8 each", "by what was seen", "by the truth"
RATES = 0.1, 0.3, 1.0, 3.0, 10.0  # of one question's logits
ASKED, QUESTIONS, MEAN, LEAST, MOST = 16, 64, 8, 2, 32
# As of a Beta(1/2, 1/2): many chances are near 0 and 1.
BEGUN = np.sin(np.pi * (np.arange(QUESTIONS) + 0.5) / (2 * QUESTIONS)) ** 2


def get_config() -> config.Config:
    """That of the optimum: 600 steps of AdamW, of 8 questions each."""
    return optimum.get_config()


def run(settings: config.Config, folder: pathlib.Path):
    programs.keep()
    found = {
        "gained": {G: gained(settings, G).tolist() for G in CLIMBED},
        "optima": optima(settings),
        "taught": taught(settings),
    }
    workdir.replace(folder / FOUND, json.dumps(found, allow_nan=False) + "\n")
    print(folder / FOUND)


def slope(chosen: config.Algorithm, p: Float[np.ndarray, "N"]) -> Float[Array, "N"]:
    """c of E g = c ∇p, where answers are right with chance p: by enumeration.

    With k of G right, k is binomial, and of right ones E ∇ log π = ∇p / p, of wrong
    ones −∇p / (1 − p): so c = E[Σ_right Â / p − Σ_wrong Â / (1 − p)] / G.
    """
    G = chosen.group_size
    k = np.arange(G + 1)
    is_right = np.arange(G) < k[:, None]
    everyone = jnp.ones(is_right.shape, bool)
    parts = jnp.asarray(is_right[:, :, None], float)
    rewards = Rewards(parts, everyone[:, :, None], everyone)
    advantage = estimate.estimate(chosen, rewards, beta=0.0).advantage[:, :, 0]
    advantage = np.asarray(advantage, float) / G
    chance = scipy.stats.binom.pmf(k, G, p[:, None])
    right = chance @ (advantage * is_right).sum(1)
    wrong = chance @ (advantage * ~is_right).sum(1)
    return right / p - wrong / (1 - p)


def table(right: Float[np.ndarray, "M"]) -> Float[Array, "M V"]:
    """Logits that give the answer of question m, that of optimum's m mod 8, its chance,
    and all other digits an equal one."""
    M, V = len(right), optimum.VOCABULARY
    other = (1 - right) / (V - 1)
    found = np.repeat(other[:, None], V, 1)
    found[np.arange(M), answers(np.arange(M))] = right
    return jnp.log(jnp.asarray(found, jnp.float32))


def answers(rows: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
    return optimum.ANSWERS[rows % len(optimum.ANSWERS)]


def chances(logits: Float[Array, "M V"]) -> Float[np.ndarray, "M"]:
    """π(right) of every question."""
    every = np.arange(len(logits))
    return np.exp(np.asarray(optimum.log_probs(logits, 1.0, every), float))[
        every, answers(every)
    ]


class Bandit:
    """The compiled pieces of a step, for a table that is sampled at temperature 1."""

    def __init__(self, seed: int):
        self.root = prng.root(seed)
        self.draw = programs.forward(optimum.sample)
        self.ready = programs.forward(optimum.ready)
        self.sampling = config.Sampling(temperature=1.0)

    def rollout(self, logits, chosen: config.Algorithm, step: int, asked, rows, count):
        """What optimum.loss takes; of each question so many samples count."""
        key = prng.step_key(self.root, prng.Stream.SAMPLE, step)
        keys = prng.sample_keys(key, jnp.asarray(asked), chosen.group_size)
        token, logp, greedy = self.draw(logits, self.sampling, keys, rows)
        known = np.asarray(token), np.asarray(greedy), rows % len(optimum.ANSWERS)
        rewards = optimum.rewards_of(*known)
        counts = np.arange(chosen.group_size) < count[:, None]
        rewards = rewards._replace(is_valid=counts)
        given = (token, logp), rewards, logits, rows
        batch, _ = self.ready(logits, chosen, 1.0, 0.0, *given)
        return (token, batch, keys, rows), np.where(
            counts, rewards.parts[:, :, 0], np.nan
        )


@programs.forward
def _gradient(chosen: config.Algorithm, logits, rollout):
    return train_step.gradient(optimum.loss, logits, (chosen, 1.0, 0.0), rollout)[0]


def gained(settings: config.Config, group_size: int) -> Float[np.ndarray, "K"]:
    """⟨E g, ∇p⟩ / ‖∇p‖² at each of PLACES, of z-scores; as many groups as steps."""
    logits, K = table(PLACES), len(PLACES)
    rows = np.tile(np.arange(K), settings.training.steps)
    chosen = config.Algorithm(group_size=group_size, beta=0.0)
    bandit, asked = Bandit(settings.seed), np.arange(len(rows))
    count = np.full(len(rows), group_size)
    rollout, _ = bandit.rollout(logits, chosen, group_size, asked, rows, count)
    # A question's share of the loss is 1/K.
    rise = -np.asarray(_gradient(chosen, logits, rollout), float) * K
    right = np.eye(optimum.VOCABULARY)[answers(np.arange(K))]
    own = PLACES[:, None] * (right - np.exp(np.asarray(logits, float)))
    return (rise * own).sum(1) / (own**2).sum(1)


def optima(settings: config.Config) -> dict[str, dict[float, dict[str, float]]]:
    """Where runs end, and where they should: the mean of the last quarter."""
    found: dict[str, dict[float, dict[str, float]]] = {}
    for name, algorithm in OPTIMA.items():
        for beta in BETAS:
            chosen = dataclasses.replace(algorithm, beta=beta)
            one = dataclasses.replace(settings, algorithm=chosen)
            right = [right.mean() for right, _ in optimum.train(one)]
            last = right[-max(len(right) // 4, 1) :]
            best = optimum.optimum(chosen)
            told = {"right": float(np.mean(last)), "best": best}
            found.setdefault(name, {})[beta] = told
    return found


def taught(settings: config.Config) -> dict[str, dict[float, float]]:
    """Of each arm and rate the mean of π(right) over all questions, in the end."""
    found: dict[str, dict[float, float]] = {arm: {} for arm in ALLOTTED}
    for rate in RATES:
        # Of a step's loss each question has a share of 1/ASKED.
        rule = config.Optimizer(name="sgd", learning_rate=rate * ASKED, clip_norm=None)
        optimizer = optimizers.make(rule, settings.training.steps)
        begin = programs.begin(optimizer)
        update = programs.update(optimum.loss, optimizer)
        for arm in ALLOTTED:
            state = _taught(settings, arm, begin(table(BEGUN)), update)
            found[arm][rate] = float(chances(state.params).mean())
    return found


def _taught(settings: config.Config, arm: str, state: train_step.State, update):
    chosen = dataclasses.replace(
        UNBIASED, group_size=MOST, loss_mean="per_question", loss_constant=None
    )
    bandit, seen = Bandit(settings.seed), dict.fromkeys(range(QUESTIONS))
    for step in range(settings.training.steps):
        asked = step * ASKED + np.arange(ASKED)
        rows = [problem.row(settings.seed, i, QUESTIONS) for i in asked.tolist()]
        count = allotted(arm, rows, seen, state.params)
        given = state.params, chosen, step, asked, np.array(rows), count
        rollout, reward = bandit.rollout(*given)
        state, _ = update(state, (chosen, 1.0, 0.0), rollout)
        for m, of_question in zip(rows, reward, strict=True):
            seen[m] = allocation.after(seen[m], of_question)
    return state


def allotted(
    arm: str,
    rows: Sequence[int],
    seen: Mapping[int, allocation.Seen | None],
    logits: Float[Array, "M V"],
) -> Int[np.ndarray, "B"]:
    """Samples of each question asked: as many in all whatever the arm."""
    if arm == "8 each":
        return np.full(len(rows), MEAN)
    if arm == "by the truth":
        right = chances(logits)[rows]
        variance = right * (1 - right)
    else:
        known = [one for one in seen.values() if one is not None]
        overall = np.sum([(0.0, 0.0), *known], 0).tolist()
        variance = allocation.spread([seen[m] for m in rows], overall)
    return allocation.allot(variance, MEAN * len(rows), LEAST, MOST)
