"""Rewards that a rule gives: (question, completion, answer) → a number.

Any function of the same three texts is a reward. None says that it cannot tell. A
completion that was cut comes without what may be unfinished in it. The rules here are
functions of these texts alone: `rewards.seconds` does not end them, for what a slow
machine left unscored a fast one would not.
"""

from grpo_jax.rewards import strict
from grpo_jax.text import answers


def correct(question: str, completion: str, answer: str) -> float:
    """1 if the completion's final answer is the right one: boxed, or after ####."""
    return float(strict.is_right(question, answers.final(completion), answer))


def last(question: str, completion: str, answer: str) -> float:
    """1 if the completion's last word is the answer."""
    return float(answers.last(completion) == answer)


def format_kept(question: str, completion: str, answer: str) -> float:
    """1 if there is a final answer at all, right or wrong."""
    return float(answers.final(completion) is not None)


RULES = {"correct": correct, "last": last, "format": format_kept}
