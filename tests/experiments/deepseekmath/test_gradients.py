"""Gradients of groups out of those of samples: the package's own, and no bias."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

from grpo_jax import config, experiment, learner, prng, programs
from grpo_jax.records import Rewards
from grpo_jax.sampled import Rollout
from tests.models import examples

gradients = experiment.load("experiments/deepseekmath/gradients.py")
bandits = experiment.load("experiments/deepseekmath/bandits.py")
SPEC = dataclasses.replace(examples.SPECS["qwen2"], layers=1)
Q, S, G, C = 2, 4, 2, 6


@pytest.fixture(scope="module")
def pool():
    """Two questions of other lengths, four samples of each."""
    rng = np.random.default_rng(0)
    length = np.array([[6, 3, 1, 5], [2, 6, 4, 4]])
    rollout = Rollout(
        number=np.arange(Q),
        question=rng.integers(0, 97, (Q, 4)),
        is_question=np.arange(4) >= np.array([[0], [2]]),
        completion=rng.integers(0, 97, (Q, S, C)),
        length=length,
        logp=np.zeros((Q, S, C), np.float32),
    )
    parts = np.array([[1, 0, 0, 0], [1, 1, 0, 1]], np.float32)[:, :, None]
    here = np.arange(C) < length[:, :, None]
    rewards = Rewards(parts, here, here.any(-1))
    return gradients.Pool(SPEC, examples.params_of(SPEC), rollout, rewards)


def settings(chosen):
    """A step of which the parameters move by the gradient itself."""
    return config.Config(
        algorithm=chosen,
        sampling=config.Sampling(temperature=0.7, max_new=C),
        optimizer=config.Optimizer(name="sgd", learning_rate=1.0, clip_norm=None),
    )


@pytest.fixture(scope="module")
def samples(pool):
    return list(gradients.of_samples(settings(config.Algorithm()), pool))


@pytest.mark.parametrize("arm", ["z-score, 1/|o|", "leave-one-out"])
def test_a_step_of_the_learner_is_the_mean_over_the_groups(arm, pool, samples):
    chosen = dataclasses.replace(gradients.ARMS[arm], group_size=G)
    weight = gradients.grouped(chosen, pool.rewards).weight
    each = zip(weight, samples, strict=True)
    ours = np.mean([gradients.in_rows(w) @ x for w, x in each], (0, 1))
    run = learner.make(SPEC, settings(chosen), 1)
    state = learner.begin(run, programs.copy(pool.params), jax.random.key(0))
    key = prng.step_key(prng.root(0), prng.Stream.SELECT, 0)
    state, *_ = learner.learn(run, state, *apart(pool), key, beta=0.0)
    before, after = (ravel_pytree(x)[0] for x in (pool.params, state.policy.params))
    theirs = np.asarray(before - after)
    assert np.linalg.norm(theirs) > 0.01
    assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


def apart(pool):
    """Each group as a question of its own."""
    x, J = pool.rollout, S // G
    cut = lambda a: a.reshape(Q * J, G, *a.shape[2:])  # noqa: E731
    rollout = Rollout(
        np.arange(Q * J),
        np.repeat(x.question, J, 0),
        np.repeat(x.is_question, J, 0),
        *map(cut, (x.completion, x.length, x.logp)),
    )
    return rollout, Rewards(*map(cut, pool.rewards[:3]))


def test_groups_are_weighed_as_by_hand(pool):
    """Dr. GRPO's of 2: r − mean is ±1/2 where they differ, times 1/(G · 72)."""
    chosen = dataclasses.replace(gradients.ARMS["no std"], group_size=2)
    found = gradients.grouped(chosen, pool.rewards)
    half = 0.5 / (2 * 72)
    expected = [[[half, -half], [0, 0]], [[0, 0], [-half, half]]]
    np.testing.assert_allclose(found.weight, expected, rtol=1e-6)
    assert found.mixed == 0.5


def test_products_are_as_by_hand():
    """Samples (1, 0), (0, 1), (1, 1), (2, 0), in pairs whose gradients are a sum."""
    x = np.array([[1, 0], [0, 1], [1, 1], [2, 0]], float)
    rows = {(gradients.UNBIASED, 2): gradients.in_rows(np.ones((2, 2)))}
    (found,) = gradients.products(x @ x.T, rows, np.array([1.0, 0, 0, 0])).values()
    # The groups are (1, 1) and (3, 1), their mean (2, 1), ∇J here (1, 0).
    assert found == (6.0, 4.0, 5.0, 2.0, 4.0)
    assert np.isnan(gradients.apart(np.ones((1, 1))))


