"""How a token's loss is put together, and what may not reach it."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from grpo_jax import config, prepare, prng
from grpo_jax.losses import objective, statistics
from grpo_jax.records import PolicyBatch
from grpo_jax.section import Refused
from tests.losses import batches

SURROGATES = list(batches.SETTINGS)
POISON = [np.nan, np.inf, -np.inf, 1e30, -1e30]


def everything(settings, logp, entropy, batch):
    total, measured, grads = batches.loss(settings, logp, entropy, batch)
    return jax.tree.leaves((total, grads, statistics.values(measured)))


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_nothing_at_masked_places_matters(surrogate, poison, float64):
    settings = batches.algorithm(surrogate, entropy_coef=0.1, off_policy_limit=0.1)
    logp, entropy, batch = batches.make(settings)
    clean = everything(settings, logp, entropy, batch)

    def spoil(x):
        if x.shape != batches.MASK.shape or x.dtype == bool:
            return x
        return jnp.where(jnp.asarray(batches.MASK), x, poison)

    spoilt = everything(settings, *jax.tree.map(spoil, (logp, entropy, batch)))
    for a, b in zip(clean, spoilt, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("surrogate", ["kl_cov", "clip_cov"])
def test_nothing_at_masked_places_is_selected(surrogate, poison, float64):
    settings = batches.algorithm(surrogate, top_entropy=0.5)
    made = batches.make(settings)[2]
    logp, entropy, batch = batches.numbers()
    spoilt = [np.where(batches.MASK, x, poison) for x in (logp, entropy)]
    advantage = np.where(batches.MASK, batch.advantage, poison)
    keys = prng.sample_keys(prng.root(0), jnp.arange(3), 4)
    other = prepare.minibatch(
        settings,
        jax.tree.map(jnp.asarray, batch._replace(advantage=advantage)),
        *map(jnp.asarray, spoilt),
        keys,
        rollout_tokens=int(batches.MASK.sum()),
        parts=1,
    )
    np.testing.assert_array_equal(other.is_selected, made.is_selected)
    np.testing.assert_array_equal(other.is_uncertain, made.is_uncertain)
    assert other.is_selected.any() and not (other.is_selected & ~batches.MASK).any()


@pytest.mark.parametrize("extreme", [-1e30, -1e4, 0.0])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_extreme_log_probabilities_stay_finite(surrogate, extreme):
    settings = batches.algorithm(surrogate)
    logp, entropy, batch = batches.make(settings)
    for name in ("logp", "old_logp", "ref_logp"):
        changed = {n: getattr(batch, n) for n in ("old_logp", "ref_logp")} | {
            "logp": logp
        }
        changed[name] = changed[name].at[0, 0, 1].set(extreme).at[2, 1, 0].set(extreme)
        now = changed.pop("logp")
        total, _, grads = batches.loss(
            settings, now, entropy, batch._replace(**changed)
        )
        assert np.isfinite(total), name
        assert np.isfinite(grads[0]).all(), name


def tokens(settings, **changes):
    """(slopes by logp, batch) with the paper's mean, one change at a time."""
    logp, entropy, batch = batches.make(settings)
    batch = batch._replace(**changes)
    return np.asarray(batches.loss(settings, logp, entropy, batch)[2][0]), batch


def kl_slope(batch, logp, beta=0.3):
    slope = beta * (1 - np.exp(batch.ref_logp - logp)) * batch.row_weight[:, :, None]
    return np.where(batches.MASK, slope, 0)


def test_masks_and_weights_of_the_policy_term_do_not_touch_the_kl(float64):
    logp = batches.make(config.Algorithm())[0]
    for settings, changes in (
        (config.Algorithm(), {"weight": jnp.zeros(logp.shape)}),
        (
            config.Algorithm(top_entropy=0.1),
            {"is_uncertain": jnp.zeros(logp.shape, bool)},
        ),
        (config.Algorithm(), {"advantage": jnp.zeros(logp.shape)}),
    ):
        slope, batch = tokens(settings, **changes)
        np.testing.assert_allclose(slope, kl_slope(batch, logp), rtol=1e-12, atol=1e-15)


