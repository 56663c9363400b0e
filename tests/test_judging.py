"""Reward models: what they say and learn is what whole rows and formulas say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import (
    config,
    judging,
    learner,
    programs,
    sharding,
    train_step,
)
from grpo_jax.labels import Item
from grpo_jax.losses import statistics
from grpo_jax.models import transformer
from grpo_jax.models.settings import Lora
from grpo_jax.section import Refused
from grpo_jax.text.reading import Row
from tests import test_learner
from tests.models import examples

SPEC = dataclasses.replace(examples.SPECS["qwen2"], layers=1, max_length=48, tied=False)
NUMERICS = test_learner.EXACT.numerics
RATE = test_learner.RATE
SCALAR, TOKENS = None, (5, 9)
MESHES = [(4, 1, 1), (2, 2, 1), (1, 2, 2)]


def settings(kind, parts=1, lora=0):
    adapters = Lora(rank=lora) if lora else Lora()
    return config.Config(
        stages=("reward",),
        model=dataclasses.replace(test_learner.EXACT, lora=adapters),
        reward=config.Reward(labels=kind, learning_rate=0.1),
        optimizer=config.Optimizer(name="sgd", clip_norm=None),
        training=config.Training(parts=parts),
    )


def drawn(rng, least=1, most=9):
    return rng.integers(0, 97, rng.integers(least, most)).tolist()


def row(rng, count):
    """A completion with so many steps, the last of which ends it."""
    tokens = drawn(rng, count, 9)
    ends = sorted(rng.choice(len(tokens) - 1, count - 1, replace=False).tolist())
    return Row(tokens, [*ends, len(tokens) - 1])


def preferences(count=5, seed=0):
    rng = np.random.default_rng(seed)
    return [Item(drawn(rng), [row(rng, 1), row(rng, 1)], []) for _ in range(count)]


def steps(count=5, seed=0):
    """Labels of up to three steps; soft ones, and some that nobody gave."""
    rng, items = np.random.default_rng(seed), []
    for i in range(count):
        one = row(rng, 1 + i % 3)
        labels = rng.choice([0.0, 1.0, 0.25], len(one.ends)).tolist()
        if i == 2:
            labels[0] = None
        items.append(Item(drawn(rng), [one], [labels]))
    return items


GIVEN = {"preferences": preferences, "steps": steps}


@functools.cache
def made(chosen, candidates=SCALAR, shape=None):
    mesh = None if shape is None else sharding.mesh(*shape)
    return judging.make(SPEC, chosen, candidates, mesh)


def params_of(candidates=SCALAR, dtype="float64"):
    params = jax.tree.map(np.asarray, examples.params_of(SPEC, dtype))
    if candidates is None:
        weight = np.random.default_rng(5).normal(size=SPEC.width)
        head = {"weight": weight.astype(dtype), "bias": np.array(0.3, dtype)}
        params = params | {"head": head}
    return params


def begun(chosen, candidates=SCALAR, shape=None):
    """Where there is a head, as one that was trained before."""
    run, params = made(chosen, candidates, shape), params_of(candidates)
    params = jax.tree.map(
        lambda x, where: jax.make_array_from_callback(x.shape, where, lambda i: x[i]),
        params,
        sharding.of_params(params, run.mesh)[0],
    )
    return run, learner.begin(run, params, jax.random.key(1))


def learned(chosen, items, candidates=SCALAR, shape=None):
    """The state before one update and after it, and what was measured."""
    run, state = begun(chosen, candidates, shape)
    before = programs.copy(state)
    with jax.transfer_guard("disallow"):
        after, measured = judging.learn(run, state, judging.lay(run, items))
    values = programs.forward(statistics.values)(measured)
    return before, after, {k: float(x) for k, x in values.items()}


@functools.partial(jax.jit, static_argnames=("lora", "candidates", "compute"))
def said(params, frozen, ids, at, lora, candidates, compute="float64"):
    """Of whole rows that stand alone, at one place each."""
    numerics = dataclasses.replace(NUMERICS, compute=compute)
    params = train_step.with_frozen(params, frozen, lora)
    tokens, position = ids[:, None], jnp.arange(ids.shape[1])[None, None]
    position = jnp.broadcast_to(position, tokens.shape)
    hidden, _ = transformer.forward(
        SPEC, params, tokens, position, position >= 0, numerics=numerics
    )
    state = hidden[jnp.arange(len(ids)), 0, at]
    if candidates is None:
        return state @ params["head"]["weight"] + params["head"]["bias"]
    logits = transformer.unembed(SPEC, params, state[:, None, None], numerics)
    good, bad = (logits[:, 0, 0, i] for i in candidates)
    return good - bad


def alone(items):
    """A row of ids for each score, and the place where it stands."""
    ids, at = np.zeros((64, 24), int), np.zeros(64, int)
    places = [
        (item.question, one, end)
        for item in items
        for one in item.rows
        for end in one.ends
    ]
    for i, (question, one, end) in enumerate(places):
        text = [*question, *one.tokens]
        ids[i, : len(text)], at[i] = text, len(question) + end
    return ids, at, len(places)


def by_hand(kind, items, z):
    """−log σ(r⁺ − r⁻) and −y log σ(z) − (1 − y) log σ(−z), their means."""
    if kind == "preferences":
        return jnp.log1p(jnp.exp(z[1::2] - z[::2])).mean()
    labels = [x for item in items for x in item.labels[0]]
    there = np.array([x is not None for x in labels])
    y = np.array([x or 0.0 for x in labels])
    each = y * jnp.log1p(jnp.exp(-z)) + (1 - y) * jnp.log1p(jnp.exp(z))
    return (each * there).sum() / there.sum()


@pytest.mark.parametrize("candidates", [SCALAR, TOKENS])
@pytest.mark.parametrize(
    ("kind", "parts", "lora"),
    [("preferences", 1, 0), ("preferences", 2, 2), ("steps", 1, 0), ("steps", 3, 2)],
)
def test_an_update_follows_the_slope_of_the_formula(
    kind, parts, lora, candidates, float64
):
    """Of scores of rows that are computed whole, each by itself."""
    chosen, items = settings(kind, parts, lora), GIVEN[kind]()
    before, after, found = learned(chosen, items, candidates)
    ids, at, n = alone(items)

    def loss(params):
        known = params, before.frozen, ids, at, chosen.model.lora, candidates
        return by_hand(kind, items, said(*known)[:n])

    params = before.policy.params
    expected, slope = jax.value_and_grad(loss)(params)
    tolerance = 1e-6 if lora else 1e-9  # adapters are float32 always
    np.testing.assert_allclose(found["loss"], expected, tolerance)
    moved = jax.tree.map(lambda x, g: x - RATE * g, params, slope)
    test_learner.same(after.policy.params, moved, tolerance)
    assert ("head" in params) == (candidates is None)


@pytest.mark.parametrize(
    ("score", "better", "loss"),
    [
        ([1.0, 0.0], 1.0, np.log(1 + np.exp(-1))),  # 0.3133
        ([-2.0, -2.0], 0.0, np.log(2)),
        ([0.0, 3.0], 0.0, np.log(1 + np.exp(3))),  # 3.0486
    ],
)
def test_a_preference_costs_what_the_formula_says(score, better, loss):
    given = jnp.array([[[score[0]], [score[1]]], [[7.0], [9.0]]])
    laid = judging.Laid(None, None)
    batch = judging.Batch(laid, None, None, jnp.array([1.0, 0.0]))
    found, measured = judging.of_pairs.__wrapped__(given, batch)
    np.testing.assert_allclose(found, loss, 1e-6)
    numbers = statistics.values(measured)
    assert float(numbers["right"]) == better
    np.testing.assert_allclose(numbers["margin"], score[0] - score[1], 1e-6)


@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("shape", MESHES)
def test_a_mesh_changes_nothing(kind, shape, float64):
    items = GIVEN[kind]()
    _, after, found = learned(settings(kind), items, shape=shape)
    _, expected, numbers = learned(settings(kind), items)
    test_learner.same(after.policy.params, expected.policy.params, 1e-9)
    test_learner.same(found, numbers, 1e-9)


def judge(candidates=SCALAR, shape=(1, 1, 1), dtype="float32"):
    params = params_of(candidates, dtype)
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = sharding.mesh(*shape, devices)
    params = jax.device_put(params, sharding.of_params(params, mesh)[0])
    numerics = dataclasses.replace(NUMERICS, compute=dtype)
    given = None, candidates, numerics, Lora(), mesh
    return judging.Judge(SPEC, params, *given)


def groups(count=5, seed=0):
    """Questions with as many completions; some of these are not there."""
    rng = np.random.default_rng(seed)
    found = [
        (drawn(rng), [row(rng, 1 + i % 2) for i in range(3)]) for _ in range(count)
    ]
    found[1][1][2] = Row([], [])
    return found


@pytest.mark.parametrize("candidates", [SCALAR, TOKENS])
def test_a_question_that_stands_once_is_scored_as_whole_rows_are(candidates):
    asked, model = groups(), judge(candidates)
    with jax.transfer_guard("disallow"):
        found = judging.score(model, asked, 4)
    assert [[len(x) for x in group] for group in found] == [
        [len(one.ends) for one in rows] for _, rows in asked
    ]
    ids, at, n = alone([Item(question, rows, []) for question, rows in asked])
    known = model.params, None, ids, at, Lora(), candidates, "float32"
    whole = said(*known)[:n]
    flat = [x for group in found for of_row in group for x in of_row]
    np.testing.assert_allclose(flat, whole, 1e-5, 1e-5)


@pytest.mark.parametrize("shape", MESHES)
def test_a_mesh_scores_alike(shape):
    found = judging.score(judge(shape=shape), groups(), 3)
    expected = judging.score(judge(), groups(), 5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), found, expected)


def test_shapes_that_were_seen_compile_nothing():
    model, seen = judge(), groups(7, seed=1)
    judging.score(model, seen, 4)
    compilations = programs.Compilations()
    judging.score(model, seen[::-1], 4)
    judging.score(model, groups(3, seed=1), 4)
    assert compilations.count == 0


@pytest.mark.parametrize("kind", GIVEN)
def test_a_reward_model_learns(kind, float64):
    run, state = begun(settings(kind))
    losses, items = [], GIVEN[kind]()
    for _ in range(15):
        state, measured = judging.learn(run, state, judging.lay(run, items))
        losses.append(float(statistics.values(measured)["loss"]))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("lora", [0, 2])
def test_the_model_that_is_left_has_its_head_and_no_adapters(lora, float64):
    """Nor what would say tokens, which nothing has learned."""
    chosen = settings("steps", lora=lora)
    _, after, _ = learned(chosen, steps())
    params = learner.policy(made(chosen), after)
    shapes = transformer.abstract(SPEC, "float64")
    del shapes["unembed"]
    shapes["head"] = after.policy.params["head"]
    assert jax.tree.structure(params) == jax.tree.structure(shapes)
    held = after.frozen or after.policy.params
    assert "unembed" not in held and "embed" in held
    known = learner.abstract(made(chosen))
    assert jax.tree.structure(known) == jax.tree.structure(after)
    test_learner.same(params["head"], after.policy.params["head"], 0)


def test_a_head_is_made_where_there_is_none(float64):
    run = made(settings("steps"))
    params = programs.copy(examples.params_of(SPEC, "float64"))
    state = learner.begin(run, params, jax.random.key(1))
    assert set(state.policy.params["head"]) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Item([1] * 40, [Row([2] * 8, [7])], [[1.0]]), "has 49 tokens .* 48 positions"),
        (Item([], [Row([2], [0])], [[1.0]]), "a question has no tokens"),
    ],
)
def test_what_cannot_be_read_is_refused(item, message):
    run = made(settings("steps"))
    with pytest.raises(Refused, match=message):
        judging.lay(run, [*steps(), item])
