"""Log-probabilities in chunks: the same as without, and never all logits at once."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import packing, scoring
from grpo_jax.models.settings import Numerics
from tests.models import examples

B, G, P, C = 2, 3, 6, 5
SPEC = examples.SPECS["qwen2"]
SCORE = jax.jit(scoring.log_probs, static_argnames=("spec", "numerics", "with_entropy"))


def texts(seed=0):
    """Questions of 6 and 4 tokens, completions of different lengths."""
    is_question = jnp.arange(P)[None] >= jnp.array([[0], [2]])
    length = jnp.array([[5, 3, 2], [1, 5, 2]])
    is_completion = jnp.arange(C)[None, None] < length[:, :, None]
    question = examples.tokens_of(B, P, seed=seed)
    completion = examples.tokens_of(B, G, C, seed=seed + 1)
    return scoring.Texts(question, is_question, completion, is_completion)


def by_rows(spec, params, given, temperature, numerics=Numerics()):
    """(log-probabilities, entropies), one row at a time, from all logits."""
    out = np.zeros((2, B, G, C))
    for b in range(B):
        for g in range(G):
            start = int((~given.is_question[b]).sum())
            row = jnp.concatenate([given.question[b, start:], given.completion[b, g]])
            logits = examples.plain(spec, params, row[None, None], numerics)[0, 0]
            logp = jax.nn.log_softmax(logits / temperature)
            first = P - start
            for c in range(C):
                at = logp[first + c - 1]
                out[:, b, g, c] = at[row[first + c]], -(jnp.exp(at) * at).sum()
    return out


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_are_those_of_each_row_alone(name, temperature, float64):
    spec = examples.SPECS[name]
    params, given = examples.params_of(spec, "float64"), texts()
    numerics = dataclasses.replace(examples.DOUBLE, chunk=4)
    got = SCORE(spec, params, given, temperature, numerics, with_entropy=True)
    expected = by_rows(spec, params, given, temperature, examples.DOUBLE)
    where = np.asarray(given.is_completion)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours)[where], theirs[where], 1e-9, 1e-10)


@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
def test_the_chunk_changes_neither_values_nor_gradients(chunk, float64):
    params, given = examples.params_of(SPEC, "float64"), texts()

    def total(params, chunk):
        numerics = dataclasses.replace(examples.DOUBLE, chunk=chunk)
        scores = SCORE(SPEC, params, given, 0.9, numerics, with_entropy=True)
        return jnp.where(given.is_completion, scores.logp + scores.entropy**2, 0).sum()

    got = jax.value_and_grad(total)(params, chunk)
    whole = jax.value_and_grad(total)(params, B * G * C)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, 1e-9, 1e-10)


def test_probabilities_of_the_vocabulary_sum_to_one_at_every_temperature(float64):
    spec = dataclasses.replace(SPEC, vocab=12)
    params = examples.params_of(spec, "float64")
    question = examples.tokens_of(1, P, vocab=12)
    given = scoring.Texts(
        question,
        jnp.ones((1, P), bool),
        jnp.arange(12)[None, :, None],
        jnp.ones((1, 12, 1), bool),
    )
    for temperature in (0.3, 1.0, 2.5):
        logp = SCORE(spec, params, given, temperature, examples.DOUBLE).logp
        np.testing.assert_allclose(jnp.exp(logp).sum(), 1, 1e-12)


def test_no_array_of_all_logits_exists_forward_or_backward():
    spec = dataclasses.replace(SPEC, vocab=5000)
    params = examples.params_of(spec)
    question = examples.tokens_of(4, 8)
    given = scoring.Texts(
        question,
        jnp.ones(question.shape, bool),
        examples.tokens_of(4, 8, 64),
        jnp.ones((4, 8, 64), bool),
    )

    def largest(chunk):
        def total(params):
            numerics = Numerics(chunk=chunk)
            return scoring.log_probs(spec, params, given, 1.0, numerics).logp.sum()

        text = jax.jit(jax.grad(total)).lower(params).compile().as_text()
        shapes = re.findall(r"f32\[([\d,]+)\]", text)
        sizes = [[int(n) for n in shape.split(",")] for shape in shapes]
        return max(np.prod(size) for size in sizes if 5000 in size)

    everything = 4 * 8 * 64 * 5000
    assert largest(128) <= 5000 * 128
    assert largest(4 * 8 * 64) == everything


def test_a_question_of_one_token_has_no_prefix():
    given = texts()
    short = given._replace(
        question=given.question[:, -1:], is_question=jnp.ones((B, 1), bool)
    )
    params = examples.params_of(SPEC)
    logp = SCORE(SPEC, params, short, 1.0).logp
    row = jnp.concatenate([short.question[0], short.completion[0, 0]])[None, None]
    plain = jax.nn.log_softmax(examples.plain(SPEC, params, row)[0, 0])
    expected = [plain[c, row[0, 0, c + 1]] for c in range(C)]
    np.testing.assert_allclose(logp[0, 0], expected, 1e-4, 1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gradient_over_many_chunks_is_not_rounded_at_each(tied, float64):
    """Parameters stored in bfloat16: hundreds of chunks are summed as few are."""
    spec = dataclasses.replace(SPEC, tied=tied)
    params = examples.params_of(spec, "bfloat16")
    given = scoring.Texts(
        examples.tokens_of(4, 8),
        jnp.ones((4, 8), bool),
        examples.tokens_of(4, 8, 32, seed=1),
        jnp.ones((4, 8, 32), bool),
    )

    def gradient(chunk):
        numerics = Numerics(compute="float32", chunk=chunk)

        def total(params):
            return SCORE(spec, params, given, 1.0, numerics).logp.sum()

        return jax.grad(total)(params)[spec.unembedding].astype(float)

    many, one = gradient(4), gradient(1024)
    assert jnp.linalg.norm(many - one) < 2e-3 * jnp.linalg.norm(one)


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_bins_change_neither_values_nor_gradients(name, lanes, float64):
    spec = examples.SPECS[name]
    params, given = examples.params_of(spec, "float64"), texts()
    numerics = dataclasses.replace(examples.DOUBLE, chunk=4)
    length = np.array(given.is_completion.sum(-1))
    place = packing.lay(length, packing.Lanes(0, lanes), 1, 1, C, 8).place[0, 0]
    assert place.shape[:2] == (lanes, 4 // lanes)

    def total(params, place):
        scores = SCORE(spec, params, given, 0.9, numerics, place, with_entropy=True)
        kept = jax.tree.map(lambda x: jnp.where(given.is_completion, x, 0), scores)
        return (kept.logp + kept.entropy**2).sum(), kept

    differentiate = jax.value_and_grad(total, has_aux=True)
    got, plain = (differentiate(params, p) for p in (jnp.asarray(place), None))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, 1e-9, 1e-10)
