"""Where a reward model's scores stand in what it reads."""

import pytest

from grpo_jax.section import Refused
from grpo_jax.text import reading
from grpo_jax.text.tokenizer import Bytes

END = Bytes.stop_ids[0]


def reader(by_steps=True, tag=None, wrapping="raw"):
    return reading.Reader(Bytes(), "none", wrapping, by_steps, tag)


def test_a_completion_is_scored_where_it_ends():
    assert reader(by_steps=False).row(["1\n2"]) == ([*b"1\n2", END], [3])
    assert reader(by_steps=False).row([""]) == ([END], [0])


def test_a_step_is_scored_at_its_newline():
    found = reader().row(["1+2=3", "\n#### 3\n\n"])
    assert found == ([*b"1+2=3\n#### 3\n"], [5, 12])
    assert [bytes(found.tokens[: end + 1]) for end in found.ends] == [
        b"1+2=3\n",
        b"1+2=3\n#### 3\n",
    ]


def test_a_step_is_scored_at_its_tag():
    found = reader(tag=200).row(["a", "bc"])
    assert found == ([*b"a", 200, *b"\nbc", 200, *b"\n"], [1, 5])


def test_a_question_is_put_as_the_reward_model_is_asked():
    assert bytes(reader(wrapping="paper").question("q")) == b"User: q\n\nAssistant:"
    assert bytes(reader(wrapping="chat").question("q")) == b"q\n"


def test_a_tag_that_the_tokenizer_splits_is_refused():
    assert reading.token(Bytes(), "+", "reward.good") == ord("+")
    message = r"reward\.tag is 'ки', which the tokenizer writes with 4 tokens"
    with pytest.raises(Refused, match=message):
        reading.token(Bytes(), "ки", "reward.tag")
