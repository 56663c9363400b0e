"""A run's task: problems to train on and to be examined on, as a model reads them."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from grpo_jax import config
from grpo_jax.data import arithmetic, problem, sets
from grpo_jax.data.problem import Problem
from grpo_jax.data.settings import GENERATED, PROMPTS, asked
from grpo_jax.models.spec import Spec
from grpo_jax.rewards import paper, rules, strict
from grpo_jax.section import Refused
from grpo_jax.text import answers, prompts
from grpo_jax.text.tokenizer import Tokenizer

SEED = 0  # of generated problems: the same for runs of every seed


class Task(NamedTuple):
    """Problems, each with the tokens of its question."""

    train: list[Problem]  # of a stage reward: what was judged (see `labels`)
    held_out: list[Problem]
    left_out: list[str]  # what could not be asked or learned, and why
    settings: config.Data
    tokenizer: Tokenizer
    has_answers: bool = True  # False: they do not say of all what is right

    def problem(self, seed: int, number: int) -> Problem:
        """Question `number` of the stream that a seed asks."""
        return self.train[self.row(seed, number)]

    def row(self, seed: int, number: int) -> int:
        return problem.row(seed, number, len(self.train))

    def question(self, asked: Problem) -> list[int]:
        chosen = self.settings
        return prompts.prompt(
            asked.question,
            self.tokenizer,
            instruction=chosen.instruction,
            wrapping=chosen.wrapping,
            examples=_examples(self.train[: chosen.shots]),
        )

    @property
    def digest(self) -> str:
        """Of all that is asked, and of what is held to be right."""
        asked = json.dumps([self.train, self.held_out])
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    @property
    def checker(self) -> str | None:
        """The reward function that judges answers of these data, if any can."""
        if not self.has_answers:
            return None
        own = {"sums": "last", "humaneval": "code"}
        return own.get(self.settings.name, "correct")

    @property
    def judges_programs(self) -> bool:
        """Whether an answer is right is found by running it, and not by reading it."""
        return self.checker == "code"

    @property
    def is_final(self) -> bool:
        """Whether answers are judged by what they give as their final answer."""
        return self.checker == "correct"

    def said(self, completion: str, has_ended: bool = True) -> str | None:
        """The answer that a text gives, None if there is none."""
        text = completion if has_ended else answers.whole(completion)
        return answers.final(text) if self.is_final else answers.last(text)

    def is_right(self, asked: Problem, said: str | None) -> bool:
        """As the checker has it."""
        if self.is_final:
            return strict.is_right(asked.question, said, asked.answer)
        return said == asked.answer

    def votes(self, asked: Problem, said: Sequence[str | None]) -> list[int | None]:
        """For each a number, equal for equal answers; 0 for right ones alone."""
        if self.is_final:
            return strict.votes(asked.question, asked.answer, said)
        known = {asked.answer: 0}
        number = lambda one: known.setdefault(one, len(known))  # noqa: E731
        return [None if one is None else number(one) for one in said]

    def is_right_in_paper(self, asked: Problem, completion: str) -> bool:
        """By the rules of the paper's evaluation."""
        if self.settings.name == "math":
            gold, of = asked.demonstration, "list"
        else:
            gold, of = asked.answer, "last"
        return paper.grade(asked.question, completion, gold, of).is_right

    def answer(self, told: str) -> list[int]:
        """What an answer in a demonstration says, and its end."""
        return [*self.tokenizer.encode(told), self.tokenizer.stop_ids[0]]


def make(settings: config.Config, spec: Spec, tokenizer: Tokenizer) -> Task:
    """Reads the data; leaves out what is too long for the model."""
    chosen = settings.data
    found, left_out = _problems(chosen, chosen.split)
    if chosen.test is None:
        train, held_out = problem.parted(found, chosen.held_out)
    else:
        train, held_out = found, []
        if chosen.test != chosen.split:
            held_out, more = _problems(chosen, chosen.test)
            left_out += more
    has_answers = all(one.answer is not None for one in [*train, *held_out])
    task = Task(train, held_out, left_out, chosen, tokenizer, has_answers)
    room = spec.max_length - settings.sampling.max_new
    longest = min(settings.sampling.max_prompt or room, room)
    train, long = _short(task, train, longest)
    held_out, more = _short(task, held_out, longest)
    if chosen.test == chosen.split:  # a set that is only asked
        held_out = train
    task = task._replace(
        train=train, held_out=held_out, left_out=left_out + long + more
    )
    if not train:
        raise Refused(
            f"data.name is {chosen.name!r}; no problem is left to train on, of "
            f"{len(found)}, with at most {longest} tokens a question. Raise "
            "sampling.max_prompt, or lower sampling.max_new or data.held_out."
        )
    return task


