"""What is learned from a rollout: the same however it is computed, no pass too many."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, learner, packing, prng, programs, sampled, sharding
from grpo_jax.losses import statistics
from grpo_jax.models import heads
from grpo_jax.models.settings import Lora, Model, Numerics
from grpo_jax.pool import Answers, Question
from grpo_jax.records import Rewards
from grpo_jax.section import Refused
from tests.models import examples

SPEC = dataclasses.replace(examples.SPECS["qwen2"], layers=2)
B, G, C = 4, 4, 12
EXACT = Model(numerics=Numerics(compute="float64", chunk=16))
RATE = float(np.float32(0.1))  # schedules are computed in float32


def key():
    return prng.step_key(prng.root(0), prng.Stream.SELECT, 0)


def rollout(questions=B, lengths=(12, 6, 4, 2), seed=0):
    """Questions and completions of several lengths; one row is empty."""
    rng = np.random.default_rng(seed)
    asked = [
        Question(7 + i, rng.integers(0, 97, rng.integers(1, 6)).tolist())
        for i in range(questions)
    ]
    groups = []
    for question in asked:
        length = rng.permutation(lengths)
        length[0] = 0 if question.number == 8 else length[0]
        tokens, logp = rng.integers(0, 97, (G, C)), -rng.exponential(size=(G, C))
        ended = np.ones(G, bool)
        answers = question.number, tokens, length, logp, logp, ended
        groups.append(Answers(*answers))
    given = sampled.stack(asked, groups[::-1])
    is_token = np.arange(C) < given.length[:, :, None]
    parts = rng.normal(size=(questions, G, 1))
    return given, Rewards(parts, is_token, np.ones((questions, G), bool))


def settings(parts=1, **algorithm):
    algorithm = {"group_size": G, "beta": 0.04} | algorithm
    critic = algorithm.pop("critic", config.Critic())
    reference = algorithm.pop("reference", config.Reference())
    model = dataclasses.replace(EXACT, lora=algorithm.pop("lora", Lora()))
    return config.Config(
        model=model,
        algorithm=config.Algorithm(**algorithm),
        sampling=config.Sampling(temperature=0.8),
        optimizer=config.Optimizer(name="sgd", learning_rate=0.1),
        critic=critic,
        reference=reference,
        training=config.Training(parts=parts),
    )


def learned(chosen, mesh=None, given=None, changed=None):
    """The state after one rollout, its metrics, and how often each program ran."""
    run = learner.make(SPEC, chosen, 10, mesh)
    params = programs.copy(examples.params_of(SPEC, "float64"))
    if mesh is not None:
        params = jax.device_put(params, sharding.of_params(params, mesh)[0])
    state = learner.begin(run, params, jax.random.key(1))
    if changed is not None:
        state = changed(state)
    run, counts = counted(run)
    state, measured, _ = learner.learn(
        run, state, *(given or rollout()), key(), beta=chosen.algorithm.beta
    )
    return state, {k: float(x) for k, x in statistics.values(measured).items()}, counts


def counted(run):
    """The same learner, that counts what it runs."""
    counts = {}

    def counting(name, program):
        def call(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return program(*args, **kwargs)

        return call

    watched = run.programs._replace(
        **{n: counting(n, getattr(run.programs, n)) for n in ("score", "value")}
    )
    policy = run.policy._replace(update=counting("update", run.policy.update))
    critic = run.critic
    if critic is not None:
        critic = critic._replace(update=counting("critic", critic.update))
    return run._replace(programs=watched, policy=policy, critic=critic), counts


def moved(state):
    """The reference is a little elsewhere: its KL has a gradient."""
    return state._replace(reference=examples.params_of(SPEC, "float64", 2))


def same(a, b, tolerance=1e-10):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, tolerance, tolerance)


@functools.cache
def simply():
    """One device, one part, no bins: what everything else must agree with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WORTH", 0.0)
        state, measured, _ = learned(settings(mu=2, minibatches=2), changed=moved)
    return state.policy.params, measured


