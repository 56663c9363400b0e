"""Answers to one question: greedy is the argmax of the whole forward, draws are keyed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import generate, sampling
from grpo_jax.models import load, settings
from grpo_jax.models.settings import Numerics
from grpo_jax.section import Refused
from tests.models import examples
from tests.text.test_tokenizer import TEXTS

SMALL = settings.Model(tiny=settings.Tiny(layers=2, width=32, ffw=32, max_length=64))
PLAIN = {"n": 2, "temperature": 1.0, "top_p": 1.0, "max_new": 8, "seed": 0}
QUESTION = list(b"What is 2 + 3?")


@pytest.fixture(scope="module")
def model():
    made = load.load(SMALL, jax.random.key(0))
    # sharper than new parameters, so that answers differ from each other
    return made._replace(params=jax.tree.map(lambda x: x * 3, made.params))


def answers(model, question=QUESTION, **options):
    picked = generate.Options(**(PLAIN | options))
    steps = generate.tokens(model, question, picked, Numerics())
    return np.stack(list(steps), 1)


def test_greedy_answers_are_the_argmax_of_the_whole_forward(model):
    got = answers(model, temperature=0.0, n=1)[0]
    row = list(QUESTION)
    for token in got:
        logits = examples.plain(model.spec, model.params, jnp.array([[row]]))
        assert token == logits[0, 0, -1].argmax()
        row.append(int(token))


def test_a_draw_is_a_function_of_seed_and_sample(model):
    got = answers(model, n=3)
    np.testing.assert_array_equal(got, answers(model, n=3))
    np.testing.assert_array_equal(got[:1], answers(model, n=1))
    assert np.any(got[0] != got[1])
    assert np.any(got != answers(model, n=3, seed=1))


def test_an_end_ends_an_answer_and_all_ends_end_the_loop(model):
    first = answers(model, n=1, temperature=0.0)[0]

    class Stops:
        stop_ids = (int(first[2]),)

    ended = answers(model._replace(tokenizer=Stops()), n=1, temperature=0.0)[0]
    stop = int(np.argmax(first == first[2])) + 1
    np.testing.assert_array_equal(ended, first[:stop])


@pytest.mark.parametrize(
    ("options", "question", "message"),
    [
        ({"n": 0}, QUESTION, "--n is 0; it must be at least one answer"),
        (
            {"temperature": -1.0},
            QUESTION,
            "--temperature is -1.0; it must be 0 or more",
        ),
        ({"top_p": 0.0}, QUESTION, "--top-p is 0.0; it must be a share"),
        ({"max_new": 0}, QUESTION, "--max-new is 0"),
        ({}, [], "the question is empty"),
        (
            {"max_new": 60},
            QUESTION,
            "14 tokens of question and --max-new 60 pass the 64",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(model, options, question, message):
    with pytest.raises(Refused, match=message):
        answers(model, question, **options)


def test_the_nucleus_is_the_fewest_tokens_that_reach_the_share():
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    for share, kept in (
        (0.3, [1]),
        (0.6, [1, 3]),
        (0.71, [1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ):
        inside = np.isfinite(sampling.nucleus(logits, share))
        assert sorted(np.flatnonzero(inside)) == kept


def test_draws_follow_their_distribution():
    logits = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
    keys = jax.random.split(jax.random.key(0), 20_000).reshape(1, -1)
    spread = jnp.broadcast_to(logits, (*keys.shape, 4))
    draw = jax.jit(sampling.draw)
    for temperature in (1.0, 0.5):
        token = np.ravel(draw(spread, keys, 0, temperature, 1.0))
        share = np.bincount(token, minlength=4) / len(token)
        expected = np.exp(logits / temperature)
        expected /= expected.sum()
        spread_of_share = np.sqrt(expected * (1 - expected) / len(token))
        assert np.all(np.abs(share - expected) < 4 * spread_of_share)
    inside = np.ravel(draw(spread, keys, 0, 1.0, 0.6))
    assert set(inside) == {1, 3}


def test_byte_texts_survive(model):
    for text in TEXTS:
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text


def test_a_share_of_one_keeps_every_token_of_a_large_vocabulary():
    logits = jax.random.normal(jax.random.key(0), (260_000,)) * 3
    np.testing.assert_array_equal(sampling.nucleus(logits, 1.0), logits)
