"""Rewards that a rule gives: (question, completion, answer) → a number.

Any function of the same three texts is a reward. None says that it cannot tell.
"""

from grpo_jax.text import answers


def correct(question: str, completion: str, answer: str) -> float:
    """1 if the completion's final answer is the right one: boxed, or after ####."""
    return float(answers.same(answers.final(completion), answer))


def last(question: str, completion: str, answer: str) -> float:
    """1 if the completion's last word is the answer."""
    return float(answers.last(completion) == answer)


def format_kept(question: str, completion: str, answer: str) -> float:
    """1 if there is a final answer at all, right or wrong."""
    return float(answers.final(completion) is not None)


RULES = {"correct": correct, "last": last, "format": format_kept}
