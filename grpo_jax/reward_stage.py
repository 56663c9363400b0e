"""The stage that makes a reward model, and how it is examined on what was held out."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from grpo_jax import (
    accuracy,
    crossing,
    evaluate,
    judging,
    labels,
    learner,
    stage,
    stages,
)
from grpo_jax.data.verdicts import Preference, Solution
from grpo_jax.stage import State


class Reward(stages.Offline):
    """Preferences, or labelled completions."""

    name = "reward"

    def __init__(self, run: stage.Run, first: int):
        self.run, self.first = run, first
        self.chosen = run.settings.reward
        self.steps, text = self.chosen.steps, run.task.tokenizer
        self.reader = labels.reader(run.settings, text)
        candidates = labels.candidates(self.chosen, text)
        self.learner = judging.make(run.spec, run.settings, candidates, run.mesh)
        self.items = run.task.train

    def prepare(
        self, state: State, folder: pathlib.Path, meanwhile: Callable[[], None]
    ):
        """Nothing: what was said of completions is there."""

    def lay(self, some: Sequence[Preference | Solution]) -> judging.Batch:
        items = [labels.item(self.reader, one) for one in some]
        return judging.lay(self.learner, items)

    learn = staticmethod(judging.learn)


class Examiners:
    """What a reward model says of the same completions each time."""

    def __init__(self, run: stage.Run):
        held_out = run.task.held_out
        self.run, self.settings = run, run.settings.evaluation
        asked = list(dict.fromkeys(one.question for one in held_out))
        asked = set(asked[: self.settings.questions])
        self.held_out = [one for one in held_out if one.question in asked]
        text = run.task.tokenizer
        self.reader = labels.reader(run.settings, text)
        self.candidates = labels.candidates(run.settings.reward, text)

    def __bool__(self) -> bool:
        return bool(self.held_out)

    def numbers(
        self,
        trained: learner.Learner,
        learned: learner.State,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        process, processes = crossing.place()
        own = [labels.item(self.reader, x) for x in self.held_out[process::processes]]
        model = self.run.settings.model
        of_model = self.candidates, model.numerics, model.lora, self.run.mesh
        params = learned.policy.params, learned.frozen
        judge = judging.Judge(trained.spec, *params, *of_model)
        asked = [(item.question, item.rows) for item in own]
        found = judging.score(judge, asked, self.settings.batch_size, meanwhile)
        by_process = crossing.listed([found])
        said = [
            by_process[i % processes][i // processes] for i in range(len(self.held_out))
        ]
        if isinstance(self.held_out[0], Preference):
            asked = _numbers(self.held_out)
            return summary_of_pairs(np.array(said)[:, :, 0], np.array(asked))
        return summary_of_labels(*_known(self.held_out, said))


def _known(
    held_out: Sequence[Solution], said: Sequence[list[list[float]]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What was said where there is a label, the label, and its question's number."""
    rows = [
        (logit, label, asked)
        for asked, one, (of_row,) in zip(
            _numbers(held_out), held_out, said, strict=True
        )
        for logit, label in zip(of_row, one.labels, strict=True)
        if label is not None
    ]
    logit, label, question = np.array(rows).T
    return logit, label, question.astype(int)


def _numbers(held_out: Sequence[Preference | Solution]) -> list[int]:
    """Of each, a number that its question has."""
    asked = {one.question: i for i, one in enumerate(held_out)}
    return [asked[one.question] for one in held_out]


def summary_of_pairs(
    score: Float[np.ndarray, "N 2"], question: Int[np.ndarray, "N"]
) -> dict[str, float]:
    """How often the better completion is scored higher, and how sure σ(gap) is."""
    gap = score[:, 0] - score[:, 1]
    sure = judging.probability(np.abs(gap))
    return _summary(gap > 0, sure, gap > 0, np.logaddexp(0, -gap), question)


def summary_of_labels(
    logit: Float[np.ndarray, "N"],
    label: Float[np.ndarray, "N"],
    question: Int[np.ndarray, "N"],
) -> dict[str, float]:
    """How often good is told from bad, at a logit of 0 and in their order; and how many
    are good, for who says so of all is right as often.

    Intervals, of the area under the ROC curve too, take labels of one question for what
    they are: alike (see accuracy.clustered).
    """
    is_good, p = label > 0.5, judging.probability(logit)
    loss = label * np.logaddexp(0, -logit) + (1 - label) * np.logaddexp(0, logit)
    found = _summary((logit > 0) == is_good, p, is_good, loss, question)
    area = accuracy.auc_clustered(logit, is_good, question)
    good = {evaluate.PREFIX + "good": float(is_good.mean())}
    return found | _named(area, "auc") | good


def _summary(is_right, probability, is_good, loss, question) -> dict[str, float]:
    _, which = np.unique(question, return_inverse=True)
    share = accuracy.clustered(np.bincount(which, is_right), np.bincount(which))
    error = accuracy.calibration_clustered(probability, is_good, question)
    out = _named(share, "accuracy") | _named(error, "calibration_error")
    return out | {evaluate.PREFIX + "loss": float(loss.mean())}


def _named(interval: accuracy.Interval, name: str) -> dict[str, float]:
    keys = name, f"{name}_low", f"{name}_high"
    return {evaluate.PREFIX + k: x for k, x in zip(keys, interval, strict=True)}
