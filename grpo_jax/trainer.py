"""Online learning, as in the paper's Algorithm 1: sample, reward, compare, update.

One step: the policy of now answers B questions, G times each; rewards come in while
more is drawn; advantages and updates follow (see `learner`). All that a method chooses
is in its settings.
"""

import math
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Key

from grpo_jax import (
    allocation,
    asking,
    config,
    crossing,
    groups,
    learner,
    prng,
    programs,
    sampled,
    stage,
)
from grpo_jax.groups import Group
from grpo_jax.losses import kl, statistics
from grpo_jax.models import transformer
from grpo_jax.rewards import calls, neural, shaping
from grpo_jax.rewards.settings import MODEL
from grpo_jax.section import Refused
from grpo_jax.stage import Found, State


class Drawn(NamedTuple):
    """For one step: what this process learns from, and what all spent on it."""

    groups: list[Group]
    baseline: Float[np.ndarray, "B"] | None
    rounds: int
    questions: int
    samples: int
    faults: int
    unscored: int


def need_weights(settings: config.Config, names: Sequence[str]):
    """Refuses two rewards of one name, and weights that are not one for each."""
    given = [*names, *shaping.names(settings.rewards)]
    if len(set(given)) < len(given):
        raise Refused(
            f"the rewards are {', '.join(given)}: two of one name. Give the "
            "experiment's own function another."
        )
    weights = settings.algorithm.advantage.reward_weights
    if weights and len(weights) != len(given):
        raise Refused(
            f"algorithm.advantage.reward_weights is {weights}; the rewards are "
            f"{', '.join(given)}. Give a weight for each, or none."
        )


