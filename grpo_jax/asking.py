"""Problems asked of a policy, and its answers graded while others are being drawn."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int, Key

from grpo_jax import rollout
from grpo_jax.data.problem import Problem
from grpo_jax.models import transformer
from grpo_jax.pool import Answers, Question, Sampler, Watch
from grpo_jax.rewards import stepwise
from grpo_jax.rewards.grading import Graded, Grader
from grpo_jax.task import Task


class Asker(NamedTuple):
    task: Task
    sampler: Sampler
    grader: Grader | None  # None: none is needed
    steps: stepwise.StepGrader | None = None  # in process supervision


class Asked(NamedTuple):
    """In the problems' order."""

    problems: Sequence[Problem]
    questions: list[Question]
    groups: list[Answers]
    texts: list[list[str | None]]
    graded: Graded | None
    stepped: stepwise.Graded | None = None  # in process supervision

    @property
    def faults(self) -> list[str]:
        both = self.graded, self.stepped
        return [fault for one in both if one is not None for fault in one.faults]


def ask(
    asker: Asker,
    params: transformer.Params,  # of programs.publish
    problems: Sequence[Problem],
    numbers: Sequence[int],  # draws follow from them, and the key
    key: Key[Array, ""],
    *,
    budgets: Sequence[Sequence[int]] | None = None,
    begun: Sequence[Sequence[int]] | None = None,  # tokens that all answers begin with
    meanwhile: Callable[[], None] = lambda: None,  # see rollout.answers
) -> Asked:
    """The texts, and what is graded, are whole answers: what was begun, and the rest.

    What is begun is read with its question, once for the group.
    """
    task, sampler, grader, by_step = asker
    assert by_step is None or begun is None  # steps are cut from the tokens drawn
    strings = sampler.settings.stop_strings
    decode = task.tokenizer.decode
    budgets = budgets or [None] * len(problems)
    begun = begun or [()] * len(problems)
    tokens = [[*task.question(p), *x] for p, x in zip(problems, begun, strict=True)]
    questions = list(map(Question, numbers, tokens, budgets))
    first = {i: np.array(x, np.int32) for i, x in zip(numbers, begun, strict=True)}
    watch = _watch(rollout.stop_strings(strings, decode), first) if strings else None
    of_number = dict(zip(numbers, problems, strict=True))
    found, of_steps = {}, {}
    given = params, questions, key, watch, meanwhile
    for group in rollout.answers(sampler, *given):
        rows = zip(group.tokens, group.length, strict=True)
        before = first[group.number].tolist()
        # Only a row that was given no budget is empty: it was not asked.
        texts = [decode(before + row[:n].tolist()) if n else None for row, n in rows]
        problem = of_number[group.number]
        submitted = grader and grader.submit(problem, texts, group.has_ended)
        found[group.number] = group, texts, submitted
        if by_step is not None:
            of_steps[group.number] = by_step.submit(
                problem, group.tokens, group.length, texts, group.has_ended
            )
    groups, texts, submitted = map(
        list, zip(*(found[number] for number in numbers), strict=True)
    )
    graded = grader and grader.collect(submitted)
    stepped = by_step and by_step.collect([of_steps[number] for number in numbers])
    return Asked(problems, questions, groups, texts, graded, stepped)


def _watch(watch: Watch, first: dict[int, Int[np.ndarray, "n"]]) -> Watch:
    """It sees what was begun as well: a string to stop at may begin in it."""

    def of_whole(number: int, sample: int, tokens: np.ndarray) -> int | None:
        before = first[number]
        keep = watch(number, sample, np.concatenate([before, tokens]))
        return None if keep is None else max(1, keep - len(before))

    return of_whole
