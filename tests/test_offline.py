"""Demonstrations and pairs: the likelihood of whole texts, however they are laid out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config, learner, offline, programs, sharding
from grpo_jax.losses import statistics
from grpo_jax.models import transformer
from grpo_jax.models.settings import Lora
from tests import test_learner
from tests.models import examples

SPEC = test_learner.SPEC
RATE = test_learner.RATE
STAGES = {
    "sft": config.SFT(learning_rate=0.1),
    "dpo": config.DPO(learning_rate=0.1, beta=0.5),
}


def settings(stage, parts=1, lora=0, **options):
    chosen = dataclasses.replace(STAGES[stage], **options)
    model = dataclasses.replace(
        test_learner.EXACT, lora=Lora(rank=lora) if lora else Lora()
    )
    return config.Config(
        stages=(stage,),
        model=model,
        optimizer=config.Optimizer(name="sgd", learning_rate=1.0, clip_norm=None),
        training=config.Training(parts=parts),
        **{stage: chosen},
    )


def begun(chosen, mesh=None):
    run = offline.make(SPEC, chosen, chosen.stages[0], mesh)
    params = programs.copy(examples.params_of(SPEC, "float64"))
    if mesh is not None:
        params = jax.device_put(params, sharding.of_params(params, mesh)[0])
    return run, learner.begin(run, params, jax.random.key(1))


def texts(count=7, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda low, high: rng.integers(0, 97, rng.integers(low, high)).tolist()  # noqa: E731
    return [offline.Text(draw(0, 6), draw(1, 9)) for _ in range(count)]


def pairs(count=5, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda low, high: rng.integers(0, 97, rng.integers(low, high)).tolist()  # noqa: E731
    return [offline.Pair(draw(1, 6), draw(1, 9), draw(1, 9)) for _ in range(count)]


def surprise(params, question, answer):
    """−log π of each token of the answer that something stands before, one by one."""
    ids = jnp.array([*question, *answer])
    position = jnp.arange(len(ids))[None, None]
    hidden, _ = transformer.forward(
        SPEC,
        params,
        ids[None, None],
        position,
        position >= 0,
        numerics=test_learner.EXACT.numerics,
    )
    logits = transformer.unembed(SPEC, params, hidden, test_learner.EXACT.numerics)
    logp = jax.nn.log_softmax(logits[0, 0])
    first = max(len(question), 1)
    return [-logp[i - 1, ids[i]] for i in range(first, len(ids))]


def expected_loss(params, given, loss_mean):
    rows = [surprise(params, *text) for text in given]
    if loss_mean == "per_token":
        return sum(map(sum, rows)) / sum(map(len, rows))
    rows = [row for row in rows if row]
    return sum(sum(row) / len(row) for row in rows) / len(rows)


@pytest.mark.parametrize("loss_mean", ["per_sequence", "per_token"])
@pytest.mark.parametrize("parts", [1, 3])
def test_texts_in_bins_are_learned_as_if_each_stood_alone(loss_mean, parts, float64):
    given = texts()
    run, state = begun(settings("sft", parts))
    before = programs.copy(state.policy.params)
    state, measured = offline.learn_texts(run, state, given, loss_mean)
    loss, grads = jax.value_and_grad(expected_loss)(before, given, loss_mean)
    np.testing.assert_allclose(statistics.values(measured)["loss"], loss, 1e-9)
    after = jax.tree.map(lambda x, g: x - RATE * g, before, grads)
    for a, b in zip(*map(jax.tree.leaves, (state.policy.params, after)), strict=True):
        np.testing.assert_allclose(a, b, 1e-7, 1e-9)