def test_off_policy_rows_lose_their_negative_tokens_and_keep_the_kl(float64):
    settings = config.Algorithm(off_policy_limit=0.0)
    slope, batch = tokens(settings)
    plain, _ = tokens(config.Algorithm())
    logp = batches.make(settings)[0]
    n = np.maximum(batches.MASK.sum(-1, keepdims=True), 1)
    drift = np.where(batches.MASK, batch.old_logp - logp, 0).sum(-1, keepdims=True) / n
    dropped = batches.MASK & (np.asarray(batch.advantage) < 0) & (drift > 0)
    assert dropped.any() and (batches.MASK & ~dropped & (drift > 0)).any()
    expected = np.where(dropped, kl_slope(batch, logp), plain)
    np.testing.assert_allclose(slope, expected, rtol=1e-12, atol=1e-15)


def test_the_entropy_bonus_is_a_mean_over_the_chosen_tokens(float64):
    settings = config.Algorithm(entropy_coef=0.5, top_entropy=0.3)
    logp, entropy, batch = batches.make(settings)
    _, measured, (_, slope) = batches.loss(settings, logp, entropy, batch)
    chosen = np.asarray(batch.is_uncertain)
    assert 0 < chosen.sum() < batches.MASK.sum()
    np.testing.assert_allclose(slope, np.where(chosen, -0.5 / chosen.sum(), 0))
    mean = np.asarray(entropy)[batches.MASK].mean()
    np.testing.assert_allclose(statistics.values(measured)["entropy"], mean)


def test_no_reference_means_no_kl_and_a_kl_in_the_reward_is_not_in_the_loss(float64):
    logp, entropy, batch = batches.make(config.Algorithm())
    without = batch._replace(ref_logp=None)
    in_reward = config.Algorithm(kl=config.KL(placed="reward"))
    a = batches.loss(config.Algorithm(), logp, entropy, without, beta=0.0)
    b = batches.loss(in_reward, logp, entropy, batch)
    c = batches.loss(config.Algorithm(), logp, entropy, batch, beta=0.0)
    assert a[0] == b[0] and "kl" not in a[1] and "kl" not in b[1]
    np.testing.assert_allclose(a[0], c[0], 1e-14)


@hypothesis.given(st.sampled_from(SURROGATES), st.integers(0, 2), st.floats(-3, 0))
def test_a_row_does_not_feel_its_neighbours(surrogate, question, changed):
    settings = batches.algorithm(surrogate)
    logp, entropy, batch = batches.make(settings)
    _, _, (before, _) = batches.loss(settings, logp, entropy, batch)
    other = logp.at[question, 0].set(changed)
    _, _, (after, _) = batches.loss(settings, other, entropy, batch)
    rest = np.ones((3, 4), bool)
    rest[question, 0] = False
    np.testing.assert_array_equal(np.asarray(before)[rest], np.asarray(after)[rest])


def test_half_precision_inputs_are_computed_in_float32():
    settings = config.Algorithm()
    logp, _entropy, batch = batches.make(settings)
    half = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if x.ndim > 2 and x.dtype != bool else x, batch
    )
    half = half._replace(row_weight=batch.row_weight)
    total, _ = objective.policy_loss(
        settings, logp.astype(jnp.bfloat16), half, beta=0.3
    )
    exact, _ = objective.policy_loss(settings, logp, batch, beta=0.3)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, exact, 0.1)


def test_jit_traces_numbers_and_compiles_for_choices():
    traces = []

    @jax.jit
    def loss(settings, logp, batch):
        traces.append(settings.surrogate)
        return objective.policy_loss(settings, logp, batch, beta=settings.beta)[0]

    for surrogate in SURROGATES:
        settings = batches.algorithm(surrogate)
        logp, _, batch = batches.make(settings)
        for beta in (0.1, 0.2):
            changed = dataclasses.replace(settings, beta=beta)
            eager, _ = objective.policy_loss(changed, logp, batch, beta=beta)
            np.testing.assert_allclose(loss(changed, logp, batch), eager, 1e-5, 1e-6)
    assert traces == SURROGATES


