"""A reward model's data: tokens, what is held out, and what is too long."""

import json

import pytest

from grpo_jax import config, labels
from grpo_jax.data import problem
from grpo_jax.data.verdicts import Preference, Solution
from grpo_jax.section import Refused
from grpo_jax.text.reading import Row
from grpo_jax.text.tokenizer import Bytes
from tests.models import examples

SPEC = examples.SPECS["llama"]
END = Bytes.stop_ids[0]


def settings(kind="correct", name="sums", **reward):
    return config.Config(
        stages=("reward",),
        data=config.Data(name=name, **{} if name != "sums" else {"count": 50}),
        reward=config.Reward(labels=kind, **reward),
    )


def test_tokens_and_labels_of_an_item():
    read = labels.reader(settings("steps"), Bytes())
    found = labels.item(read, Solution("q", ("a", "b"), (1.0, None)))
    assert found == ([*b"q"], [Row([*b"a\nb\n"], [1, 3])], [[1.0, None]])
    assert labels.size(found) == 6
    read = labels.reader(settings("preferences"), Bytes())
    found = labels.item(read, Preference("q", "a", "bc"))
    rows = [Row([*b"a", END], [1]), Row([*b"bc", END], [2])]
    assert found == ([*b"q"], rows, [])
    assert labels.size(found) == 5


def test_questions_are_held_out_with_all_that_was_said_of_them():
    found = labels.make(settings(), SPEC, Bytes())
    held = {one.question for one in found.held_out}
    assert held and all(problem.is_held_out(x, 0.1) for x in held)
    assert not held & {one.question for one in found.train}
    assert len(found.held_out) == 2 * len(held)


def test_what_is_too_long_is_left_out_and_told(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"q{i}", "completion": "a" * n} for i, n in enumerate((9, 12))]
    text = "".join(json.dumps(row | {"is_correct": 1}) + "\n" for row in rows)
    path.write_text(text)
    chosen = settings(name=str(path))
    small = SPEC.__class__(**(vars(SPEC) | {"max_length": 14}))
    found = labels.make(chosen, small, Bytes())
    assert len(found.train + found.held_out) == 1
    assert found.left_out == ["'q1': 16 tokens, at most 14 fit"]
    with pytest.raises(Refused, match="nothing is left to learn from, of 2"):
        labels.make(chosen, SPEC.__class__(**(vars(SPEC) | {"max_length": 5})), Bytes())
    for longest, most in ((14, 14), (15, 15), (20, 14)):  # of either the smaller
        shorter = settings(name=str(path), longest=longest)
        wide = small if longest == 20 else SPEC
        told = labels.make(shorter, wide, Bytes()).left_out
        assert told == [f"'q1': 16 tokens, at most {most} fit"]


def test_tokens_that_say_good_and_bad():
    assert labels.candidates(config.Reward(), Bytes()) is None
    chosen = config.Reward(head="tokens", good="y", bad="n")
    assert labels.candidates(chosen, Bytes()) == (ord("y"), ord("n"))
    with pytest.raises(Refused, match=r"reward\.good is 'yes', .* with 3 tokens"):
        labels.candidates(config.Reward(head="tokens", good="yes"), Bytes())
    with pytest.raises(Refused, match=r"reward\.tag is 'ки', .* with 4 tokens"):
        labels.reader(settings("steps", tag="ки"), Bytes())
    assert labels.reader(settings("steps", tag="@"), Bytes()).tag == ord("@")
