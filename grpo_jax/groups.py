"""Questions with their answers and what these were given, on the host."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import dtypes
from jaxtyping import Bool, Float

from grpo_jax import config, crossing, hacking, stepped
from grpo_jax.asking import Asked
from grpo_jax.data.problem import Problem
from grpo_jax.pool import Answers, Question
from grpo_jax.records import Rewards
from grpo_jax.rewards import shaping
from grpo_jax.rewards.stepwise import Stepped
from grpo_jax.text import diversity


class Group(NamedTuple):
    problem: Problem
    question: Question
    answers: Answers
    texts: list[str | None]  # None: that row was not drawn
    parts: Float[np.ndarray, "G R"]  # one value per reward function
    steps: list[Stepped | None] | None = None  # in process supervision
    is_trained: bool = True  # False: it stands in for a group that was not found
    right: Float[np.ndarray, "G"] | None = None  # where a model gives rewards


def of(asked: Asked) -> list[Group]:
    given = asked.problems, asked.questions, asked.groups, asked.texts
    by_step = right = [None] * len(asked.problems)
    if asked.stepped is not None:
        by_step = asked.stepped.groups
    if asked.graded.right is not None:
        right = asked.graded.right
    found = map(Group, *given, asked.graded.parts, by_step)
    return [one._replace(right=x) for one, x in zip(found, right, strict=True)]


def clipped(
    settings: config.Config, parts: Float[np.ndarray, "*n R"]
) -> Float[np.ndarray, "*n R"]:
    """What the functions gave, as it counts; weights come behind."""
    return np.clip(parts, *settings.rewards.clip) if settings.rewards.clip else parts


def total(
    settings: config.Config, parts: Float[np.ndarray, "*n R"]
) -> Float[np.ndarray, "*n"]:
    """The weighted sum of what the functions gave; nothing for tokens is in it."""
    count = parts.shape[-1]
    weights = settings.algorithm.advantage.reward_weights[:count] or [1.0] * count
    return clipped(settings, parts) @ np.array(weights)


def is_scored(
    settings: config.Config,
    parts: Float[np.ndarray, "G R"],
    is_valid: Bool[np.ndarray, "G"],
) -> Bool[np.ndarray, "G"]:
    """Which samples of a group have all rewards that apply: see total_reward."""
    is_known = ~np.isnan(parts)
    found = is_valid & is_known.any(-1)
    if settings.algorithm.advantage.normalise_each:
        return found
    applies = is_known[is_valid].any(0)
    return found & (is_known | ~applies).all(-1)


def reward(
    settings: config.Config, group: Group, is_valid: Bool[np.ndarray, "G"]
) -> Float[np.ndarray, "G"]:
    """The total of each sample among these; NaN where it is unscorable."""
    known = is_scored(settings, group.parts, is_valid)
    return np.where(known, total(settings, np.nan_to_num(group.parts)), np.nan)


def unscored(settings: config.Config, group: Group) -> int:
    """How many samples that were drawn got no reward that is learned from."""
    there = group.answers.length > 0
    if group.steps is None:
        return int((there & ~is_scored(settings, group.parts, there)).sum())
    rewards = (group.steps[g].reward for g in np.flatnonzero(there))
    return sum(bool(np.isnan(reward).all()) for reward in rewards)


def is_mixed(settings: config.Config, group: Group) -> bool:
    """Whether rewards differ that will be compared: of each sample, or step, that is
    learned from."""
    there = group.answers.length > 0
    if settings.rewards.truncated == "dropped":
        there &= group.answers.has_ended
    if group.steps is None:
        given = reward(settings, group, there)
    else:
        rewards = [group.steps[g].reward for g in np.flatnonzero(there)]
        given = np.concatenate([np.zeros(0), *rewards])
    known = given[~np.isnan(given)]
    return len(known) > 0 and bool(known.max() != known.min())


def shaped(
    settings: config.Config, answers: Answers, parts: Float[np.ndarray, "G R"]
) -> Float[np.ndarray, "G K"]:
    """What a group's tokens are given, besides what functions gave: see `shaping`."""
    return shaping.given(
        settings.rewards,
        answers.tokens,
        answers.length,
        parts,
        most=settings.sampling.max_new,
        right_above=settings.algorithm.advantage.correct_above,
    )


