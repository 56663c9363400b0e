"""Rules of texts: others' numbers, and by hand."""

import pytest

from grpo_jax.rewards import rules
from tests.rewards import test_shaping


@test_shaping.of("think_format")
def test_thinking_aloud_is_trls(case):
    assert rules.think("", case["inputs"]["text"], "") == case["expected"]["reward"]


@pytest.mark.parametrize(
    ("completion", "answer", "exact", "f1"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1, 1),
        ("<think>Rome? No.</think> Paris!", "Paris", 1, 1),
        ("It is the Eiffel Tower", "the Eiffel Tower", 0, 4 / 6),  # 2·2/(4 + 2)
        ("Tower Eiffel", "Eiffel Tower", 0, 1),
        ("no no no", "no", 0, 2 / 4),  # one of three is common
        ("no no", "no no no", 0, 4 / 5),
        ("Rome", "Paris", 0, 0),
        ("", "Paris", 0, 0),
        ("the", "Paris", 0, 0),
        ("u.s.", "US", 1, 1),
        ("theatre", "atre", 0, 0),  # an article is a word
    ],
)
def test_words_are_compared_as_squad_does(completion, answer, exact, f1):
    assert rules.exact("", completion, answer) == exact
    assert rules.f1("", completion, answer) == pytest.approx(f1)


@pytest.mark.parametrize("answer", ["", "The", "?!"])
def test_an_answer_without_words_can_tell_nothing(answer):
    assert rules.exact("", "", answer) is rules.f1("", "", answer) is None
