"""Every setting changes something that can be observed.

Each field of the configuration has a proof: a value, and the other settings under which
it is read, that change what a fixed rollout, a sampler, a model or a learner gives, or,
in `test_no_dead_knob_of_runs`, a short run. A new field without a proof fails here.
"""

import dataclasses
import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo_jax import (
    config,
    learner,
    optimizers,
    pool,
    prepare,
    prng,
    programs,
    rollout,
    scoring,
)
from grpo_jax.losses import kl, objective
from grpo_jax.models import load, lora, settings
from grpo_jax.records import Rewards
from grpo_jax.section import Refused
from tests import test_learner, test_no_dead_knob_of_runs
from tests.models import examples
from tests.runs import build

A, V, K = "algorithm.", "algorithm.advantage.", "algorithm.kl."
STEPS = {V + "supervision": "process"}
UNSCALED = {V + "scale_rewards": "none"}
CRITIC = UNSCALED | {V + "estimator": "gae", A + "mu": 2}
PROOFS = {  # path → (a value, the settings under which it matters)
    "sampling.temperature": (0.5, {}),
    "sampling.top_k": (2, {}),
    "sampling.top_p": (0.3, {}),
    "sampling.min_p": (0.9, {}),
    "sampling.max_new": (5, {}),
    "sampling.min_new": (6, {}),
    "sampling.stop_strings": (("b",), {}),
    "sampling.max_prompt": (40, {}),
    "sampling.rows": (4, {"algorithm.group_size": 4}),
    "sampling.segment": (3, {}),
    "sampling.rungs": (2, {}),
    "sampling.cache": ("bfloat16", {}),
    "optimizer.name": ("lion", {}),
    "optimizer.learning_rate": (0.5, {}),
    "optimizer.schedule": ("cosine", {}),
    "optimizer.warmup": (3, {}),
    "optimizer.final_rate": (0.5, {"optimizer.schedule": "linear"}),
    "optimizer.b1": (0.5, {}),
    "optimizer.b2": (0.5, {}),
    "optimizer.eps": (0.1, {}),
    "optimizer.momentum": (0.5, {"optimizer.name": "sgd"}),
    "optimizer.weight_decay": (0.5, {}),
    "optimizer.clip_norm": (0.1, {}),
    "optimizer.most_skips": (1, {}),
    "training.parts": (3, {}),
    "training.packed": (False, {}),
    "reference.held": ("host", {}),
    "reference.every": (1, {}),
    "reference.mix": (0.5, {"reference.every": 1}),
    "critic.trunk": ("shared", CRITIC),
    "critic.learning_rate": (0.5, CRITIC),
    "critic.weight": (0.5, CRITIC | {"critic.trunk": "shared"}),
    "critic.clip": (0.01, CRITIC | {"critic.learning_rate": 0.5}),
    "model.name": ("another model", {}),  # its folder: see on_a_model
    "model.dtype": ("bfloat16", {}),
    "model.numerics.compute": ("bfloat16", {}),
    "model.numerics.products": ("high", {}),
    "model.numerics.softmax": ("float64", {}),
    "model.numerics.norm": ("float64", {}),
    "model.numerics.logits": ("float64", {}),
    "model.numerics.remat": ("full", {}),
    "model.numerics.attention": ("cudnn", {"model.numerics.compute": "bfloat16"}),
    "model.numerics.chunk": (2, {}),
    "model.tiny.layers": (1, {}),
    "model.tiny.width": (64, {}),
    "model.tiny.heads": (2, {}),
    "model.tiny.kv_heads": (1, {}),
    "model.tiny.ffw": (64, {}),
    "model.tiny.max_length": (64, {}),
    "model.lora.rank": (2, {}),
    "model.lora.alpha": (2.0, {"model.lora.rank": 2}),
    "model.lora.targets": ("wo", {"model.lora.rank": 2}),
    A + "mu": (2, {}),
    A + "minibatches": (2, {}),
    A + "beta": (0.5, {}),
    A + "surrogate": ("sapo", {}),
    A + "clip_low": (0.01, {}),
    A + "clip_high": (0.01, {}),
    A + "importance_level": ("sequence", {}),
    A + "ratio_to": ("reference", {}),
    A + "log_ratio_limit": (0.01, {A + "clip_low": 0.001, A + "clip_high": 0.001}),
    A + "ratio_max": (1.25, {}),
    A + "dual_clip": (1.25, {}),
    A + "weight_low": (0.99, {A + "surrogate": "cispo"}),
    A + "weight_high": (1.01, {A + "surrogate": "cispo"}),
    A + "gate_positive": (2.0, {A + "surrogate": "sapo"}),
    A + "gate_negative": (2.0, {A + "surrogate": "sapo"}),
    A + "gamma_positive": ((2.0, 2.0), {A + "surrogate": "vespo"}),
    A + "gamma_negative": ((2.0, 2.0), {A + "surrogate": "vespo"}),
    A + "quadratic": (2.0, {A + "surrogate": "dro"}),
    A + "cov_fraction": (0.5, {A + "surrogate": "kl_cov"}),
    A + "cov_coef": (2.0, {A + "surrogate": "kl_cov"}),
    A + "cov_low": (0.01, {A + "surrogate": "clip_cov", A + "cov_fraction": 0.5}),
    A + "cov_high": (
        0.02,
        {A + "surrogate": "clip_cov", A + "cov_fraction": 0.5, A + "cov_low": 0.01},
    ),
    A + "off_policy_limit": (0.0, {}),
    A + "top_entropy": (0.5, {}),
    A + "entropy_coef": (0.1, {}),
    A + "loss_mean": ("per_token", {}),
    A + "loss_constant": (
        3,
        {A + "loss_mean": "over_constant", A + "loss_constant": 4},
    ),
    A + "empty_rows": ("dropped", {}),
    V + "supervision": ("process", {}),
    V + "estimator": ("leave_one_out", {}),
    V + "scale_rewards": ("none", {}),
    V + "ddof": (1, {}),
    V + "eps": (0.5, {}),
    V + "eps_at": ("floor", {V + "eps": 0.5}),
    V + "group_of_one": ("raw", {}),
    V + "group_by": ("level", {}),
    V + "reward_weights": ((1.0, 3.0), {}),
    V + "normalise_each": (True, {}),
    V + "whiten": ("tokens", {}),
    V + "gamma": (0.5, {}),
    V + "gae_lambda": (0.5, UNSCALED | {V + "estimator": "gae"}),
    V + "reward_temperature": (0.5, UNSCALED | {V + "estimator": "softmax"}),
    V + "correct_above": (0.05, UNSCALED | {V + "estimator": "indicator"}),
    V + "wrong_weight": (-1.0, UNSCALED | {V + "estimator": "indicator"}),
    K + "estimator": ("k2", {}),
    K + "gradient": ("straight_through", {}),
    K + "placed": ("reward", {}),
    K + "log_limit": (0.1, {}),
    K + "limit": (0.01, {}),
    K + "target": (0.1, {}),
    K + "horizon": (10.0, {K + "target": 0.1}),
    "algorithm.correction.level": ("token", {}),
    "algorithm.correction.mode": (
        "mask",
        {"algorithm.correction.level": "token", "algorithm.correction.high": 1.05},
    ),
    "algorithm.correction.low": (0.95, {"algorithm.correction.level": "token"}),
    "algorithm.correction.high": (1.05, {"algorithm.correction.level": "token"}),
    "algorithm.correction.normalise": (True, {"algorithm.correction.level": "token"}),
    "algorithm.rejection.statistic": (
        "sequence_mean",
        {"algorithm.rejection.statistic": "token", "algorithm.rejection.high": 1.1},
    ),
    "algorithm.rejection.measure": (
        "k2",
        {"algorithm.rejection.statistic": "token", "algorithm.rejection.high": 1.1},
    ),
    "algorithm.rejection.low": (
        0.9,
        {"algorithm.rejection.statistic": "token", "algorithm.rejection.high": 9.0},
    ),
    "algorithm.rejection.high": (
        1.1,
        {"algorithm.rejection.statistic": "token", "algorithm.rejection.low": 0.1},
    ),
}
BY_LEARNING = {
    "training.parts",
    "training.packed",
    A + "minibatches",
    A + "mu",
}  # and these two sections


