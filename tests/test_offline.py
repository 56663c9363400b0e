"""Demonstrations and pairs: the likelihood of whole texts, however they are laid out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, learner, offline, packing, programs, sharding, train_step
from grpo_jax.losses import statistics
from grpo_jax.models import transformer
from grpo_jax.models.settings import Lora
from grpo_jax.section import Refused
from tests import test_learner
from tests.models import examples

SPEC = dataclasses.replace(examples.SPECS["qwen2"], layers=1, max_length=48)
RATE = test_learner.RATE
NUMERICS = test_learner.EXACT.numerics
STAGES = {
    "sft": config.SFT(learning_rate=0.1),
    "dpo": config.DPO(learning_rate=0.1, beta=0.5),
}
MESHES = [(4, 1, 1), (2, 2, 1), (1, 2, 2)]
ONE = offline.Text((), (5,))  # nothing can be learned of it, or of the next
EMPTY = offline.Text((3, 4), ())


def settings(stage, parts=1, lora=0, **options):
    chosen = dataclasses.replace(STAGES[stage], **options)
    adapters = Lora(rank=lora) if lora else Lora()
    return config.Config(
        stages=(stage,),
        model=dataclasses.replace(test_learner.EXACT, lora=adapters),
        optimizer=config.Optimizer(name="sgd", clip_norm=None),
        training=config.Training(parts=parts),
        **{stage: chosen},
    )


@functools.cache
def made(chosen, shape=None):
    mesh = None if shape is None else sharding.mesh(*shape)
    return offline.make(SPEC, chosen, chosen.stages[0], mesh)


def begun(chosen, shape=None):
    run = made(chosen, shape)
    params = jax.tree.map(np.asarray, examples.params_of(SPEC, "float64"))
    params = jax.tree.map(
        lambda x, where: jax.make_array_from_callback(x.shape, where, lambda i: x[i]),
        params,
        sharding.of_params(params, run.mesh)[0],
    )
    return run, learner.begin(run, params, jax.random.key(1))


def drawn(rng, *least):
    return [rng.integers(0, 97, rng.integers(n, 9)).tolist() for n in least]


def texts(count=9, seed=0):
    rng = np.random.default_rng(seed)
    some = [offline.Text(*drawn(rng, 0, 1)) for _ in range(count)]
    return [ONE, *some, EMPTY]


def pairs(count=5, seed=0):
    """One of the answers is empty."""
    rng = np.random.default_rng(seed)
    some = [offline.Pair(*drawn(rng, 1, 1, 1)) for _ in range(count)]
    return [some[0]._replace(worse=[]), *some[1:]]


def learned(chosen, given, shape=None, loss_mean="per_sequence", changed=None):
    """The state before one update and after it, and what was measured."""
    run, state = begun(chosen, shape)
    if changed is not None:
        state = changed(state)
    before = programs.copy(state)
    with jax.transfer_guard("disallow"):
        if chosen.stages == ("sft",):
            laid = offline.lay_texts(run, given, loss_mean)
            after, measured = offline.learn_texts(run, state, laid)
        else:
            laid = offline.lay_pairs(run, given)
            after, measured = offline.learn_pairs(run, state, laid)
    values = programs.forward(statistics.values)(measured)
    values = {k: float(x) for k, x in values.items()}
    return before, after, values


def moved(state):
    """The reference is a little elsewhere."""
    held = jax.tree.map(lambda x: x.sharding, state.reference)
    params = examples.params_of(SPEC, "float64", 2)
    return state._replace(reference=jax.device_put(params, held))


def adapted(state):
    """Adapters that are not nothing any more."""
    some = lambda x: jax.device_put(x + 0.03, x.sharding)  # noqa: E731
    params = jax.tree.map(some, state.policy.params)
    return state._replace(policy=state.policy._replace(params=params))


@functools.partial(jax.jit, static_argnames="lora")
def pull(params, frozen, ids, weight, lora):
    """log π of each token of rows [N, T] that stand alone, and Σ weight · its slope."""

    def logp(params):
        params = train_step.with_frozen(params, frozen, lora)
        tokens, position = ids[:, None], jnp.arange(ids.shape[1])[None, None]
        position = jnp.broadcast_to(position, tokens.shape)
        hidden, _ = transformer.forward(
            SPEC, params, tokens, position, position >= 0, numerics=NUMERICS
        )
        logits = transformer.unembed(SPEC, params, hidden, NUMERICS)[:, 0, :-1]
        found = jax.nn.log_softmax(logits)
        found = jnp.take_along_axis(found, ids[:, 1:, None], -1)[..., 0]
        return jnp.pad(found, ((0, 0), (1, 0)))  # nothing stands before the first

    found, back = jax.vjp(logp, params)
    return found, back(weight)[0]


def alone(given):
    """Each text as a row of ids, and which of its tokens are learned."""
    ids, learns = np.zeros((2, 16, 24), int)
    for i, (asked, told) in enumerate(given):
        ids[i, : len(asked) + len(told)] = [*asked, *told]
        learns[i, max(len(asked), 1) : len(asked) + len(told)] = 1
    return ids, learns


def need_step(before, after, slope, tolerance):
    """That of gradient descent."""
    expected = jax.tree.map(lambda x, g: x - RATE * g, before, slope)
    test_learner.same(after, expected, tolerance)


@pytest.mark.parametrize("loss_mean", ["per_sequence", "per_token"])
@pytest.mark.parametrize(("parts", "lora"), [(1, 0), (3, 0), (2, 2)])
def test_texts_in_bins_are_learned_as_if_each_stood_alone(
    parts, lora, loss_mean, float64
):
    chosen, given = settings("sft", parts, lora), texts()
    before, after, found = learned(chosen, given, loss_mean=loss_mean)
    ids, learns = alone(given)
    count = learns.sum(1, keepdims=True)
    weight = -learns / count.sum()
    if loss_mean == "per_sequence":
        weight = -learns / np.maximum(count, 1) / (count > 0).sum()
    at = before.policy.params, before.frozen, ids, weight, chosen.model.lora
    logp, slope = pull(*at)
    tolerance = 1e-6 if lora else 1e-9  # adapters are float32 always
    np.testing.assert_allclose(found["loss"], (weight * logp).sum(), tolerance)
    nll = -(learns * logp).sum() / learns.sum()
    np.testing.assert_allclose(found["nll"], nll, tolerance)
    need_step(before.policy.params, after.policy.params, slope, tolerance)


def test_bins_are_what_texts_stand_in(float64):
    """More than one in a bin; and without bins all is the same."""
    run, _ = begun(settings("sft"))
    (batch, place), given = offline.lay_texts(run, texts(), "per_token"), texts()
    tokens = sum(len(text.question) + len(text.answer) for text in given)
    assert place.shape[-1] == offline.WIDTH > batch.texts.completion.shape[-1]
    assert tokens <= place.size <= 2 * offline.WIDTH < 2 * tokens
    _, packed, found = learned(settings("sft"), given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WORTH", 0.0)
        assert offline.lay_texts(run, given, "per_token")[1] is None
        _, apart, expected = learned(settings("sft"), given)
    test_learner.same(packed.policy.params, apart.policy.params)
    test_learner.same(found, expected)


def test_texts_of_which_nothing_is_learned_change_nothing(float64):
    before, after, found = learned(settings("sft"), [ONE, EMPTY])
    assert found["loss"] == found["skipped"] == 0
    test_learner.same(before.policy.params, after.policy.params, 0)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("shape", MESHES)
def test_a_mesh_changes_nothing(stage, shape, float64):
    """Some lanes have one text more than others, and some have none."""
    given, changed = (texts(), None) if stage == "sft" else (pairs(), moved)
    _, after, found = learned(settings(stage), given, shape, changed=changed)
    _, expected, numbers = learned(settings(stage), given, changed=changed)
    test_learner.same(after.policy.params, expected.policy.params, 1e-9)
    test_learner.same(found, numbers, 1e-9)


def by_hand(chosen, logp, ref_logp, learns):
    """The mean over pairs, of rows that are better and worse by turns."""
    margin = ((logp - ref_logp) * learns).sum(1)
    if chosen.form == "mean":
        margin = margin / np.maximum(learns.sum(1), 1)
    gap, beta, s = margin[::2] - margin[1::2], chosen.beta, chosen.label_smoothing
    if chosen.loss == "ipo":
        return ((gap - 1 / (2 * beta)) ** 2).mean()
    right, wrong = jnp.log1p(jnp.exp(-beta * gap)), jnp.log1p(jnp.exp(beta * gap))
    return ((1 - s) * right + s * wrong).mean()


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        (1, {}),
        (2, {"form": "mean"}),
        (3, {"label_smoothing": 0.2, "form": "mean", "beta": 2.0}),
        (1, {"loss": "ipo"}),
        (2, {"lora": 2, "loss": "ipo", "form": "mean"}),
    ],
)
def test_pairs_are_learned_as_by_hand(parts, options, float64):
    chosen, given = settings("dpo", parts, **options), pairs()
    lora = chosen.model.lora
    changed = adapted if lora.rank else moved
    before, after, found = learned(chosen, given, changed=changed)
    own = before.policy.params, before.frozen
    both = [(p.question, a) for p in given for a in (p.better, p.worse)]
    ids, learns = alone(both)
    nothing = np.zeros(ids.shape)
    reference = before.reference or before.frozen
    ref_logp, _ = pull(reference, None, ids, nothing, Lora())
    logp, _ = pull(*own, ids, nothing, lora)
    cut = lambda x: x[: len(both)]  # noqa: E731
    given = chosen.dpo, cut(logp), cut(ref_logp), cut(learns)
    loss, weight = jax.value_and_grad(by_hand, 1)(*given)
    tolerance = 1e-6 if lora.rank else 1e-9  # adapters are float32 always
    np.testing.assert_allclose(found["loss"], loss, tolerance)
    weight = np.pad(weight, ((0, len(ids) - len(both)), (0, 0)))
    _, slope = pull(*own, ids, weight, lora)
    need_step(before.policy.params, after.policy.params, slope, tolerance)
    gain = ((logp - ref_logp) * learns).sum(1)[: len(both)].reshape(-1, 2)
    if chosen.dpo.form == "sum":
        np.testing.assert_allclose(found["gain/better"], gain[:, 0].mean(), 1e-9)
        np.testing.assert_allclose(found["right"], (gain[:, 0] > gain[:, 1]).mean())


@pytest.mark.parametrize("lora", [0, 2])
def test_the_reference_is_the_policy_that_the_stage_began_with(lora, float64):
    """The first loss is log 2, and the second is not."""
    run, state = begun(settings("dpo", lora=lora, learning_rate=0.01))
    assert (state.reference is None) == bool(lora)
    losses = []
    for _ in range(3):
        laid = offline.lay_pairs(run, pairs())
        state, measured = offline.learn_pairs(run, state, laid)
        losses.append(float(statistics.values(measured)["loss"]))
    np.testing.assert_allclose(losses[0], np.log(2), 1e-7 if lora else 1e-12)
    assert losses[0] > losses[1] + 1e-3 > losses[2] + 2e-3
    held = state.frozen if lora else state.reference
    test_learner.same(held, examples.params_of(SPEC, "float64"), 0)


def test_a_reward_model_of_a_later_stage_is_nothing_to_it():
    chosen = config.Config(
        stages=("sft", "online"),
        rewards=config.Rewarding(functions=("model",)),
        reward_model=config.RewardModel(name="runs/a model"),
    )
    made = offline.make(SPEC, chosen, "sft")
    assert made.settings.reward_model == config.RewardModel()


def test_a_reference_is_held_where_it_is_told_to_be():
    chosen = dataclasses.replace(
        settings("dpo"),
        stages=("dpo", "online"),
        algorithm=config.Algorithm(beta=0.1),
        reference=config.Reference(held="host", every=3),
    )
    run = offline.make(SPEC, chosen, "dpo")
    kinds = {
        x.sharding.memory_kind for x in jax.tree.leaves(learner.abstract(run).reference)
    }
    assert kinds == {"pinned_host"} and run.settings.reference.every is None
    demonstrated = dataclasses.replace(chosen, stages=("sft", "dpo", "online"))
    run = offline.make(SPEC, demonstrated, "sft")
    assert learner.abstract(run).reference is None


def test_the_host_lays_out_before_it_waits(float64, monkeypatch):
    """Only an update looks at the state, and so waits for the update before it."""
    run, state = begun(settings("sft"))
    monkeypatch.setattr(learner, "check_state", None)
    laid = offline.lay_texts(run, texts(), "per_token")
    with pytest.raises(TypeError):
        offline.learn_texts(run, state, laid)


@pytest.mark.parametrize(
    ("stage", "wrong", "message"),
    [
        ("sft", offline.Text([1] * 40, [2] * 9), "has 49 tokens, .* 48 positions"),
        ("dpo", offline.Pair([1] * 40, [2], [2] * 9), "has 49 tokens, .* 48 positions"),
        ("dpo", offline.Pair([], [2], [3]), "a pair has no question"),
    ],
)
def test_what_cannot_be_learned_is_refused(stage, wrong, message):
    with pytest.raises(Refused, match=message):
        learned(settings(stage), [*(texts() if stage == "sft" else pairs()), wrong])
