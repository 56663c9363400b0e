"""Solutions whose steps are completed again and again: what `shepherd` labels.

A question's solutions are drawn as a group. Of each that ended and is no other's, every
prefix that ends with a step is put behind the question, read once, and completed N
times within the tokens that are left; a prefix that several solutions share, once for
all. What is drawn follows from the seed, the question, the sample, the step and the
completion.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo_jax import (
    asking,
    examination,
    groups,
    prng,
    resumed,
    runs,
    sharding,
    stage,
)
from grpo_jax.data.problem import Problem
from grpo_jax.examination import Examination
from grpo_jax.models import transformer
from grpo_jax.rewards import calls
from grpo_jax.rewards.grading import Grader
from grpo_jax.section import Refused
from grpo_jax.text import steps

MOST = 2**31  # numbers that draws follow from


class Completer(NamedTuple):
    """Another model than the one that solves."""

    name: str
    found: runs.Found
    step: int | None  # of a run


class Labelling(NamedTuple):
    solver: Examination
    completer: Completer | None  # None: the solver
    solutions: int  # drawn to each question
    completions: int  # N, of each prefix
    rows: int  # decoded at once

    def check(self):
        """Refuses what cannot be drawn, before any weights are read."""
        for name in ("solutions", "completions"):
            if (n := getattr(self, name)) < 1:
                raise Refused(f"--{name} is {n}; it must be at least one.")
        group = max(self.solutions, self.completions)
        if self.rows < group:
            raise Refused(
                f"--rows is {self.rows}; it must hold all {group} answers to what is "
                "asked once. Raise it."
            )
        most = self.number(len(self.solver.problems), 0, 0)
        if most > MOST:
            raise Refused(
                f"--questions, --solutions and --max-new make {most} places of steps; "
                f"there are numbers for {MOST}. Lower one."
            )

    def number(self, question: int, sample: int, step: int) -> int:
        """Of a prefix, by which it draws; a solution has no more steps than tokens."""
        longest = self.solver.settings.sampling.max_new
        return (question * self.solutions + sample) * longest + step


class Kept(NamedTuple):
    """A solution that ended and is no other's."""

    sample: int
    text: str
    cut: steps.Steps
    prefixes: list[tuple[int, ...]]  # tokens up to each step's end, but the last's
    right: list[int] | None  # [c, 1]; None: it could not be graded


class Prefix(NamedTuple):
    number: int
    problem: Problem
    tokens: list[int]  # as the completer reads them
    room: int  # tokens that are left


def batch(chosen: Labelling) -> resumed.Batch:
    """Reads the models; what it returns draws, and is what a row says."""
    settings, known = chosen.solver.settings, chosen.solver.task
    mesh, root = sharding.of_axes(settings.training.mesh), prng.root(settings.seed)
    grader = Grader(settings.rewards, known.checker, {})
    found, other = chosen.solver.found, chosen.completer
    run = stage.Run(settings, found.base.spec, known, grader, mesh, root)
    params = examination.published(run, found, chosen.solver.step)
    solver = _model(run, params, chosen.solutions, chosen.rows)
    if other is not None:
        known = known._replace(tokenizer=other.found.base.tokenizer)
        run = run._replace(spec=other.found.base.spec, task=known)
        params = examination.published(run, other.found, other.step)
    completer = _model(_completing(run), params, chosen.completions, chosen.rows)
    return Labeller(chosen, solver, completer).batch


def _completing(run: stage.Run) -> stage.Run:
    """A prefix is a longer question, and counts among the least tokens of an answer."""
    sampling = run.settings.sampling
    sampling = dataclasses.replace(sampling, max_prompt=None, min_new=0)
    return run._replace(settings=dataclasses.replace(run.settings, sampling=sampling))


class _Model(NamedTuple):
    run: stage.Run
    asker: asking.Asker
    params: transformer.Params

    def ask(
        self,
        problems: Sequence[Problem],
        numbers: Sequence[int],
        step: int,
        **more: Any,
    ) -> asking.Asked:
        key = self.run.key(prng.Stream.LABEL, step)
        given = self.asker, self.params, problems, numbers, key
        asked = asking.ask(*given, **more)
        faults, limits = asked.graded.faults, self.run.settings.rewards
        first, count = (faults or [""])[0], asked.graded.parts.size
        calls.need_few(len(faults), count, first, limits.most_faults)
        blank = sum(groups.unscored(self.run.settings, x) for x in groups.of(asked))
        calls.need_scored(blank, count, limits.most_unscored)
        return asked