def other(settings: config.Config, name: str, like: Task, spec: Spec) -> Task:
    """Another set to be examined on, asked in the same way."""
    prompts = {key: getattr(settings.data, key) for key in PROMPTS}
    chosen = dataclasses.replace(settings, data=asked(name, **prompts))
    found = make(chosen, spec, like.tokenizer)
    if not found.has_answers:
        raise Refused(
            f"evaluation.others has {name}, of which nobody says what is right. Leave "
            "it out."
        )
    trained = {one.question for one in like.train}
    fresh = [p for p in to_ask(found, is_named=True) if p.question not in trained]
    if not fresh:
        raise Refused(
            f"evaluation.others has {name}; all of it is trained on, or too long to be "
            "asked. Leave it out."
        )
    return found._replace(held_out=fresh)


def to_ask(known: Task, *, is_named: bool) -> list[Problem]:
    """What is examined; of a set that has no splits all, if it was named."""
    examples = {p.question for p in known.train[: known.settings.shots]}
    there = known.held_out or (known.train if is_named else [])
    return [p for p in there if p.question not in examples]


def need_answers(settings: config.Config, task: Task):
    """Refuses rewards that compare with an answer, where there is none."""
    named, asking = settings.rewards.functions, {"rft", "dpo", "online"}
    needs = not named or set(named) & rules.NEEDING
    if asking & set(settings.stages) and needs and not task.has_answers:
        raise Refused(
            f"data.name is {task.settings.name!r}, where nobody says what is right; "
            f"rewards.functions are {named or 'its own'}, which compare with that. "
            "Name model, or functions that do not."
        )


def demonstrated(task: Task, most: int) -> tuple[list[Problem], list[str]]:
    """The problems with a demonstration, for sft; and which are too long, and why."""
    found = [p for p in task.train if p.demonstration]
    kept, long = [], []
    for one in found:
        n = len(task.question(one)) + len(task.answer(one.demonstration))
        if n <= most:
            kept.append(one)
        else:
            what = f"the demonstration of {one.question[:60]!r}"
            long.append(f"{what}: {n} tokens with its question, at most {most} fit")
    if not kept:
        raise Refused(
            f"data.name is {task.settings.name!r}; {len(found)} of its problems have a "
            f"demonstration, {len(kept)} one of at most {most} tokens with its "
            "question, and stages has 'sft', which learns from them. Name their column "
            "in data.demonstration, shorten them, or leave that stage out."
        )
    return kept, long


def _problems(chosen: config.Data, split: str) -> tuple[list[Problem], list[str]]:
    if chosen.name in GENERATED:
        return _generated(chosen), []
    columns = sets.Columns(chosen.question, chosen.answer, chosen.demonstration)
    return tuple(sets.read(chosen.name, split, columns, chosen.subset))


def _generated(chosen: config.Data) -> list[Problem]:
    """Different ones; so many of them are told wrongly."""
    found = {}
    for number in range(chosen.count):
        size = chosen.sizes[number % len(chosen.sizes)]
        one = arithmetic.MAKE[chosen.name](SEED, number, size)
        if chosen.wrong and chosen.name == "series":
            one = arithmetic.forgetful(SEED, number, size, chosen.wrong)
        elif problem.is_held_out(f"wrong {number}", chosen.wrong):
            one = arithmetic.wrong(one)
        found.setdefault(one.question, one)
    return list(found.values())


def _short(task: Task, problems: Sequence[Problem], longest: int):
    kept, long = [], []
    for one in problems:
        n = len(task.question(one))
        if n <= longest:
            kept.append(one)
        else:
            long.append(f"{one.question[:60]!r}: {n} tokens, at most {longest} fit")
    return kept, long


def _examples(solved: Sequence[Problem]) -> str:
    return "".join(f"{p.question}\n{p.demonstration or p.answer}\n\n" for p in solved)
