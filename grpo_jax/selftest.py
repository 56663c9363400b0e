"""Does the sampler draw from the distribution that it says? Chi-squared, right here.

    python -m grpo_jax sample MODEL TEXT --self-test

Draws are counted in at most 16 bins and compared with probabilities that numpy computes
in float64 by sorting, a way that the sampler does not go. With a million draws the test
misses a sampler whose probabilities are off by 2% less than once in a thousand times;
it alarms without a cause less than once in a million.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats

from grpo_jax import crossing, prng, programs, rollout
from grpo_jax.models import load
from grpo_jax.models.settings import Numerics
from grpo_jax.pool import Question, Sampler
from grpo_jax.sampling import draw
from grpo_jax.sampling.settings import Sampling

BINS = 16
LEAST = 20  # expected draws of a bin
ALARM = 1e-7  # of one test; there are fewer than ten
DRAWS = 1_000_000
AT_ONCE = 10_000
GROUP, STEPS = 256, 20  # draws of the whole sampler
POWER = 8  # bins that a test of the softmax must have
RULES = {
    "softmax": draw.Rule(1.0),
    "temperature 0.7": draw.Rule(0.7),
    "top-k 20": draw.Rule(1.0, top_k=20),
    "top-p 0.9": draw.Rule(1.0, top_p=0.9),
    "min-p 0.05": draw.Rule(1.0, min_p=0.05),
    "all of them": draw.Rule(0.7, top_k=50, top_p=0.95, min_p=0.01),
}


class Verdict(NamedTuple):
    name: str
    draws: int
    bins: int
    p: float  # how often a right sampler would look this wrong or worse

    @property
    def is_right(self) -> bool:
        return self.p >= ALARM and self.bins > 1  # one bin would tell nothing


def probabilities(logits: np.ndarray, rule: draw.Rule) -> np.ndarray:
    """What the rule says, [V] in float64."""
    scaled = logits.astype(np.float64) / rule.temperature
    p = np.exp(scaled - scaled.max())
    order = np.argsort(-p, kind="stable")
    if rule.top_k is not None:
        p[p < p[order[min(rule.top_k, len(p)) - 1]]] = 0
    if rule.top_p is not None:
        before = np.cumsum(p[order]) - p[order]
        last = p[order][before < rule.top_p * p.sum()][-1]
        p[p < last] = 0
    if rule.min_p is not None:
        p[p < rule.min_p * p.max()] = 0
    return p / p.sum()


def verdict(name: str, tokens: np.ndarray, p: np.ndarray) -> Verdict:
    """Counts the tokens in bins of near-equal chance; one of chance 0 is wrong."""
    draws = len(tokens)
    bin_of, expected = _bins(p, draws)
    if np.any(p[tokens] == 0):
        return Verdict(name, draws, len(expected), 0.0)
    counts = np.bincount(bin_of[tokens], minlength=len(expected))
    statistic = ((counts - expected) ** 2 / expected).sum()
    chance = scipy.stats.chi2.sf(statistic, max(len(expected) - 1, 1))
    return Verdict(name, draws, len(expected), float(chance))


def _bins(p: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """The bin of each token, and the draws that are expected in each bin."""
    order = np.argsort(-p, kind="stable")
    share = max(1 / BINS, LEAST / draws)
    before = np.cumsum(p[order]) - p[order]
    bin_of = np.empty(len(p), int)
    bin_of[order] = np.minimum(before / share, BINS - 1).astype(int)
    _, bin_of = np.unique(bin_of, return_inverse=True)
    expected = np.bincount(bin_of, p) * draws
    while len(expected) > 1 and expected[-1] < LEAST:  # the tail joins its neighbour
        bin_of = np.minimum(bin_of, len(expected) - 2)
        expected = np.bincount(bin_of, p) * draws
    return bin_of, expected


def many(logits: np.ndarray, rule: draw.Rule, draws: int, seed: int) -> np.ndarray:
    """Tokens drawn from one row of logits by the sampler's own function."""
    key = prng.step_key(prng.root(seed), prng.Stream.SAMPLE, 0)
    fixed = crossing.up((logits.astype(np.float32), rule))
    tokens = [
        crossing.down(programs.draws(*fixed, jax.random.fold_in(key, i), AT_ONCE))
        for i in range(-(-draws // AT_ONCE))
    ]
    return np.concatenate(tokens)[:draws]


def run(
    model: load.Model, question: list[int], numerics: Numerics
) -> Iterator[Verdict]:
    """The verdicts, one after another: of drawing alone, then of the whole sampler.

    Logits are made flatter until they fill enough bins: where one token is certain, a
    greedy sampler would look right.
    """
    ids = crossing.up(np.asarray([[question]]))
    logits = programs.next_logits(model.spec, model.params, ids, numerics)
    logits = np.array(crossing.down(logits)[0, 0])
    heat = heat_of(logits)
    for name, rule in RULES.items():
        tokens = many(logits / heat, rule, DRAWS, seed=0)
        yield verdict(name, tokens, probabilities(logits / heat, rule))
    logits[model.tokenizer.size :] = -np.inf
    tokens = first_tokens(model, question, numerics, heat)
    p = probabilities(logits, draw.Rule(heat))
    yield verdict("a rollout's first token", tokens, p)


def heat_of(logits: np.ndarray) -> float:
    """The least of 1, 2, 4, ... at which draws fall into enough bins."""
    heat = 1.0
    while heat < 2**20:
        p = probabilities(logits, draw.Rule(heat))
        if len(_bins(p, GROUP * STEPS)[1]) >= min(POWER, len(p)):
            break
        heat *= 2
    return heat


def first_tokens(
    model: load.Model, question: list[int], numerics: Numerics, heat: float
) -> np.ndarray:
    """One token of many samples, over several steps, from the whole sampler."""
    settings = Sampling(temperature=heat, max_new=1, segment=1, rungs=1)
    text = model.tokenizer
    sampler = Sampler(model.spec, settings, GROUP, text.stop_ids, text.size, numerics)
    tokens = []
    for step in range(STEPS):
        key = prng.step_key(prng.root(0), prng.Stream.SAMPLE, step)
        only = [Question(0, question)]
        (answers,) = rollout.answers(sampler, model.params, only, key)
        tokens.append(answers.tokens[:, 0])
    return np.concatenate(tokens)
