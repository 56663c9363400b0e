"""How good a policy is on questions that it was not trained on."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax import accuracy, asking, crossing, learner, prng, stage, task
from grpo_jax.asking import Asker
from grpo_jax.data.problem import Problem
from grpo_jax.models import transformer
from grpo_jax.rewards import calls, code
from grpo_jax.rewards.grading import Grader

PREFIX = "eval/"


class Examined(NamedTuple):
    """What was answered to each question, in their order: [N], and samples [N, n]."""

    is_right: Bool[np.ndarray, "N"]  # the likeliest answer
    is_right_in_paper: Bool[np.ndarray, "N"] | None  # by its rules; None: they say none
    has_answer: Bool[np.ndarray, "N"]
    length: Int[np.ndarray, "N"]
    has_ended: Bool[np.ndarray, "N"]
    passes: Float[np.ndarray, "N K"]  # pass@k of the samples, for each k
    majorities: Float[np.ndarray, "N M"]  # maj@k; of programs none, which have no vote


class Examiner:
    """Asks the same questions each time, and draws the same way."""

    def __init__(self, run: stage.Run, problems: Sequence[Problem], number: int = 0):
        chosen, sampling = run.settings.evaluation, run.settings.sampling
        self.number = number  # others draw other samples
        self.run, self.settings = run, chosen
        self.problems = problems[: chosen.questions]
        run = run._replace(grader=None)  # answers are read, and nobody else is asked
        if run.task.judges_programs:  # they run once, whatever else they are given
            alone = dataclasses.replace(run.settings.rewards, functions=())
            run = run._replace(grader=Grader(alone, run.task.checker, {}))
        self.greedy = stage.asker(run, stage.greedily(sampling), 1)
        if chosen.samples:
            warm = dataclasses.replace(sampling, temperature=chosen.temperature)
            self.warm = stage.asker(run, warm, chosen.samples)

    def examine(
        self, params: transformer.Params, meanwhile: Callable[[], None] = lambda: None
    ) -> Examined:
        """By the parameters of stage.published."""
        process, processes = crossing.place()
        own = range(process, len(self.problems), processes)
        each = -(-len(self.problems) // processes)
        blank = np.zeros((each, len(self.names)))
        for start in range(0, len(own), self.settings.batch_size):
            numbers = own[start : start + self.settings.batch_size]
            blank[start : start + len(numbers)], _ = self.batch(
                params, numbers, meanwhile
            )
        found = crossing.gathered(blank).reshape(processes, each, -1)
        found = found.swapaxes(0, 1).reshape(each * processes, -1)
        return examined(self.names, found[: len(self.problems)])

    @property
    def ks(self) -> list[int]:
        return ks(self.settings.samples)

    @property
    def names(self) -> list[str]:
        known = self.run.task
        return names(self.ks, known.is_final, votes=not known.judges_programs)

    def batch(
        self,
        params: transformer.Params,
        numbers: Sequence[int],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> tuple[Float[np.ndarray, "N R"], list[str]]:
        """Of some questions a row each, as `names` has it; and the likeliest answers.

        A row does not depend on the others.
        """
        known = self.run.task
        asked = self._ask(self.greedy, params, numbers, meanwhile)
        texts = [text for (text,) in asked.texts]
        ends = [[group.length[0], group.has_ended[0]] for group in asked.groups]
        each = list(zip(asked.problems, texts, strict=True))
        if known.judges_programs:
            right = self._passing(asked)[:, 0]
            there = [code.is_python(code.program(p.question, x)) for p, x in each]
        else:
            said = [
                known.said(text, bool(ended))
                for text, (_, ended) in zip(texts, ends, strict=True)
            ]
            right = list(map(known.is_right, asked.problems, said))
            there = [one is not None for one in said]
        columns = [right, there, *np.transpose(ends)]
        if known.is_final:
            columns.append([known.is_right_in_paper(*one) for one in each])
        found = np.array(columns, float).T
        if not self.ks:
            return found, texts
        drawn = self._ask(self.warm, params, numbers, meanwhile)
        if known.judges_programs:
            right = self._passing(drawn).sum(-1).tolist()
            n = self.settings.samples
            more = [[accuracy.pass_at(k, c, n) for k in self.ks] for c in right]
            return np.concatenate([found, more], -1, dtype=float), texts
        more = [
            self._of_samples(problem, texts, group.has_ended)
            for problem, texts, group in zip(
                drawn.problems, drawn.texts, drawn.groups, strict=True
            )
        ]
        return np.concatenate([found, more], -1, dtype=float), texts

    def _ask(
        self, asker: Asker, params, numbers: Sequence[int], meanwhile
    ) -> asking.Asked:
        problems = [self.problems[i] for i in numbers]
        key = self.run.key(prng.Stream.EVALUATE, self.number)
        given = params, problems, numbers, key
        return asking.ask(asker, *given, meanwhile=meanwhile)

    def _passing(self, asked: asking.Asked) -> Bool[np.ndarray, "N G"]:
        """Which programs pass. One that could not be judged does not, and is told of
        where there are many."""
        parts, faults = asked.graded.parts[:, :, 0], asked.graded.faults
        most = self.run.settings.rewards.most_faults
        calls.need_few(len(faults), parts.size, (faults or [""])[0], most)
        return np.nan_to_num(parts) > 0

    def _of_samples(
        self,
        problem: Problem,
        texts: Sequence[str],
        has_ended: Bool[np.ndarray, "G"],
    ) -> list[float]:
        known = self.run.task
        said = [known.said(*one) for one in zip(texts, has_ended.tolist(), strict=True)]
        votes = known.votes(problem, said)
        passes = [accuracy.pass_at(k, votes.count(0), len(votes)) for k in self.ks]
        return passes + [accuracy.majority_at(k, votes, (0).__eq__) for k in self.ks]


class Examiners:
    """What a run held out, and other sets, whose numbers bear their names."""

    def __init__(self, run: stage.Run):
        known = run.task
        self.of = {}
        if known.held_out and known.has_answers:
            self.of[PREFIX] = Examiner(run, known.held_out)
        for number, name in enumerate(run.settings.evaluation.others, 1):
            other = task.other(run.settings, name, run.task, run.spec)
            of_other = Examiner(run._replace(task=other), other.held_out, number)
            self.of[f"{PREFIX}{name}/"] = of_other

    def __bool__(self) -> bool:
        return bool(self.of)

    def numbers(
        self,
        trained: learner.Learner,
        learned: learner.State,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Of a policy, in a row of metrics."""
        first, *_ = self.of.values()
        params = stage.published(first.run, first.greedy, trained, learned)
        found = {}
        for prefix, one in self.of.items():
            found |= summary(one.ks, one.examine(params, meanwhile), prefix)
        return found