def test_the_update_is_that_of_the_objective(float64):
    """Against the loss of whole arrays, put together here from its pieces."""
    given, rewards = rollout()
    state, _, _ = learned(settings(beta=0.0), given=(given, rewards))
    texts = jax.tree.map(
        jnp.asarray,
        learner.scoring.Texts(
            given.question, given.is_question, given.completion, rewards.is_completion
        ),
    )
    reward = rewards.parts[:, :, 0]
    spread = reward.std(1, keepdims=True) + 1e-6
    advantage = (reward - reward.mean(1, keepdims=True)) / spread
    weight = advantage / np.maximum(given.length, 1) / given.length.size

    def objective(params):
        numerics = EXACT.numerics
        logp = learner.scoring.log_probs(SPEC, params, texts, 0.8, numerics).logp
        return (jnp.where(texts.is_completion, logp, 0).sum(-1) * weight).sum()

    params = examples.params_of(SPEC, "float64")
    rise = jax.jit(jax.grad(objective))(params)
    length = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(rise)))
    step = RATE / max(1.0, float(length))  # clip_norm is 1
    same(state.policy.params, jax.tree.map(lambda x, d: x + step * d, params, rise))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_bins_and_parts_change_nothing(parts, float64):
    """3 parts of 2 questions are 2 each of their 8 samples, and one is empty."""
    chosen = settings(parts, mu=2, minibatches=2)
    state, measured, _ = learned(chosen, changed=moved)
    params, expected = simply()
    same(state.policy.params, params)
    assert measured.keys() == expected.keys()
    for name in measured:
        same(measured[name], expected[name], 1e-9)


@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 2, 1), (1, 2, 2), (1, 1, 4)])
def test_a_mesh_changes_nothing(shape, float64):
    """On four lanes a minibatch of two questions is cut into half groups."""
    chosen = settings(mu=2, minibatches=2)
    mesh = sharding.mesh(*shape)

    def elsewhere(state):
        held = jax.tree.map(lambda x: x.sharding, state.reference)
        return state._replace(reference=jax.device_put(moved(state).reference, held))

    state, measured, _ = learned(chosen, mesh, changed=elsewhere)
    layout = jax.tree.map(lambda x: x.sharding, state.policy.params)
    assert layout == sharding.of_params(state.policy.params, mesh)[0]
    params, expected = simply()
    same(state.policy.params, params)
    for name in expected:
        same(measured[name], expected[name], 1e-9)


def test_adapters_and_a_critic_on_a_mesh_are_the_same(float64):
    """The model that is adapted comes on one device. Adapters are float32 always."""
    advantage = config.Advantage(estimator="gae", scale_rewards="none")
    chosen = settings(2, lora=Lora(rank=2), advantage=advantage)
    alone, expected, _ = learned(chosen)
    run = learner.make(SPEC, chosen, 10, sharding.mesh(2, 2, 1))
    here = jax.local_devices()[0]
    params = jax.device_put(examples.params_of(SPEC, "float64"), here)
    state = learner.begin(run, programs.copy(params), jax.random.key(1))
    where = jax.tree.map(lambda x: x.sharding, state.frozen)
    assert where == sharding.of_params(state.frozen, run.mesh)[0]
    state, measured, _ = learner.learn(run, state, *rollout(), key(), beta=0.04)
    same(state.policy.params, alone.policy.params, 1e-6)
    same(state.critic.params, alone.critic.params, 1e-6)
    same(statistics.values(measured)["kl"], expected["kl"], 1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"beta": 0.0}, {"update": 1}),
        ({}, {"score": 1, "update": 1}),  # the reference
        ({"mu": 3}, {"score": 2, "update": 3}),
        ({"mu": 2, "minibatches": 2, "beta": 0.0}, {"score": 2, "update": 4}),
        ({"top_entropy": 0.5, "beta": 0.0}, {"score": 1, "update": 1}),
        # The scores of before are those of now, before the first update.
        ({"top_entropy": 0.5, "mu": 2}, {"score": 3, "update": 2}),
        (
            {"surrogate": "clip_cov", "minibatches": 2, "beta": 0.0},
            {"score": 3, "update": 2},
        ),
        ({"correction": config.Correction(level="token")}, {"score": 2, "update": 1}),
        (
            {"advantage": config.Advantage(estimator="gae", scale_rewards="none")},
            {"score": 1, "value": 1, "update": 1, "critic": 1},
        ),
    ],
)
def test_only_what_is_read_is_computed(changes, expected, float64):
    assert learned(settings(**changes))[2] == expected


