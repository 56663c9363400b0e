"""Adapters: nothing at first, the same multiplied out or not, and gone when removed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.models import lora, settings
from grpo_jax.section import Refused
from tests.models import examples

SPEC = examples.SPECS["gemma3"]
CHOSEN = settings.Lora(rank=2, alpha=6.0)


def adapters_of(params, chosen=CHOSEN, dtype="float32"):
    """Adapters that have been trained: B is not 0."""
    tree = lora.init(params, chosen, jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x.astype(dtype) + jnp.asarray(rng.normal(0, 0.1, x.shape), dtype),
        tree,
    )


def test_new_adapters_change_nothing_and_only_they_are_theirs():
    params = examples.params_of(SPEC)
    adapters = lora.init(params, CHOSEN, jax.random.key(0))
    assert set(adapters) == {"layers"}
    assert {n.split("_")[0] for n in adapters["layers"]} == {f"w{x}" for x in "qkvogud"}
    assert adapters["layers"]["wo_a"].shape == (3, 4, 8, 2)
    assert adapters["layers"]["wq_b"].shape == (3, 2, 4, 8)
    tokens = examples.tokens_of(2, 1, 5)
    joined = lora.join(params, adapters, CHOSEN)
    got, expected = (examples.plain(SPEC, x, tokens) for x in (joined, params))
    np.testing.assert_allclose(got, expected, 1e-4, 1e-5)
    np.testing.assert_allclose(adapters["layers"]["wd_a"].std(), 48**-0.5, rtol=0.2)


@pytest.mark.parametrize("targets", [r"w[qkvogud]$", r"^layers/w[qv]$", "wo|wd"])
def test_adapters_multiplied_out_compute_the_same(targets, float64):
    chosen = dataclasses.replace(CHOSEN, targets=targets)
    params = examples.params_of(SPEC, "float64")
    adapters = adapters_of(params, chosen, "float64")
    tokens = examples.tokens_of(2, 1, 5)
    joined = lora.join(params, adapters, chosen)
    merged = lora.merge(params, adapters, chosen)
    expected = examples.plain(SPEC, merged, tokens, examples.DOUBLE)
    got = examples.plain(SPEC, joined, tokens, examples.DOUBLE)
    np.testing.assert_allclose(got, expected, 1e-10, 1e-10)
    assert np.any(got != examples.plain(SPEC, params, tokens, examples.DOUBLE))


def test_merging_by_hand_and_back(float64):
    params = examples.params_of(SPEC, "float64")
    adapters = adapters_of(params, dtype="float64")
    merged = lora.merge(params, adapters, CHOSEN)
    a, b = (adapters["layers"][f"wq_{x}"] for x in "ab")
    by_hand = params["layers"]["wq"] + 3 * jnp.einsum("ldr,lrqh->ldqh", a, b)
    np.testing.assert_allclose(merged["layers"]["wq"], by_hand, 1e-12)
    back = lora.unmerge(merged, adapters, CHOSEN)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-15)


def test_the_reference_is_the_tree_without_adapters_to_the_bit():
    params = examples.params_of(SPEC)
    joined = lora.join(params, adapters_of(params), CHOSEN)
    kept = {k: v for k, v in joined["layers"].items() if k[-2:] not in ("_a", "_b")}
    assert all(kept[name] is x for name, x in params["layers"].items())


def test_only_adapters_have_a_gradient():
    params = examples.params_of(SPEC)
    tokens = examples.tokens_of(2, 1, 5)

    def loss(adapters):
        joined = lora.join(params, adapters, CHOSEN)
        return jax.nn.logsumexp(examples.plain(SPEC, joined, tokens))

    grads = jax.grad(loss)(adapters_of(params))
    assert all(np.any(x) for x in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("targets", "message"),
    [("wz", "which matches nothing"), ("embed|wq", "which also matches embed")],
)
def test_targets_that_cannot_be_adapted_are_refused(targets, message):
    chosen = dataclasses.replace(CHOSEN, targets=targets)
    with pytest.raises(Refused, match=message):
        lora.init(examples.params_of(SPEC), chosen, jax.random.key(0))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match=r"model.lora.alpha is 3.0; model.lora.rank is 0"):
        settings.Lora(alpha=3.0)
    with pytest.raises(Refused, match=r"model.lora.targets is '\('; it is no regular"):
        settings.Lora(rank=1, targets="(")
    with pytest.raises(Refused, match=r"model.name is 'x'; only the model tiny reads"):
        settings.Model(name="x", tiny=settings.Tiny(layers=1))
    with pytest.raises(Refused, match=r"model.tiny.width is 100; .*an even number"):
        settings.Tiny(width=100)