class Online:
    """The stage in which a policy learns from what it says."""

    def __init__(self, run: stage.Run, first: int):
        chosen, self.first = run.settings, first
        algorithm, self.steps = chosen.algorithm, chosen.training.steps
        need_weights(chosen, run.grader.names)
        self._need_equal(chosen.training.batch_size, algorithm.minibatches)
        if algorithm.advantage.group_by not in ("question", "kind"):
            raise Refused(
                f"algorithm.advantage.group_by is {algorithm.advantage.group_by!r}; "
                "there are 'question' and 'kind', which data sets give."
            )
        updates = self.steps * algorithm.mu * algorithm.minibatches
        self.run, self.settings = run, chosen
        self.learner = learner.make(run.spec, chosen, updates, run.mesh)
        asker = stage.asker(run, chosen.sampling, algorithm.group_size)
        self.asker = asker._replace(steps=run.steps)
        self.greedy = stage.asker(run, stage.greedily(chosen.sampling), 1)
        self.model: neural.Model | None = None
        if chosen.rewards.asks_a_model:
            self.model = neural.load(
                chosen.reward_model,
                run.mesh,
                warnings.warn,
                rewards_steps=chosen.rewards.steps == MODEL,
            )
        self.kinds = sorted({problem.kind for problem in run.task.train})
        self.values = programs.forward(statistics.values)

    def begin(self, params: transformer.Params, key: Key[Array, ""]) -> State:
        host = {"beta": self.settings.algorithm.beta, "questions": 0, "seen": {}}
        return State(learner.begin(self.learner, params, key), host)

    def beta(self, host: dict) -> float:
        """The KL's weight; carried from step to step only where it is controlled."""
        chosen = self.settings.algorithm
        return chosen.beta if chosen.kl.target is None else host["beta"]

    def prepare(
        self, state: State, folder: pathlib.Path, meanwhile: Callable[[], None]
    ):
        """Nothing: each step asks its own questions."""

    def step(
        self, state: State, number: int, meanwhile: Callable[[], None]
    ) -> tuple[State, Found]:
        learned, host = state
        beta = self.beta(host)
        params = stage.published(self.run, self.asker, self.learner, learned)
        start = time.perf_counter()
        drawn = self.draw(params, host, number, meanwhile)
        del params  # their room is needed to learn in
        given = drawn.groups
        rollout = sampled.stack(
            [group.question for group in given],
            [group.answers for group in given],
            self.settings.sampling.max_prompt,
        )
        rewards = groups.rewards(
            self.settings,
            self.kinds,
            given,
            rollout.completion.shape[-1],
            drawn.baseline,
        )
        middle = time.perf_counter()
        key = self.run.key(prng.Stream.SELECT, number)
        learned, measured, advantage = learner.learn(
            self.learner, learned, rollout, rewards, key, beta=beta
        )
        learned = learner.follow(self.learner, learned, number + 1 - self.first)
        after = self.after(host, drawn, measured)
        seconds = {"rollout": middle - start}
        names = self.asker.grader.names
        told = groups.numbers(self.settings, names, given) | {
            "beta": beta,
            "questions": after["questions"],
            "samples/drawn": drawn.samples,
            "samples/faults": drawn.faults,
            "samples/unscored": drawn.unscored / drawn.samples,
            "groups/rounds": drawn.rounds,
        }

        def table():
            of_tokens = crossing.own(advantage)
            return groups.table(self.settings, names, given, of_tokens)

        return State(learned, after), Found(measured, told, seconds, table, middle)

    def draw(
        self, params: transformer.Params, host: dict, number: int, meanwhile: Callable
    ) -> Drawn:
        """Groups for one step: so many questions, or more until enough are mixed."""
        chosen = self.settings.groups
        key = self.run.key(prng.Stream.SAMPLE, number)
        B, first = self.settings.training.batch_size, host["questions"]
        own, found, others, faults, samples = self.own(B), [], [], [], 0
        for round_ in range(chosen.rounds):
            asked = range(first + round_ * B, first + (round_ + 1) * B)
            budgets = self.budgets(host["seen"], asked)[own]
            answered = self.ask(params, asked[own], budgets, key, meanwhile)
            faults += answered.faults
            samples += int((budgets > 0).sum())
            for group in groups.of(answered):
                teaches = not chosen.mixed or groups.is_mixed(self.settings, group)
                (found if teaches else others).append(group)
            need = len(asked[own])
            if crossing.agreed(need - len(found))[0] <= 0:
                break
        others = [group._replace(is_trained=False) for group in others]
        kept = [*found, *others][:need]
        kept, baseline, more = self.baseline(params, kept, key, meanwhile)
        faults += more
        blank = sum(groups.unscored(self.settings, one) for one in [*found, *others])
        samples, failed, blank = crossing.summed(samples, len(faults), blank)
        first_fault = (faults or ["of another process"])[0]
        limits = self.settings.rewards
        made = samples * (self.asker.grader.calls + (self.asker.steps is not None))
        calls.need_few(failed, made, first_fault, limits.most_faults)
        calls.need_scored(blank, samples, limits.most_unscored)
        spent = round_ + 1, (round_ + 1) * B, samples, failed, blank
        return Drawn(kept, baseline, *spent)

    def own(self, count: int) -> slice:
        """Of so many questions, those of this process."""
        process, processes = crossing.place()
        each = count // processes
        return slice(process * each, (process + 1) * each)

    @staticmethod
    def _need_equal(questions: int, minibatches: int):
        """Processes share questions, and minibatches those of each process."""
        processes = crossing.place()[1]
        parts = processes * minibatches
        if questions % parts:
            raise Refused(
                f"training.batch_size is {questions}, which {processes} processes with "
                f"{minibatches} minibatches each (algorithm.minibatches) do not share "
                f"equally. {questions + -questions % parts} would do."
            )

    def ask(self, params, numbers: Sequence[int], budgets, key, meanwhile):
        seed, task = self.settings.seed, self.run.task
        problems = [task.problem(seed, number) for number in numbers]
        asked = asking.ask(
            self.asker,
            params,
            problems,
            numbers,
            key,
            budgets=budgets.tolist(),
            meanwhile=meanwhile,
        )
        return self.judged(asked, meanwhile)

    def judged(self, asked: asking.Asked, meanwhile: Callable) -> asking.Asked:
        """With a reward model's rewards, of outputs and of steps, if there are any.

        All processes ask it as often as each other, however little each has to ask.
        """
        names = self.asker.grader.names
        if MODEL in names:
            asked = neural.judged(self.model, asked, names, meanwhile)
        if asked.stepped is not None and self.settings.rewards.steps == MODEL:
            asked = neural.stepped(self.model, asked, meanwhile)
        return asked

    def budgets(self, seen: dict, numbers: Sequence[int]) -> np.ndarray:
        """Tokens that each sample may have, [B, G]; 0: it is not drawn."""
        G, chosen = self.settings.algorithm.group_size, self.settings.groups
        count = np.full(len(numbers), G)
        if chosen.allocation == "neyman":
            rows = [self.row(number) for number in numbers]
            overall = np.sum([(0.0, 0.0), *seen.values()], 0).tolist()
            variance = allocation.spread([seen.get(row) for row in rows], overall)
            total = chosen.mean * len(numbers)
            count = allocation.allot(variance, total, chosen.least, G)
        return (np.arange(G) < count[:, None]) * self.settings.sampling.max_new

    def row(self, number: int) -> str:
        """Where question `number` stands in the data, as JSON names it."""
        return str(self.run.task.row(self.settings.seed, number))

    def baseline(
        self, params, kept: list[Group], key, meanwhile: Callable
    ) -> tuple[list[Group], np.ndarray | None, list[str]]:
        """What the likeliest answers are given, where that is compared with; without
        it nothing is learned of a group. And which of those calls failed."""
        if self.settings.algorithm.advantage.estimator != "given":
            return kept, None, []
        problems = [group.problem for group in kept]
        numbers = [group.question.number for group in kept]
        given = params, problems, numbers, key
        asked = asking.ask(self.greedy, *given, meanwhile=meanwhile)
        asked = self.judged(asked, meanwhile)
        each = zip(kept, asked.groups, asked.graded.parts, strict=True)
        reward = np.array([groups.baseline(self.settings, *one) for one in each])
        kept = [
            group._replace(is_trained=group.is_trained and not blank)
            for group, blank in zip(kept, np.isnan(reward).tolist(), strict=True)
        ]
        return kept, np.nan_to_num(reward), asked.graded.faults

    def after(self, host: dict, drawn: Drawn, measured: statistics.Statistics) -> dict:
        """What the next step needs to know."""
        seen, beta, chosen = host["seen"], self.beta(host), self.settings
        if chosen.groups.allocation == "neyman":
            number = np.array([group.question.number for group in drawn.groups])
            reward = np.stack(
                [groups.reward(chosen, g, g.answers.length > 0) for g in drawn.groups]
            )
            of_all = map(crossing.gathered, (number, reward))
            seen = dict(seen)
            for i, of_group in zip(*of_all, strict=True):
                row = self.row(int(i))
                seen[row] = allocation.after(seen.get(row), of_group)
        if chosen.algorithm.kl.target is not None:
            now = float(crossing.down(self.values({"kl": measured["kl"]}))["kl"])
            if math.isfinite(now):  # it is not where nothing was learned from
                beta = kl.next_beta(chosen.algorithm.kl, beta, now, drawn.samples)
        questions = host["questions"] + drawn.questions
        return host | {"beta": beta, "questions": questions, "seen": seen}
