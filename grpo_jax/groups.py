"""Questions with their answers and what these were given, on the host."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import dtypes
from jaxtyping import Bool, Float

from grpo_jax import config, crossing, stepped
from grpo_jax.asking import Asked
from grpo_jax.data.problem import Problem
from grpo_jax.pool import Answers, Question
from grpo_jax.records import Rewards
from grpo_jax.rewards.stepwise import Stepped


class Group(NamedTuple):
    problem: Problem
    question: Question
    answers: Answers
    texts: list[str | None]  # None: that row was not drawn
    parts: Float[np.ndarray, "G R"]  # one value per reward function
    steps: list[Stepped | None] | None = None  # in process supervision
    is_trained: bool = True  # False: it stands in for a group that was not found


def of(asked: Asked) -> list[Group]:
    given = asked.problems, asked.questions, asked.groups, asked.texts
    by_step = [None] * len(asked.problems)
    if asked.stepped is not None:
        by_step = asked.stepped.groups
    return list(map(Group, *given, asked.graded.parts, by_step))


def total(
    settings: config.Config, parts: Float[np.ndarray, "*n R"]
) -> Float[np.ndarray, "*n"]:
    """The weighted sum of what the functions gave; no penalty for length is in it."""
    count = parts.shape[-1]
    weights = settings.algorithm.advantage.reward_weights[:count] or [1.0] * count
    return parts @ np.array(weights)


def is_mixed(settings: config.Config, group: Group) -> bool:
    """Whether rewards differ that will be compared: what is known of each sample, or
    step, that is learned from."""
    there = group.answers.length > 0
    if settings.rewards.truncated == "dropped":
        there &= group.answers.has_ended
    if group.steps is not None:
        rewards = [group.steps[g].reward for g in np.flatnonzero(there)]
        reward = np.concatenate([np.zeros(0), *rewards])
        reward = reward[~np.isnan(reward)]
        return len(reward) > 0 and bool(reward.max() != reward.min())
    there &= ~np.isnan(group.parts).all(-1)
    reward = total(settings, np.nan_to_num(group.parts[there]))
    return len(reward) > 0 and bool(reward.max() != reward.min())


def penalty(
    settings: config.Config, groups: Sequence[Answers]
) -> Float[np.ndarray, "B G"]:
    """DAPO's: 0 up to overlong tokens before max_new, then down to −1 at max_new."""
    length = np.stack([group.length for group in groups])
    cache = settings.rewards.overlong
    if not cache:
        return np.zeros(length.shape)
    begins = settings.sampling.max_new - cache
    return np.clip((begins - length) / cache, -1.0, 0.0)


def rewards(
    settings: config.Config,
    kinds: Sequence[str],
    groups: Sequence[Group],
    columns: int,
    baseline: Float[np.ndarray, "B"] | None = None,
) -> Rewards:
    """As arrays, with completions of so many columns."""
    answers = [group.answers for group in groups]
    length, ended = _of(answers, "length"), _of(answers, "has_ended")
    parts = np.stack([group.parts for group in groups])
    if settings.rewards.overlong:
        less = penalty(settings, answers)[:, :, None]
        parts = np.concatenate([parts, less], -1)
    is_valid = length > 0
    is_valid &= np.array([group.is_trained for group in groups])[:, None]
    if settings.rewards.truncated == "dropped":
        is_valid &= ended
    kind = [kinds.index(group.problem.kind) for group in groups]
    by_step = {}
    if settings.algorithm.advantage.supervision == "process":
        by_step = stepped.arrays([group.steps for group in groups])
    return Rewards(
        parts=parts.astype(dtypes.canonicalize_dtype(float)),
        is_completion=np.arange(columns) < length[:, :, None],
        is_valid=is_valid,
        baseline=baseline,
        columns={"kind": np.array(kind)},
        **by_step,
    )


def numbers(names: Sequence[str], groups: Sequence[Group]) -> dict[str, float]:
    """Of the groups of all processes."""
    answers = [group.answers for group in groups]
    parts = np.stack([group.parts for group in groups])
    trained = np.array([group.is_trained for group in groups])
    given = parts, _of(answers, "length"), _of(answers, "has_ended"), trained
    parts, length, ended, trained = map(crossing.gathered, given)
    there = length > 0
    by_part = zip(names, np.moveaxis(parts, -1, 0), strict=True)
    by_step = {}
    if groups[0].steps is not None:
        by_step = stepped.numbers([group.steps for group in groups])
    return {
        **{f"reward/{name}": _mean(x[there]) for name, x in by_part},
        "samples/tokens": int(length.sum()),
        "samples/truncated": _mean(~ended[there]),
        "groups/found": _mean(trained),
        **by_step,
    }


def table(
    names: Sequence[str],
    groups: Sequence[Group],
    given: Rewards,
    advantage: Float[np.ndarray, "B G C"],
) -> list[dict[str, Any]]:
    """A row for each sample."""
    rows = []
    for b, group in enumerate(groups):
        for g in np.flatnonzero(group.answers.length):
            n = int(group.answers.length[g])
            parts = zip([*names, "overlong"], given.parts[b, g].tolist(), strict=False)
            row = {
                "number": group.question.number,
                "sample": int(g),
                "question": group.problem.question,
                "completion": group.texts[g],
                "answer": group.problem.answer,
                "rewards": {name: None if x != x else x for name, x in parts},
                "advantage": float(advantage[b, g, :n].mean()),
                "tokens": n,
                "ended": bool(group.answers.has_ended[g]),
            }
            if group.steps is not None:
                row["steps"] = stepped.rows(group.steps[g], advantage[b, g])
            rows.append(row)
    return rows


def _of(answers: Sequence[Answers], name: str) -> np.ndarray:
    return np.stack([getattr(one, name) for one in answers])


def _mean(x: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"]) -> float:
    """Of what is known; NaN if nothing is."""
    known = x[~np.isnan(x.astype(float))]
    return float(known.mean()) if len(known) else float("nan")