def leaves(cls, prefix=""):
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from leaves(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


@functools.cache
def fixed_rollout():
    """Two questions, four samples, up to six tokens; one row empty, one group single."""
    rng = np.random.default_rng(0)
    shape = (3, 4, 6)
    old_logp = -rng.exponential(1.0, shape)
    logp, ref_logp, sampler_logp = (
        old_logp + rng.normal(0, 0.3, shape) for _ in range(3)
    )
    length = np.array([[6, 3, 4, 2], [5, 0, 1, 6], [4, 4, 6, 2]])
    is_valid = np.ones(shape[:2], bool)
    is_valid[2, 1:] = False
    end = np.stack([length // 2 - 1, length - 1], -1).clip(0)
    rewards = Rewards(
        parts=rng.choice([0.0, 0.1, 1.0], (*shape[:2], 2)),
        is_completion=np.arange(6) < length[:, :, None],
        is_valid=is_valid,
        step_reward=rng.choice([0.0, 0.5, 1.0], (*shape[:2], 2)),
        step_end=end,
        is_step=np.ones((*shape[:2], 2), bool),
        baseline=np.array([0.5, 0.0, 1.0]),
        value=rng.normal(0, 1, shape),
        columns={"level": np.array([0, 0, 1])},
    )
    scores = prepare.Scores(old_logp, ref_logp, sampler_logp)
    arrays = rewards, scores, logp, rng.exponential(1.0, shape)
    return jax.tree.map(jnp.asarray, arrays)


def on_a_rollout(chosen):
    """Loss, gradient and next β of the fixed rollout."""
    rewards, scores, logp, entropy = fixed_rollout()
    algorithm = chosen.algorithm
    everyone = jnp.ones(logp.shape[:2], bool)
    batch, _ = prepare.rollout(
        algorithm, rewards, scores, everyone, beta=algorithm.beta
    )
    keys = prng.sample_keys(prng.root(0), jnp.arange(3), 4)
    batch = prepare.minibatch(
        algorithm, batch, logp, entropy, keys, rollout_tokens=43, parts=1
    )

    def loss(logp):
        return objective.policy_loss(
            algorithm, logp, batch, beta=algorithm.beta, entropy=entropy
        )[0]

    value, grad = jax.value_and_grad(loss)(logp)
    beta = jnp.asarray(algorithm.beta)
    after = kl.next_beta(algorithm.kl, beta, jnp.asarray(0.5), 8)
    return np.concatenate([[value, after], np.ravel(grad)])


def on_a_sampler(chosen):
    """What a rollout of a small model gives, and the shapes that it takes."""
    spec = examples.SPECS["qwen3"]
    given = pool.Sampler(spec, chosen, 4, (1, 2, 3), spec.vocab)
    asked = [pool.Question(i, [i, 5], [6, 6, 2, 2]) for i in range(4)]
    asked = [q._replace(budgets=np.minimum(q.budgets, chosen.max_new)) for q in asked]
    strings = chosen.stop_strings

    def letters(tokens):
        return "".join(chr(97 + i % 26) for i in tokens)

    watch = rollout.stop_strings(strings, letters) if strings else None
    run = pool.Pool(given, examples.published(spec), asked, jax.random.key(0))
    seen = []
    while run.is_busy:
        run.arrange()
        drawn = jax.device_get(run.dispatch())
        seen += [run.shape.size, run.store.key[0].nbytes, *run.store.key[0].shape]
        seen += run.prefixes.key[0].shape
        seen += [drawn.logp.sum(), drawn.plain.sum()]
        run.take(drawn, watch)
        seen += [int(group.length.sum()) for group in run.leave()]
    return np.asarray(seen, float)


def on_an_optimizer(chosen):
    """Where six gradients lead, two of them not finite, and how many were let pass."""
    params = {"w": jnp.ones((2, 2)), "norm": jnp.ones(2)}
    optimizer = optimizers.make(chosen, 6)
    state, seen = optimizer.init(params), []
    for i, size in enumerate((0.2, -0.05, np.nan, np.nan, 3.0, -0.4)):
        grads = {"w": size * jnp.arange(4.0).reshape(2, 2), "norm": size * jnp.ones(2)}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen += [float(x.sum()) for x in jax.tree.leaves(params)]
        try:
            optimizers.check(chosen, state)
        except Refused:
            seen.append(i)
    return np.pad(seen, (0, 20 - len(seen)))


@functools.cache
def another_model():
    folder = pathlib.Path(tempfile.mkdtemp()) / "model"
    small = settings.Model(tiny=settings.Tiny(layers=1, width=32, ffw=32))
    load.save(folder, load.load(small, jax.random.key(1)))
    return str(folder)


def on_a_model(chosen):
    """Its numbers, its scores of a fixed text, and the size of its gradient's program."""
    if chosen.name == "another model":
        chosen = dataclasses.replace(chosen, name=another_model())
    model = load.load(chosen, jax.random.key(0))
    spec, params = model.spec, model.params
    if chosen.lora.rank:
        adapters = lora.init(params, chosen.lora, jax.random.key(1))
        adapters = jax.tree.map(lambda x: x + 0.1, adapters)
        params = lora.join(params, adapters, chosen.lora)
    ids = jnp.arange(12).reshape(1, 2, 6)
    texts = scoring.Texts(ids[:, 0], ids[:, 0] >= 0, ids, ids >= 0)

    def total(params):
        return scoring.log_probs(spec, params, texts, 1.0, chosen.numerics).logp.sum()

    value, grads = jax.jit(jax.value_and_grad(total))(params)
    program = len(str(jax.make_jaxpr(jax.grad(total))(params)))
    sizes = sum(x.nbytes for x in jax.tree.leaves(params))
    pull = [float(jnp.abs(x.astype(float)).sum()) for x in jax.tree.leaves(grads)]
    return np.array([float(value), sum(pull), program, sizes, spec.max_length])


def on_a_learner(chosen):
    """Where a rollout leads policy, critic and reference, and how it is laid out."""
    chosen = dataclasses.replace(chosen, model=test_learner.EXACT)
    run = learner.make(test_learner.SPEC, chosen, 10)
    params = programs.copy(examples.params_of(test_learner.SPEC, "float64"))
    state = learner.begin(run, params, jax.random.key(1))
    seen, update = [], run.policy.update

    def noting(state, known, batch, place, parts):
        seen.extend([parts, place is None, *batch.texts.completion.shape])
        return update(state, known, batch, place, parts=parts)

    run = run._replace(policy=run.policy._replace(update=noting))
    given = test_learner.rollout()
    state, _, _ = learner.learn(run, state, *given, test_learner.key(), beta=0.04)
    state = learner.follow(run, state, 1)
    sums = [float(jnp.abs(x).sum()) for x in jax.tree.leaves(state)]
    held = jax.tree.leaves(state.reference) or jax.tree.leaves(state.policy.params)
    kinds = [x.sharding.memory_kind == "pinned_host" for x in held]
    return np.array(seen + sums + kinds, float)


@functools.cache
def observe(running, items):
    values = dict(items)
    if running == "model":
        return on_a_model(build(config.Config, values).model)
    if running == "optimizer":
        fast = {"optimizer.learning_rate": 0.1}
        return on_an_optimizer(build(config.Config, fast | values).optimizer)
    if running == "learner":
        few = {"training.batch_size": 4, "algorithm.group_size": 4}
        few |= {"optimizer.learning_rate": 0.1, "optimizer.name": "sgd"}
        return on_a_learner(build(config.Config, few | values))
    if running == "sampling":
        whole = {"sampling.max_new": 8, "sampling.segment": 2}
        return on_a_sampler(build(config.Config, whole | values).sampling)
    return on_a_rollout(build(config.Config, values))


def unproved(cls):
    return set(leaves(cls)) ^ (set(PROOFS) | set(test_no_dead_knob_of_runs.PROOFS))


def test_every_field_has_a_proof_and_every_proof_a_field():
    assert not unproved(config.Config)


def test_a_field_without_a_proof_is_found():
    @dataclasses.dataclass(frozen=True)
    class Longer(config.Config):
        forgotten: int = 3

    assert unproved(Longer) == {"forgotten"}


def test_the_same_settings_give_the_same_observation(float64):
    first = observe("algorithm", ())
    observe.cache_clear()
    np.testing.assert_array_equal(first, observe("algorithm", ()))


@pytest.mark.parametrize("path", PROOFS)
def test_changing_the_field_changes_what_is_observed(path, float64):
    value, given = PROOFS[path]
    running = path.split(".")[0]
    if path in BY_LEARNING or running in ("reference", "critic"):
        running = "learner"
    before = observe(running, tuple(given.items()))
    after = observe(running, tuple((given | {path: value}).items()))
    assert np.isfinite(before).all() and np.isfinite(after).all()
    assert before.shape != after.shape or np.abs(before - after).max() > 1e-6