def _model(
    run: stage.Run, params: transformer.Params, group_size: int, rows: int
) -> _Model:
    sampling = dataclasses.replace(run.settings.sampling, rows=rows)
    asker = stage.asker(run, sampling, group_size)
    return _Model(run, asker, sharding.own(params, asker.sampler.mesh))


class Labeller:
    def __init__(self, chosen: Labelling, solver: _Model, completer: _Model):
        self.chosen, self.solver, self.completer = chosen, solver, completer
        text = chosen.solver.task.tokenizer
        self.splitter = steps.Splitter(text.decode, text.size)

    def batch(self, numbers: Sequence[int]) -> list[dict]:
        """A row for each question."""
        problems = [self.chosen.solver.problems[i] for i in numbers]
        asked = self.solver.ask(problems, numbers, 0)
        kept = [self._kept(asked, i) for i in range(len(numbers))]
        prefixes = [
            self._prefixes(*one) for one in zip(numbers, problems, kept, strict=True)
        ]
        found = self._completed([x for of_one in prefixes for x in of_one.values()])
        return [
            {
                "number": number,
                "question": problem.question,
                "answer": problem.answer,
                "drawn": self.chosen.solutions,
                "ended": int(group.has_ended.sum()),
                "prefixes": sum(x.number in found for x in of_one.values()),
                "solutions": [_told(x, of_one, found) for x in some],
            }
            for number, problem, group, some, of_one in zip(
                numbers, problems, asked.groups, kept, prefixes, strict=True
            )
        ]

    def _kept(self, asked: asking.Asked, i: int) -> list[Kept]:
        """Of equal solutions the first. They are, if their steps are."""
        group, kept = asked.groups[i], {}
        for sample in np.flatnonzero(group.has_ended).tolist():
            text, grade = asked.texts[i][sample], asked.graded.parts[i, sample, 0]
            tokens = group.tokens[sample, : group.length[sample]]
            cut = self.splitter.split(tokens, text)
            if text.strip() and tuple(cut.texts) not in kept:
                prefixes = [tuple(tokens[: end + 1].tolist()) for end in cut.ends[:-1]]
                right = None if np.isnan(grade) else [int(grade > 0), 1]
                one = Kept(sample, text, cut, prefixes, right)
                kept[tuple(cut.texts)] = one
        return list(kept.values())

    def _prefixes(
        self, question: int, problem: Problem, kept: Sequence[Kept]
    ) -> dict[tuple[int, ...], Prefix]:
        """Each once, by its tokens, with the first place where it stands."""
        found, sampler = {}, self.completer.asker.sampler
        known, most = self.completer.run.task, sampler.settings.max_new
        asked = len(known.question(problem))
        for one in kept:
            for step, ids in enumerate(one.prefixes):
                if ids in found:
                    continue
                tokens = list(ids)
                if self.chosen.completer is not None:
                    decode = self.chosen.solver.task.tokenizer.decode
                    tokens = known.tokenizer.encode(decode(tokens))
                within = sampler.spec.max_length - asked
                room = min(most, within) - len(tokens)
                number = self.chosen.number(question, one.sample, step)
                found[ids] = Prefix(number, problem, tokens, room)
        return found

    def _completed(self, prefixes: Sequence[Prefix]) -> dict[int, list[int]]:
        """[c, N] of each prefix that there is room behind."""
        fit, N = [x for x in prefixes if x.room > 0], self.chosen.completions
        if not fit:
            return {}
        asked = self.completer.ask(
            [x.problem for x in fit],
            [x.number for x in fit],
            1,
            budgets=[[x.room] * N for x in fit],
            begun=[x.tokens for x in fit],
        )
        grades = asked.graded.parts[:, :, 0]
        right, graded = (
            (grades > 0).sum(1).tolist(),
            (~np.isnan(grades)).sum(1).tolist(),
        )
        counts = zip(fit, right, graded, strict=True)
        return {x.number: [c, n] for x, c, n in counts}


def _told(one: Kept, prefixes: dict, found: dict[int, list[int]]) -> dict[str, Any]:
    completed = [found.get(prefixes[ids].number) for ids in one.prefixes]
    return {
        "sample": one.sample,
        "completion": one.text,
        "steps": one.cut.texts,
        "found": [*completed, one.right],
    }