def test_ratios_leave_1_from_the_second_update_on(float64):
    chosen = settings(mu=1, beta=0.0)
    once = learned(chosen)[1]
    assert once["ratio_min"] == once["ratio_max"] == 1 and once["clip/tokens"] == 0
    fast = dataclasses.replace(chosen.optimizer, learning_rate=3.0)
    twice = dataclasses.replace(settings(mu=2, beta=0.0), optimizer=fast)
    _, measured, _ = learned(twice)
    assert measured["ratio_min"] < 0.8 and measured["ratio_max"] > 1.2
    assert measured["clip/tokens"] > 0.1


def test_a_metric_does_not_grow_with_the_number_of_updates(float64):
    """Small steps: every update has nearly the loss of the first."""
    slow = dataclasses.replace(settings().optimizer, learning_rate=1e-6)
    once, four = (
        learned(dataclasses.replace(settings(mu=mu, beta=0.0), optimizer=slow))[1]
        for mu in (1, 4)
    )
    for name in once.keys() & four.keys():
        np.testing.assert_allclose(four[name], once[name], 1e-3, 1e-3, err_msg=name)


def test_old_scores_stay_those_of_before(float64):
    """Two updates against one policy, by hand: the second one's ratio is π₁/π₀."""
    chosen = settings(mu=2, beta=0.0)
    _, measured, _ = learned(chosen)
    given, rewards = rollout()
    first, _, _ = learned(settings(mu=1, beta=0.0))
    texts = learner.scoring.Texts(
        given.question, given.is_question, given.completion, rewards.is_completion
    )

    def logp(params):
        where = jax.tree.map(jnp.asarray, texts)
        return programs.score(SPEC, params, where, 0.8, EXACT.numerics).logp

    gap = logp(first.policy.params) - logp(examples.params_of(SPEC, "float64"))
    ratio = np.exp(np.asarray(gap))[rewards.is_completion]
    np.testing.assert_allclose(measured["ratio_max"], max(1, ratio.max()), 1e-9)
    np.testing.assert_allclose(measured["ratio_min"], min(1, ratio.min()), 1e-9)


def test_the_gap_to_the_sampler_is_measured_without_a_pass_of_its_own(float64):
    """Recorded log-probabilities are random here: so is the gap."""
    once = learned(settings(beta=0.0))
    assert once[2] == {"update": 1}
    scored = learned(settings(beta=0.0, correction=config.Correction(level="token")))
    assert once[1]["mismatch/kl"] != 0
    same(once[1]["mismatch/kl"], scored[1]["mismatch/kl"], 1e-9)


def test_adapters_need_no_copy_for_a_reference(float64):
    chosen = settings(lora=Lora(rank=2), mu=2)
    state, measured, counts = learned(chosen)
    assert state.reference is None and counts == {"score": 2, "update": 2}
    assert state.policy.params.keys() == {"layers"}
    same(state.frozen, examples.params_of(SPEC, "float64"))
    assert np.abs(state.policy.params["layers"]["wq_b"]).max() > 0
    assert measured["kl"] > 0  # the second update's; the first one's is 0


