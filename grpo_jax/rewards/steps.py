"""Rewards of steps that a rule gives: (question, steps, answer) → a number for each.

Any function of the question, the texts of the steps and the answer is one. None says of
a step that the rule cannot tell: it is compared with nothing, and is no step then.

A token's advantage is the sum over the steps that end at or behind it, each less the
mean m of all steps of the question. What counts is Σ (r − m), and a rule says what the
number of steps is worth: one that gives wrong steps 0 and no more teaches a policy that
expects to be wrong to say as little as it can.
"""

from collections.abc import Callable, Sequence

from grpo_jax.data import arithmetic

Rule = Callable[[str, list[str], str], Sequence[float | None]]


def chain(question: str, steps: list[str], answer: str) -> list[float | None]:
    """Of chains and series (see `arithmetic`): is line i the i-th that is asked for?

    Right is 1, wrong 0. A line goes on from the right value, not from one that was
    written: or it would pay to write an easy one. Spaces do not matter.

    No number of lines other than the L that are asked for pays, whatever m is: for each
    line that is missing the last one gets 1 less (m is at most 1), and the first one
    too many gets 1 − L, which is the least that any can get (m is no less); what is
    behind it is not looked at. A sample moves the mean and the spread of its own group,
    though: of random groups of 16 it was better off with fewer lines in 2 of 100, with
    more in 1 of 1,000; of 4, in 10 and in 1 of 100. Without the two rules it was better
    off with fewer in 80 of 100 groups of 16.
    """
    asked = arithmetic.asked(question, answer)
    L, K = len(asked), len(steps)
    told, plain = zip(steps, asked, strict=False), arithmetic.plain
    reward: list[float | None] = [float(plain(x) == plain(y)) for x, y in told]
    if K < L:
        reward[-1] -= L - K
    if K > L:
        reward += [1.0 - L, *[None] * (K - L - 1)]
    return reward


RULES: dict[str, Rule] = {"chain": chain}