def test_vmap_over_beta():
    settings = config.Algorithm()
    logp, _, batch = batches.make(settings)

    def loss(beta):
        return objective.policy_loss(settings, logp, batch, beta=beta)[0]

    betas = jnp.array([0.0, 0.1, 0.5])
    many = jax.vmap(loss)(betas)
    np.testing.assert_allclose(many, [loss(float(b)) for b in betas], 1e-5)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (
            config.Algorithm(),
            {"row_weight": None},
            "no row_weight, which algorithm.loss",
        ),
        (config.Algorithm(ratio_to="reference"), {"ref_logp": None}, "no ref_logp"),
        (batches.algorithm("kl_cov"), {}, "no is_selected, .*'kl_cov'"),
        (config.Algorithm(top_entropy=0.5), {}, "no is_uncertain"),
        (config.Algorithm(), {"entropy_weight": None}, "no entropy_weight"),
        (
            config.Algorithm(correction=config.Correction(level="token")),
            {"weight": None},
            "no weight, which algorithm.correction.level",
        ),
        (config.Algorithm(), {"is_row": jnp.ones((3, 1), bool)}, "PolicyBatch.is_row"),
    ],
)
def test_what_is_missing_is_named(settings, changes, message):
    logp, entropy, batch = batches.make(config.Algorithm())
    with pytest.raises(Refused, match=message):
        objective.policy_loss(
            settings, logp, batch._replace(**changes), beta=0.1, entropy=entropy
        )


def test_log_probabilities_of_another_shape_are_refused():
    settings = config.Algorithm()
    logp, _entropy, batch = batches.make(settings)
    with pytest.raises(
        Refused, match=r"logp has shape \(3, 4, 4\); it must be \(3, 4, 5\)"
    ):
        objective.policy_loss(settings, logp[:, :, :4], batch, beta=0.1)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_weight_on_what_is_not_given_is_refused(compiled):
    def loss(settings, logp, batch):
        return objective.policy_loss(settings, logp, batch, beta=settings.beta)[0]

    loss = jax.jit(loss) if compiled else loss
    settings = config.Algorithm(entropy_coef=0.1)
    logp, _, batch = batches.make(settings)
    with pytest.raises(
        Refused, match=r"algorithm.entropy_coef is not 0, but what it weighs"
    ):
        loss(settings, logp, batch)
    without = batch._replace(ref_logp=None)
    with pytest.raises(Refused, match=r"algorithm.beta is not 0, but .*ref_logp"):
        loss(config.Algorithm(), logp, without)
    assert np.isfinite(loss(config.Algorithm(beta=0.0), logp, without))


def gradient(settings, logp, batch, beta=0.0):
    def loss(logp):
        return objective.policy_loss(settings, logp, batch, beta=beta)[0]

    return jax.grad(loss)(logp)


def one_row(settings, old, ref, advantage=-1.0, **more):
    """A batch of one completion, ready for the loss."""
    shape = 1, 1, len(old)
    batch = PolicyBatch(
        is_completion=jnp.ones(shape, bool),
        advantage=jnp.full(shape, advantage),
        is_row=jnp.ones((1, 1), bool),
        old_logp=jnp.asarray(old).reshape(shape),
        ref_logp=jnp.asarray(ref).reshape(shape),
        row_weight=jnp.ones((1, 1)),
        **more,
    )
    return batch


def test_against_the_reference_drift_and_distance_are_still_from_the_old_policy():
    settings = config.Algorithm(
        ratio_to="reference", off_policy_limit=0.1, log_ratio_limit=None
    )
    logp = jnp.array([[[-1.0, -2.0]]])
    batch = one_row(settings, [-1.0, -2.0], [-0.5, -1.5])
    _, measured = objective.policy_loss(settings, logp, batch, beta=0.0)
    assert statistics.values(measured)["kl_old"] == 0
    slope = gradient(settings, logp, batch)  # ρ = e^−½, left alone where A < 0 ...
    np.testing.assert_allclose(slope, np.zeros((1, 1, 2)), atol=1e-7)  # ... clipped low
    batch = one_row(settings, [-1.0, -2.0], [-1.5, -2.5])  # ρ = e^½
    np.testing.assert_allclose(
        gradient(settings, logp, batch)[0, 0], [np.exp(0.5)] * 2, 1e-6
    )


def test_the_ratio_of_the_kl_is_to_the_old_policy_whatever_the_surrogate():
    """In expectation over π_old, its gradient is that of the reverse KL."""
    kl = config.KL(estimator="k3", gradient="ratio")
    vocabulary, rng = 5, np.random.default_rng(0)
    old, ref, theta = (jnp.asarray(rng.normal(size=vocabulary)) for _ in range(3))
    tokens = jnp.arange(vocabulary)

    def expected(theta, ratio_to):
        settings = config.Algorithm(kl=kl, ratio_to=ratio_to, loss_mean="sum")
        logp, old_logp, ref_logp = (jax.nn.log_softmax(x) for x in (theta, old, ref))
        batch = PolicyBatch(
            is_completion=jnp.ones((1, vocabulary, 1), bool),
            advantage=jnp.zeros((1, vocabulary, 1)),
            is_row=jnp.ones((1, vocabulary), bool),
            old_logp=old_logp[tokens][None, :, None],
            ref_logp=ref_logp[tokens][None, :, None],
            row_weight=jnp.exp(old_logp)[None],
        )
        logp = logp[tokens][None, :, None]
        return objective.policy_loss(settings, logp, batch, beta=1.0)[0]

    def reverse_kl(theta):
        logp = jax.nn.log_softmax(theta)
        return (jnp.exp(logp) * (logp - jax.nn.log_softmax(ref))).sum()

    for ratio_to in ("old", "reference"):
        np.testing.assert_allclose(
            jax.grad(expected)(theta, ratio_to), jax.grad(reverse_kl)(theta), 1e-4, 1e-5
        )