@pytest.mark.parametrize("held", ["device", "host"])
def test_a_reference_follows_when_it_is_time(held, float64):
    reference = config.Reference(held=held, every=2, mix=0.25)
    chosen = settings(reference=reference)
    run = learner.make(SPEC, chosen, 10)
    params = examples.params_of(SPEC, "float64")
    state = learner.begin(run, programs.copy(params), jax.random.key(1))
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(state.reference)}
    assert kinds == {"pinned_host" if held == "host" else "device"}
    state, _, _ = learner.learn(run, state, *rollout(), key(), beta=0.04)
    same(learner.follow(run, state, 1).reference, params)
    with jax.transfer_guard("disallow"):
        after = learner.follow(run, state, 2)
    mixed = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, params, after.policy.params)
    same(after.reference, mixed)
    assert {x.sharding.memory_kind for x in jax.tree.leaves(after.reference)} == kinds


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_a_critic_learns_what_to_expect(trunk, float64):
    """All rewards are 1, so the loss falls to where every value is 1."""
    advantage = config.Advantage(estimator="gae", scale_rewards="none")
    changes = {"learning_rate": 0.02} if trunk == "own" else {"weight": 0.5}
    critic = config.Critic(trunk=trunk, clip=10.0, **changes)
    chosen = settings(beta=0.0, advantage=advantage, critic=critic)
    run = learner.make(SPEC, chosen, 100)
    params = programs.copy(examples.params_of(SPEC, "float64"))
    state = learner.begin(run, params, jax.random.key(1))
    given, rewards = rollout()
    rewards = rewards._replace(parts=np.ones_like(rewards.parts))
    errors = []
    for _ in range(20):
        state, measured, _ = learner.learn(run, state, given, rewards, key(), beta=0.0)
        errors.append(float(statistics.values(measured)["value/error"]))
    assert errors[-1] < 0.1 * errors[0]
    assert (state.critic is None) == (trunk == "shared")


def test_a_critics_step_is_along_the_gradient_of_its_loss(float64):
    advantage = config.Advantage(estimator="gae", scale_rewards="none")
    chosen = settings(beta=0.0, advantage=advantage)
    given, rewards = rollout()
    state, _, _ = learned(chosen, given=(given, rewards))
    run = learner.make(SPEC, chosen, 10)
    params = programs.copy(examples.params_of(SPEC, "float64"))
    first = learner.begin(run, params, jax.random.key(1)).critic.params
    texts = learner.scoring.Texts(
        given.question, given.is_question, given.completion, rewards.is_completion
    )
    texts = jax.tree.map(jnp.asarray, texts)

    def loss(params, returns):
        hidden = learner.scoring.states(SPEC, params, texts, EXACT.numerics)
        error = heads.scalar(params["head"], hidden) - returns
        kept = jnp.where(texts.is_completion, error**2, 0)
        return kept.sum() / texts.is_completion.sum() / 2

    # γ = λ = 1: what should have been expected everywhere is the row's reward.
    fall = jax.jit(jax.grad(loss))(first, jnp.asarray(rewards.parts))
    norm = float(np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(fall))))
    step = float(np.float32(1e-5)) / max(1.0, norm)
    expected = jax.tree.map(lambda x, d: x - step * d, first, fall)
    same(state.critic.params, expected, 1e-9)


def test_nothing_compiles_again_for_a_batch_of_the_same_shape(float64):
    """By JAX's own event, of all programs: in a second and third rollout, none."""
    chosen = settings(2, mu=2, minibatches=2)
    run = learner.make(SPEC, chosen, 10)
    params = programs.copy(examples.params_of(SPEC, "float64"))
    state = learner.begin(run, params, jax.random.key(1))
    seen = programs.Compilations()
    for seed in (0, 1, 2):
        given = rollout(seed=seed)
        state, _, _ = learner.learn(run, state, *given, key(), beta=0.04 + seed)
        if seed == 0:
            first = seen.count
    assert seen.count == first > 0
    lanes = packing.Lanes(0, 1)
    assert packing.lay(given[0].length, lanes, 2, 2, C, 8).place is not None