def baseline(
    settings: config.Config,
    group: Group,
    answers: Answers,
    parts: Float[np.ndarray, "1 R"],
) -> float:
    """The reward of the likeliest answer; NaN if it lacks one that applies."""
    applies = ~np.isnan(group.parts).all(0)
    more = shaped(settings, answers, parts)
    every = np.concatenate([clipped(settings, parts), more], -1)[0]
    weights = settings.algorithm.advantage.reward_weights or [1.0] * len(every)
    if (applies & np.isnan(parts[0])).any() or not applies.any():
        return float("nan")
    return float(np.nan_to_num(every) @ np.array(weights))


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
    more = np.stack([shaped(settings, g.answers, g.parts) for g in groups])
    parts = np.concatenate([clipped(settings, parts), more], -1)
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


def numbers(
    settings: config.Config, names: Sequence[str], groups: Sequence[Group]
) -> dict[str, float]:
    """Of the groups of all processes; rewards as they were given, before they are
    clipped."""
    answers = [group.answers for group in groups]
    parts = [_every(settings, group) for group in groups]
    trained = np.array([group.is_trained for group in groups])
    length, ended = _of(answers, "length"), _of(answers, "has_ended")
    given = map(crossing.gathered, (np.stack(parts), length, ended, trained))
    parts, length, ended, trained = given
    there = length > 0
    parts, n = parts[there], len(names)
    every = [*names, *shaping.names(settings.rewards)]
    out = {f"reward/{name}": _mean(x) for name, x in zip(every, parts.T, strict=True)}
    missing = np.isnan(parts[:, :n])
    by_name = zip(names, missing.T, strict=True)
    out |= {f"unscored/{name}": _mean(x) for name, x in by_name}
    if settings.rewards.clip:
        is_clipped = clipped(settings, parts[:, :n]) != parts[:, :n]
        out["samples/clipped"] = _mean((is_clipped & ~missing).any(-1))
    if groups[0].steps is not None:
        out |= stepped.numbers([group.steps for group in groups])
    if groups[0].right is not None:
        right = crossing.gathered(np.stack([group.right for group in groups]))
        learned = there & trained[:, None]
        if settings.rewards.truncated == "dropped":
            learned &= ended
        out[hacking.RIGHT] = _mean(right[learned])
    various = crossing.gathered(np.array([_diversity(group) for group in groups]))
    out |= dict(zip(diversity.NAMES, map(_mean, various.T), strict=True))
    return out | {
        "samples/tokens": int(length.sum()),
        "samples/truncated": _mean(~ended[there]),
        "groups/found": _mean(trained),
    }


def table(
    settings: config.Config,
    names: Sequence[str],
    groups: Sequence[Group],
    advantage: Float[np.ndarray, "B G C"],
) -> list[dict[str, Any]]:
    """A row for each sample, with its rewards as they were given.

    Where a model gives them, also what they count together, of steps their mean, and
    beside it whether the data's own checker holds the answer to be right.
    """
    every = [*names, *shaping.names(settings.rewards)]
    rows = []
    for b, group in enumerate(groups):
        given, worth = _every(settings, group), _worth(settings, group)
        for g in np.flatnonzero(group.answers.length):
            n = int(group.answers.length[g])
            parts = zip(every, given[g].tolist(), strict=True)
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
            if group.right is not None:
                x, is_right = float(worth[g]), float(group.right[g])
                row["reward"] = None if x != x else x
                row["right"] = None if is_right != is_right else is_right > 0
            if group.steps is not None:
                row["steps"] = stepped.rows(group.steps[g], advantage[b, g])
            rows.append(row)
    return rows


def _diversity(group: Group) -> tuple[float, float, float]:
    """Of what was drawn."""
    drawn = np.flatnonzero(group.answers.length)
    tokens = [
        group.answers.tokens[g, : group.answers.length[g]].tolist() for g in drawn
    ]
    return diversity.of_group(tokens, [group.texts[g] for g in drawn])


def _every(settings: config.Config, group: Group) -> Float[np.ndarray, "G R"]:
    """All rewards of a group, as they were given."""
    more = shaped(settings, group.answers, group.parts)
    return np.concatenate([group.parts, more], -1)


def _worth(settings: config.Config, group: Group) -> Float[np.ndarray, "G"]:
    """What samples are given by the functions, all that apply; or for their steps."""
    if group.steps is None:
        return reward(settings, group, group.answers.length > 0)
    nan = np.array([float("nan")])
    return np.array([_mean(nan if x is None else x.reward) for x in group.steps])


def _of(answers: Sequence[Answers], name: str) -> np.ndarray:
    return np.stack([getattr(one, name) for one in answers])


def _mean(x: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"]) -> float:
    """Of what is known; NaN if nothing is."""
    known = x[~np.isnan(x.astype(float))]
    return float(known.mean()) if len(known) else float("nan")