def test_drift_from_the_sampler_drops_rows_that_the_old_policy_would_keep():
    settings = config.Algorithm(off_policy_limit=0.1)
    logp = jnp.array([[[-1.0, -2.0]]])
    near, far = jnp.array([[[-1.0, -2.0]]]), jnp.array([[[-0.9, -1.8]]])  # mean 0.15
    for sampler, kept in ((near, True), (far, False), (far * jnp.nan, True)):
        batch = one_row(settings, [-1.0, -2.0], [-1.0, -2.0], sampler_logp=sampler)
        assert np.any(gradient(settings, logp, batch)) == kept


def test_a_row_of_one_token_has_its_own_drift():
    settings = config.Algorithm(off_policy_limit=0.1)
    batch = one_row(settings, [-1.0], [-1.0])
    assert not np.any(gradient(settings, jnp.array([[[-1.15]]]), batch))
    assert np.any(gradient(settings, jnp.array([[[-1.05]]]), batch))


def test_extremes_and_clips_of_rows_of_one_token():
    settings = config.Algorithm()
    shape = 1, 2, 2
    batch = PolicyBatch(
        is_completion=jnp.array([[[True, False], [True, True]]]),
        advantage=jnp.ones(shape),
        is_row=jnp.ones((1, 2), bool),
        old_logp=jnp.log(jnp.array([[[0.5, 0.5], [0.5, 0.4]]])),
        ref_logp=jnp.zeros(shape),
        row_weight=jnp.ones((1, 2)),
    )
    logp = jnp.log(jnp.array([[[0.7, 0.9], [0.4, 0.4]]]))  # ratios 1.4; 0.8, 1
    got = statistics.values(objective.policy_loss(settings, logp, batch, beta=0.0)[1])
    np.testing.assert_allclose(got["ratio_min"], 0.8, 1e-5)
    np.testing.assert_allclose(got["ratio_max"], 1.4, 1e-5)
    assert got["clip/high_max"] == 1 and got["clip/low_min"] == 0
    np.testing.assert_allclose(got["clip/high"], 1 / 3, 1e-6)


def test_a_token_that_the_sampler_did_not_score_counts_as_not_drifted():
    settings = config.Algorithm(off_policy_limit=0.1)
    logp = jnp.array([[[-1.0, -2.0]]])
    for drift, kept in ((0.3, False), (0.15, True)):  # over two tokens: 0.15, 0.075
        sampler = jnp.array([[[-1.0 + drift, jnp.nan]]])
        batch = one_row(settings, [-1.0, -2.0], [-1.0, -2.0], sampler_logp=sampler)
        assert np.any(gradient(settings, logp, batch)) == kept


def test_the_lowest_share_of_clipped_tokens_counts_rows_of_one_token():
    settings = config.Algorithm()
    batch = one_row(settings, [-1.0], [-1.0])
    got = objective.policy_loss(settings, jnp.array([[[-1.5]]]), batch, beta=0.0)[1]
    assert statistics.values(got)["clip/low_min"] == 1


def test_vespo_takes_the_weight_of_a_row_of_one_token_as_it_is():
    settings = config.Algorithm(
        surrogate="vespo", correction=config.Correction(level="sequence")
    )
    weight = jnp.full((1, 1, 1), 0.5)
    batch = one_row(settings, [-1.0], [-1.0], advantage=1.0, weight=weight)
    phi = np.exp(3 + 2 * np.log(0.5) - 3 * 0.5)  # e^λ w^k e^(−λw) with k = 2, λ = 3
    slope = gradient(settings, jnp.array([[[-1.0]]]), batch)
    np.testing.assert_allclose(slope, -phi, 1e-5)