def test_a_jackknifed_mean_has_the_interval_of_student():
    x = np.array([1.0, 2.0, 4.0, 9.0])
    found = gradients.jackknifed(lambda some: x[some].mean(), 4)
    half = scipy.stats.t.ppf(0.975, 3) * x.std(ddof=1) / 2
    assert found.value == 4.0 and np.isclose(found.half, half)
    assert gradients.jackknifed(lambda some: x[some].mean(), 1) == (1.0, None)


QUESTIONS, SAMPLES, P = 1500, 16, 3


@pytest.fixture(scope="module")
def told():
    """What is found of samples whose gradients are known in expectation.

    Those of loss: −∇p / p + noise if right, ∇p / (1−p) + noise if wrong, so that
    E[r ∇ log π] = ∇p; and ∇p = (1, 0, 0) p + normal noise of deviation 1/2.
    """
    rng = np.random.default_rng(1)
    p = rng.uniform(0.2, 0.8, QUESTIONS)
    slope = p[:, None] * np.eye(P)[0] + rng.normal(0, 0.5, (QUESTIONS, P))
    right = rng.random((QUESTIONS, SAMPLES)) < p[:, None]
    each = np.where(right, -1 / p[:, None], 1 / (1 - p[:, None]))
    x = each[:, :, None] * slope[:, None] + rng.normal(size=(*right.shape, P))
    here = np.ones((QUESTIONS, SAMPLES, 1), bool)
    rewards = Rewards(right[:, :, None].astype(np.float32), here, here[:, :, 0])
    with pytest.MonkeyPatch.context() as patch:
        arms = {name: gradients.ARMS[name] for name in ("z-score", "leave-one-out")}
        patch.setattr(gradients, "ARMS", arms)
        patch.setattr(gradients, "SIZES", (2, 4, 8))
        patch.setattr(gradients, "of_samples", lambda *_: x.astype(np.float32))
        chosen = config.Config(algorithm=config.Algorithm(group_size=SAMPLES))
        pool = gradients.Pool(SPEC, None, None, rewards)
        return p, slope * 1 / 72, gradients.measured(chosen, pool)


def test_of_leave_one_out_expectations_are_found_at_every_size(told):
    _, slope, found = told
    truth = (slope.mean(0) ** 2).sum()
    of_questions = (slope**2).sum(1).mean()
    np.testing.assert_allclose(found["truth"], truth, rtol=0.15)
    for one in found["arms"]["leave-one-out"].values():
        np.testing.assert_allclose(one["mean"], truth, rtol=0.15)
        np.testing.assert_allclose(one["along"], truth, rtol=0.15)
        np.testing.assert_allclose(one["same"], of_questions, rtol=0.05)


def test_samples_are_as_long_as_they_were_made(told):
    """E‖s‖² of right ones is that of ‖∇p‖² / p² and of noise, 3."""
    p, slope, found = told
    square = (slope**2).sum(1) * 72**2
    right = (square / p).sum() / p.sum() + P
    wrong = (square / (1 - p)).sum() / (1 - p).sum() + P
    np.testing.assert_allclose(found["norms"]["right"], right, rtol=0.05)
    np.testing.assert_allclose(found["norms"]["wrong"], wrong, rtol=0.05)


def test_z_scores_are_found_to_weigh_questions_by_their_slope(told):
    """c as enumerated, at G = 8: of 1500 questions, with 2 groups each."""
    p, _, found = told
    scaled, plain = (np.array(found["shown"][k]) for k in ("z-score", "leave-one-out"))
    chosen = dataclasses.replace(gradients.ARMS["z-score"], group_size=8)
    c = bandits.slope(chosen, p)
    for some in (abs(p - 0.5) < 0.15, abs(p - 0.5) > 0.15):
        expected = (c * plain)[some].sum() / plain[some].sum()
        assert abs(scaled[some].sum() / plain[some].sum() / expected - 1) < 0.02


def test_the_law_of_groups_of_2_and_8_says_those_of_4(told):
    pools = [told[2]]
    law = gradients.Law.of(pools)
    ratio, cosine, turned = gradients.noise(pools, "leave-one-out").value
    truth = pools[0]["truth"]
    x = gradients.means(pools, "leave-one-out", [0])
    variance = (x["square"] - x["mean"]) * gradients.sizes(pools) / gradients.N / truth
    np.testing.assert_allclose(law.noise(gradients.sizes(pools)), variance, rtol=0.03)
    np.testing.assert_allclose(ratio, variance * truth / x["mean"])
    np.testing.assert_allclose(cosine, turned / np.sqrt(1 + ratio))


def test_the_best_size_is_where_the_law_is_least():
    law = gradients.Law(sample=100.0, pair=140.0, question=5.0)
    assert law.best == 7.0  # 1 + √(180 / 5)
    around = law.noise(np.array([6.9, 7.0, 7.1]))
    assert around.argmin() == 1
    np.testing.assert_allclose(law.noise(np.array([2.0])), 2 * 145 / 128)
