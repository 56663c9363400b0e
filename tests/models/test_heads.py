"""Heads by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.models import heads, transformer
from tests.models import examples


def test_a_scalar_head_is_a_line():
    hidden = jnp.arange(6.0).reshape(2, 3)
    head = {"weight": jnp.array([1.0, 0.0, -2.0]), "bias": jnp.asarray(0.5)}
    np.testing.assert_allclose(heads.scalar(head, hidden), [-3.5, -6.5])
    half = heads.scalar(head, hidden.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    new = heads.init_scalar(examples.SPECS["llama"], jax.random.key(0))
    assert new["weight"].shape == (32,) and new["bias"] == 0


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_judgement_is_two_entries_of_the_vocabulary(name):
    spec, params = examples.SPECS[name], examples.params_of(examples.SPECS[name])
    hidden = jax.random.normal(jax.random.key(0), (2, 5, spec.width))
    good, bad = heads.judgement(spec, params, hidden, 11, 3)
    logits = transformer.unembed(spec, params, hidden)
    np.testing.assert_allclose(good, logits[..., 11], 1e-5, 1e-5)
    np.testing.assert_allclose(bad, logits[..., 3], 1e-5, 1e-5)