def test_a_state_of_another_optimizer_is_refused(float64):
    run = learner.make(SPEC, settings(), 10)
    adam = dataclasses.replace(settings(), optimizer=config.Optimizer())
    params = programs.copy(examples.params_of(SPEC, "float64"))
    other = learner.make(SPEC, adam, 10)
    state = learner.begin(other, params, jax.random.key(1))
    message = r"policy's state is of another .*mu.* expected nothing.* in all"
    with pytest.raises(Refused, match=message):
        learner.learn(run, state, *rollout(), key(), beta=0.0)


def test_gradients_that_are_no_numbers_change_nothing_and_then_stop_the_run(float64):
    chosen = settings(beta=0.0)
    optimizer = dataclasses.replace(chosen.optimizer, most_skips=2)
    run = learner.make(SPEC, dataclasses.replace(chosen, optimizer=optimizer), 10)
    params = examples.params_of(SPEC, "float64")
    params = params | {"norm": params["norm"].at[3].set(np.nan)}
    state = learner.begin(run, programs.copy(params), jax.random.key(1))
    for skips in (1, 2):
        state, measured, _ = learner.learn(run, state, *rollout(), key(), beta=0.0)
        assert float(statistics.values(measured)["skipped"]) == 1
        assert state.policy.optimizer.notfinite_count == skips
    same(state.policy.params, params)
    with pytest.raises(Refused, match="last 2 updates had no finite gradient"):
        learner.learn(run, state, *rollout(), key(), beta=0.0)


def test_a_row_of_no_numbers_is_named():
    given, rewards = rollout()
    given.logp[2, 1, 0] = np.nan
    given.length[2, 1] = 3
    rewards = rewards._replace(is_completion=np.arange(C) < given.length[:, :, None])
    message = r"question 9, sample 1: token 0 has a log-probability of no number"
    with pytest.raises(Refused, match=message):
        learned(settings(), given=(given, rewards))


def unasked(given, rewards):
    is_question = given.is_question.copy()
    is_question[1] = False
    return given._replace(is_question=is_question), rewards


def of_others(given, rewards):
    return given, jax.tree.map(lambda x: x[:3], rewards)


def longer(given, rewards):
    return given, rewards._replace(is_completion=np.ones((B, G, C), bool))


def nothing(given, rewards):
    return jax.tree.map(lambda x: x[:0], (given, rewards))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unasked, "question 8 has no tokens"),
        (of_others, r"Rewards.parts has shape \(3, 4, 1\), so B = 3; but .* B = 4"),
        (longer, "token .* is rewarded, and not sampled, and so"),
        (nothing, r"Rollout.number has shape \(0,\); B is empty"),
    ],
)
def test_a_rollout_that_cannot_be_learned_from_is_refused(change, message):
    with pytest.raises(Refused, match=message):
        learned(settings(), given=change(*rollout()))


def test_what_is_trained_is_stored_in_float32():
    half = dataclasses.replace(settings().model, dtype="bfloat16")
    with pytest.raises(Refused, match=r"Set model\.dtype to float32 and"):
        learner.make(SPEC, dataclasses.replace(settings(), model=half), 10)
    adapted = dataclasses.replace(half, lora=Lora(rank=2))
    learner.make(SPEC, dataclasses.replace(settings(), model=adapted), 10)


def test_groups_of_another_size_are_refused():
    with pytest.raises(Refused, match=r"groups of 4; algorithm.group_size is 8"):
        learned(settings(group_size=8))


def test_minibatches_that_do_not_divide_are_refused():
    with pytest.raises(Refused, match=r"training.batch_size is 8; .* 9 would do"):
        settings(minibatches=3)
    with pytest.raises(Refused, match=r"has 4 questions; .* 6"):
        chosen = dataclasses.replace(
            settings(),
            algorithm=config.Algorithm(group_size=G, minibatches=3),
            training=config.Training(batch_size=9),
        )
        learned(chosen)