def ks(samples: int) -> list[int]:
    """1, 2, 4, ... up to the number of samples, and that number."""
    powers = {1 << i for i in range(samples.bit_length())}
    return sorted((powers | {samples}) - {0})


def names(ks: Sequence[int], is_final: bool, *, votes: bool) -> list[str]:
    """Of what is known of a question, in the order of its row."""
    kinds = ("pass", "maj") if votes else ("pass",)
    of_samples = [f"{name}@{k}" for name in kinds for k in ks]
    in_paper = ["right_paper"] * is_final
    return ["right", "answered", "length", "ended", *in_paper, *of_samples]


def examined(names: Sequence[str], rows: Float[np.ndarray, "N R"]) -> Examined:
    column = dict(zip(names, rows.T, strict=True))
    in_paper = column.get("right_paper")

    def of_samples(kind):
        found = [x for name, x in column.items() if name.startswith(f"{kind}@")]
        return np.stack(found, -1) if found else np.zeros((len(rows), 0))

    return Examined(
        is_right=column["right"] > 0,
        is_right_in_paper=None if in_paper is None else in_paper > 0,
        has_answer=column["answered"] > 0,
        length=column["length"].astype(int),
        has_ended=column["ended"] > 0,
        passes=of_samples("pass"),
        majorities=of_samples("maj"),
    )


def compared(
    names: Sequence[str],
    ours: Float[np.ndarray, "N R"],
    theirs: Float[np.ndarray, "N R"],
) -> dict[str, float]:
    """Of the same questions: what is gained over others, and how sure that is.

    The interval is of differences question by question, which vary less than answers.
    """
    at = list(names).index("right")
    one, other = ours[:, at] > 0, theirs[:, at] > 0
    out = {
        "only_ours": int((one & ~other).sum()),
        "only_theirs": int((other & ~one).sum()),
    }
    out["mcnemar_p"] = accuracy.mcnemar(one, other)
    for i, name in enumerate(names):
        if name.startswith("right") or "@" in name:
            out[name] = float(theirs[:, i].mean())
            interval = accuracy.bootstrap(ours[:, i] - theirs[:, i], 0)
            out |= _with_interval(f"{name}_gain", interval)
    return out


def summary(
    ks: Sequence[int], found: Examined, prefix: str = PREFIX
) -> dict[str, float]:
    """The numbers of a row of metrics."""
    share = accuracy.wilson(int(found.is_right.sum()), len(found.is_right))
    out = _with_interval("accuracy", share) | {
        "length": found.length.mean(),
        "truncated": 1 - found.has_ended.mean(),
        "format": found.has_answer.mean(),
    }
    if found.is_right_in_paper is not None:
        right = int(found.is_right_in_paper.sum())
        share = accuracy.wilson(right, len(found.is_right))
        out |= _with_interval("accuracy_paper", share)
    for name, values in (("pass", found.passes), ("maj", found.majorities)):
        of_kind = ks if values.shape[1] else ()  # of programs there is no vote
        for k, of_questions in zip(of_kind, values.T, strict=True):
            interval = accuracy.bootstrap(of_questions, 0)
            out |= _with_interval(f"{name}@{k}", interval)
    return {prefix + name: float(x) for name, x in out.items()}


def _with_interval(name: str, interval: accuracy.Interval) -> dict[str, float]:
    keys = name, f"{name}_low", f"{name}_high"
    return dict(zip(keys, interval, strict=True))
