"""One gradient, however the batch is cut and wherever it lies."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import (
    config,
    optimizers,
    packing,
    prepare,
    programs,
    scoring,
    sharding,
    train_step,
)
from grpo_jax.losses import objective, statistics
from grpo_jax.models.settings import Lora, Numerics
from grpo_jax.records import Rewards
from grpo_jax.training import Optimizer
from tests.models import examples

SPEC = dataclasses.replace(examples.SPECS["qwen2"], layers=2)
B, G, PROMPT, C = 4, 4, 5, 6
T, BETA = 0.8, 0.04
SETTINGS = config.Algorithm(beta=BETA, entropy_coef=0.01)
EXACT = Numerics(compute="float64", chunk=16)


@functools.partial(jax.jit, static_argnames=("numerics", "parts"))
def gradient(params, given, place, numerics, parts):
    loss = functools.partial(train_step.policy_loss, SPEC, numerics, Lora())
    known = train_step.Known(SETTINGS, T, BETA)
    return train_step.gradient(loss, params, known, given, place, parts)


def texts():
    """Questions and completions of several lengths; one row empty."""
    rng = np.random.default_rng(0)
    asked = rng.integers(1, PROMPT + 1, B)
    length = rng.permuted(np.tile([6, 3, 2, 1], (B, 1)), axis=1)
    length[2, 1] = 0
    return scoring.Texts(
        question=rng.integers(0, 97, (B, PROMPT)),
        is_question=np.arange(PROMPT) >= PROMPT - asked[:, None],
        completion=rng.integers(0, 97, (B, G, C)),
        is_completion=np.arange(C) < length[..., None],
    )


@functools.cache
def batch():
    """Old and reference policies are other parameters; rewards are random."""
    given = jax.tree.map(jnp.asarray, texts())
    score = jax.jit(scoring.log_probs, static_argnames=("spec", "numerics"))
    old, ref = (
        score(SPEC, examples.params_of(SPEC, "float64", seed), given, T, EXACT).logp
        for seed in (1, 2)
    )
    everyone = jnp.ones((B, G), bool)
    parts = np.random.default_rng(1).normal(size=(B, G, 1))
    rewards = Rewards(jnp.asarray(parts), given.is_completion, everyone)
    scores = prepare.Scores(old, ref, None)
    policy, _ = prepare.rollout(SETTINGS, rewards, scores, everyone, beta=BETA)
    policy = prepare.minibatch(
        SETTINGS,
        policy,
        old,
        None,
        None,
        rollout_tokens=policy.is_completion.sum(),
        parts=1,
    )
    return train_step.Batch(given, policy)


def of_params(params, parts=1, numerics=EXACT, given=None, place=None):
    return gradient(params, given or batch(), place, numerics, parts)


def close(a, b, tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, tolerance, tolerance)


@functools.cache
def whole():
    return of_params(examples.params_of(SPEC, "float64"))


def test_the_gradient_is_that_of_whole_rows_without_prefix_or_chunks(float64):
    """Each row by itself, question repeated, no padding, all logits at once."""
    given, params = batch(), examples.params_of(SPEC, "float64")
    texts = jax.device_get(given.texts)

    def loss(params):
        rows, entropies = [], []
        for b, g in np.ndindex(B, G):
            n = int(texts.is_completion[b, g].sum())
            question = texts.question[b][texts.is_question[b]]
            row = jnp.concatenate([question, texts.completion[b, g, :n]])
            logits = examples.plain(SPEC, params, row[None, None], EXACT)[0, 0]
            all_logp = jax.nn.log_softmax(logits[len(question) - 1 : -1] / T)
            logp = jnp.take_along_axis(all_logp, row[len(question) :][:, None], -1)[
                :, 0
            ]
            entropy = -(jnp.exp(all_logp) * all_logp).sum(-1)
            rows.append(jnp.zeros(C).at[:n].set(logp[:n]))
            entropies.append(jnp.zeros(C).at[:n].set(entropy[:n]))
        logp, entropy = (jnp.stack(x).reshape(B, G, C) for x in (rows, entropies))
        return objective.policy_loss(
            SETTINGS, logp, given.policy, beta=BETA, entropy=entropy
        )[0]

    close(whole()[0], jax.jit(jax.grad(loss))(params), 1e-10)


def packed(parts, lanes=1):
    """The same questions in another order, their completions in bins."""
    length = np.asarray(batch().texts.is_completion.sum(-1))
    layout = packing.lay(length, packing.Lanes(0, lanes), 1, parts, C, 8)
    assert layout.place is not None and layout.columns == C and layout.split == 1
    move = lambda x: x[layout.order[0]] if x.ndim else x  # noqa: E731
    return jax.tree.map(move, batch()), jnp.asarray(layout.place[0])


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_add_up_to_the_whole(parts, is_packed, float64):
    given, place = packed(parts) if is_packed else (None, None)
    params = examples.params_of(SPEC, "float64")
    grads, measured = of_params(params, parts, given=given, place=place)
    close(grads, whole()[0], 1e-10)
    a, b = statistics.values(measured), statistics.values(whole()[1])
    assert a.keys() == b.keys() and len(a) > 10
    for name in a:
        np.testing.assert_allclose(a[name], b[name], 1e-9, 1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "parts", "is_packed"),
    [
        ((4, 1, 1), 1, False),  # each device has one question
        ((4, 1, 1), 1, True),
        ((2, 2, 1), 1, False),
        ((1, 2, 2), 1, False),
        ((1, 2, 2), 2, True),
        ((1, 1, 4), 1, False),
        ((1, 1, 4), 2, True),
    ],
)
def test_a_mesh_changes_nothing(shape, parts, is_packed, float64):
    params, mesh = examples.params_of(SPEC, "float64"), sharding.mesh(*shape)
    given, place = packed(parts, shape[0] * shape[1]) if is_packed else (batch(), None)
    layout, _ = sharding.of_params(params, mesh)
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    where = lambda x: rows if x.ndim else NamedSharding(mesh, P())  # noqa: E731
    given = jax.device_put(given, jax.tree.map(where, given))
    if is_packed:
        place = jax.device_put(place, NamedSharding(mesh, P(None, *rows.spec)))
    params = jax.device_put(params, layout)
    got = of_params(params, parts, given=given, place=place)
    close(got[0], whole()[0], 1e-10)


def test_float32_is_near(float64):
    narrow = jax.tree.map(
        lambda x: x.astype("float32") if x.dtype == "float64" else x, batch()
    )
    grads, _ = of_params(examples.params_of(SPEC), 2, Numerics(chunk=16), given=narrow)
    for x, y in zip(*map(jax.tree.leaves, (grads, whole()[0])), strict=True):
        np.testing.assert_allclose(x, y, 0, 1e-5 * float(jnp.abs(y).max()))


def test_padding_changes_nothing(float64):
    wider = [(0, 0), (0, 0), (0, 3)]
    given = batch()
    pad = lambda x: jnp.pad(x, wider) if x is not None and x.ndim == 3 else x  # noqa: E731
    texts = given.texts._replace(
        completion=pad(given.texts.completion),
        is_completion=pad(given.texts.is_completion),
        question=jnp.pad(given.texts.question, [(0, 0), (2, 0)]),
        is_question=jnp.pad(given.texts.is_question, [(0, 0), (2, 0)]),
    )
    padded = train_step.Batch(texts, jax.tree.map(pad, given.policy))
    grads, _ = of_params(examples.params_of(SPEC, "float64"), given=padded)
    close(grads, whole()[0], 1e-10)


def test_an_update_is_the_optimizers_step_along_the_gradient(float64):
    params = examples.params_of(SPEC, "float64")
    optimizer = optax.sgd(0.1)
    loss = functools.partial(train_step.policy_loss, SPEC, EXACT, Lora())
    state = programs.begin(optimizer)(programs.copy(params))
    known = train_step.Known(SETTINGS, T, BETA)
    step = programs.update(loss, optimizer)
    after, measured = step(state, known, batch(), parts=2)
    assert state.params["embed"].is_deleted()
    moved = jax.tree.map(lambda a, b: (b - a) / 0.1, after.params, params)
    close(moved, whole()[0], 1e-10)
    norm = jnp.sqrt(sum((x**2).sum() for x in jax.tree.leaves(whole()[0])))
    np.testing.assert_allclose(measured["grad_norm"].total, norm, 1e-9)


def test_a_gradient_too_long_to_measure_is_skipped_as_well():
    """Each number of it is finite; the square of its length is not, in float32."""

    def loss(known, params, batch, place):
        return (params["w"] * known).sum(), {}

    optimizer = optimizers.make(Optimizer(momentum=0.9, name="sgd"), 10)
    state = programs.begin(optimizer)({"w": jnp.ones(3)})
    step = programs.update(loss, optimizer)
    state, _ = step(state, jnp.float32(1.0), None)
    before = np.asarray(state.params["w"])
    state, measured = step(state, jnp.float32(1e25), None)
    np.testing.assert_array_equal(state.params["w"], before)
    assert state.optimizer.notfinite_count == 1 and measured["skipped"].total == 1
    assert measured["grad_norm"].count == 0
