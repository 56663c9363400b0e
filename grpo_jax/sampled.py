"""What was sampled, as the host has it: what can be learned from, and what not."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax import config, crossing
from grpo_jax.pool import Answers, Question
from grpo_jax.records import Rewards, check_shapes
from grpo_jax.sampling import shapes
from grpo_jax.section import Refused


class Rollout(NamedTuple):
    """Questions of this process and what was sampled for them: the host's arrays."""

    number: Int[np.ndarray, "B"]  # running numbers
    question: Int[np.ndarray, "B P"]  # padded on the left
    is_question: Bool[np.ndarray, "B P"]
    completion: Int[np.ndarray, "B G C"]
    length: Int[np.ndarray, "B G"]
    logp: Float[np.ndarray, "B G C"]  # of the distribution that was drawn from


def stack(
    questions: Sequence[Question], groups: Sequence[Answers], most: int | None = None
) -> Rollout:
    """The groups as arrays, in the questions' order; no question has more than `most`
    tokens, in whose halves and quarters widths come then."""
    by_number = {group.number: group for group in groups}
    groups = [by_number[question.number] for question in questions]
    longest = max(len(question.tokens) for question in questions)
    (longest,) = crossing.agreed(longest)
    width = shapes.length(longest)
    if most is not None:
        width = shapes.shortened(shapes.length(most), longest)
    asked = np.zeros((len(questions), width), np.int32)
    is_asked = np.zeros(asked.shape, bool)
    for i, question in enumerate(questions):
        asked[i, width - len(question.tokens) :] = question.tokens
        is_asked[i, width - len(question.tokens) :] = True
    arrays = (
        [getattr(g, name) for g in groups] for name in ("tokens", "length", "logp")
    )
    number = np.array([question.number for question in questions])
    return Rollout(number, asked, is_asked, *map(np.stack, arrays))


def check(chosen: config.Algorithm, rollout: Rollout, rewards: Rewards):
    """Refuses what cannot be learned from, on all processes, before anything runs."""
    B, wrong = len(rollout.number), None
    try:
        _need_learnable(chosen, rollout, rewards)
    except Refused as error:
        wrong = error
    refused, most, least = crossing.agreed(wrong is not None, B, -B)
    if most != -least:
        raise Refused(
            f"processes have {-least} to {most} questions. Give each as many."
        )
    if refused:
        raise wrong or Refused("another process refused its part of the rollout.")


def _need_learnable(chosen: config.Algorithm, rollout: Rollout, rewards: Rewards):
    """Refuses this process's part, by row."""
    check_shapes(rollout, rewards)
    (B, G), M = rollout.length.shape, chosen.minibatches
    if chosen.group_size != G:
        raise Refused(
            f"the rollout has groups of {G}; algorithm.group_size is "
            f"{chosen.group_size}. Make them equal."
        )
    if B % M:
        raise Refused(
            f"this process has {B} questions; algorithm.minibatches is {M}, and equal "
            f"ones need {B + -B % M}. Change one of them."
        )
    is_token = np.arange(rollout.completion.shape[2]) < rollout.length[:, :, None]
    for x, rule in (
        (rewards.is_completion & ~is_token, "is rewarded, and not sampled"),
        (is_token & ~np.isfinite(rollout.logp), "has a log-probability of no number"),
    ):
        if x.any():
            b, g, c = np.argwhere(x)[0]
            raise Refused(
                f"question {rollout.number[b]}, sample {g}: token {c} {rule}, and so "
                f"do {x.sum() - 1} more of this rollout. Look at the steps before."
            )
    if not rollout.is_question.any(1).all():
        number = rollout.number[~rollout.is_question.any(1)][0]
        raise Refused(f"question {number} has no tokens. Leave it out.")
