"""Rewards that a rule gives: (question, completion, answer) → a number.

Any function of the same three texts is a reward. None says that it cannot tell. To the
rules here a completion that was cut comes without what may be unfinished in it. They
are functions of these texts alone: `rewards.seconds` does not end them, for what a slow
machine left unscored a fast one would not.
"""

from grpo_jax.rewards import strict
from grpo_jax.text import answers, overlap


def correct(question: str, completion: str, answer: str) -> float:
    """1 if the completion's final answer is the right one: boxed, or after ####."""
    return float(strict.is_right(question, answers.final(completion), answer))


def last(question: str, completion: str, answer: str) -> float:
    """1 if the completion's last word is the answer."""
    return float(answers.last(completion) == answer)


def format_kept(question: str, completion: str, answer: str) -> float:
    """1 if there is a final answer at all, right or wrong."""
    return float(answers.final(completion) is not None)


def think(question: str, completion: str, answer: str) -> float:
    """1 if it begins with `<think>`, once, and `</think>` comes behind."""
    opens = completion.startswith("<think>") and completion.count("<think>") == 1
    return float(opens and "</think>" in completion)


def exact(question: str, completion: str, answer: str) -> float | None:
    """1 if all that is said, but for thoughts, are the answer's own words."""
    right = overlap.words(answer)
    return float(_words(completion) == right) if right else None


def f1(question: str, completion: str, answer: str) -> float | None:
    """F1 of the words that are said, but for thoughts, and those of the answer."""
    right = overlap.words(answer)
    return overlap.f1(_words(completion), right) if right else None


def _words(completion: str) -> list[str]:
    return overlap.words(completion.rpartition("</think>")[2])


RULES = {"correct": correct, "last": last, "format": format_kept}
RULES |= {"think": think, "exact": exact, "f1": f1}
NEEDING = {"correct", "last", "exact", "f1", "code"}  # an answer to compare with
