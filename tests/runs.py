"""Runs whose model says what it is told and learns nothing: all but the devices' work.

    with runs.stubbed() as calls:
        runs.train(settings, folder)

`calls` lists what was asked and what was to be learned, in order, as plain numbers.
"""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from grpo_jax import (
    crossing,
    display,
    learner,
    offline,
    plots,
    rollout,
    run,
    stage,
    stages,
    workdir,
)
from grpo_jax.losses import statistics
from grpo_jax.models import load
from grpo_jax.models.settings import Model
from grpo_jax.pool import Answers
from grpo_jax.text.tokenizer import Bytes

END = Bytes.stop_ids[0]
TINY = {"model.tiny.layers": 1, "model.tiny.width": 16, "model.tiny.heads": 2}
TINY |= {"model.tiny.kv_heads": 1, "model.tiny.ffw": 16, "model.tiny.max_length": 64}
SMALL = TINY | {
    "data.size": 1,
    "data.count": 60,
    "data.held_out": 0.3,
    "sampling.max_new": 8,
    "algorithm.group_size": 4,
    "training.steps": 2,
    "training.batch_size": 4,
}


def build(cls, values, prefix=""):
    """A section of the settings from {path: value}; all else at its default."""
    given = {}
    for field in dataclasses.fields(cls):
        path = prefix + field.name
        if dataclasses.is_dataclass(field.type):
            given[field.name] = build(field.type, values, path + ".")
        elif path in values:
            given[field.name] = values[path]
    return cls(**given)


@functools.cache
def model(chosen: Model):
    return load.load(chosen, jax.random.key(0))


def says(question: str, number: int, sample: int) -> tuple[str, bool]:
    """An answer to a sum, and whether it comes to an end.

    All samples of every third question are wrong, of the others every second one is.
    """
    a, b = question.removesuffix("=").splitlines()[-1].split("+")
    is_right = number % 3 > 0 and (number + sample) % 2 == 0
    text = str(int(a) + int(b) + (0 if is_right else 1 + sample))
    return text, sample != 2


def answers(question, of_sample=says, *, columns, group_size):
    """One question's group, as a sampler gives it."""
    asked = Bytes().decode(question.tokens)
    shape = group_size, columns
    tokens, length = np.zeros(shape, np.int32), np.zeros(group_size, int)
    ended = np.zeros(group_size, bool)
    budgets = question.budgets or [columns] * group_size
    for sample in np.flatnonzero(budgets):
        text, ended[sample] = of_sample(asked, question.number, int(sample))
        ids = [*Bytes().encode(text)]
        ids += [END] if ended[sample] else [ord(" ")] * (columns - len(ids))
        tokens[sample, : len(ids)], length[sample] = ids, len(ids)
    nothing = np.zeros(shape)
    return Answers(question.number, tokens, length, nothing, nothing, ended)


@contextlib.contextmanager
def stubbed(of_sample=says, backwards=False):
    """Lists (what, numbers) of each call of what would have compiled."""
    calls = []

    def key_of(key):
        return crossing.down(jax.random.key_data(key)).tolist()

    def ask(sampler, params, questions, key, watch=None, meanwhile=lambda: None):
        chosen, G = sampler.settings, sampler.group_size
        asked = [(q.number, list(q.tokens), q.budgets) for q in questions]
        calls.append(("ask", chosen.temperature, G, key_of(key), asked))
        size = {"columns": chosen.max_new, "group_size": G}
        for question in questions[::-1] if backwards else questions:
            meanwhile()
            yield answers(question, of_sample, **size)

    def learn(run, state, rollout, rewards, key, *, beta):
        given = rewards.parts, rewards.is_valid, rollout.length, rewards.baseline
        if rewards.step_reward is not None:
            given += rewards.step_reward, rewards.step_end
        given = [None if x is None else np.nan_to_num(x).tolist() for x in given]
        calls.append(("learn", rollout.number.tolist(), *given, beta))
        calls.append(("on", dict(run.mesh.shape)))
        advantage = np.zeros(rollout.logp.shape, np.float32)
        advantage = crossing.up(advantage, run.programs.rows)
        return state, {"kl": measured(0.5)}, advantage

    def lay(run, items, *options):
        rate = run.settings.optimizer.learning_rate
        calls.append(("learn from", rate, list(map(list, items)), *options))

    @staticmethod
    def learn_from(run, state, laid):
        return state, {"loss": measured(1.0)}

    def measured(x):
        return statistics.Mean(*crossing.up((np.float32(x), np.float32(1))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout, "answers", ask)
        patch.setattr(learner, "learn", learn)
        for name in ("lay_texts", "lay_pairs"):
            patch.setattr(offline, name, lay)
        for kind in (stages.Offline, stages.DPO):
            patch.setattr(kind, "learn", learn_from)
        patch.setattr(stage, "published", lambda *given: {})
        patch.setattr(plots, "learning", lambda rows, path: path)
        yield calls


def train(settings, folder, **options) -> run.Result:
    options = {"model": model(settings.model)} | options
    return run.train(settings, folder, screen=display.Screen(is_quiet=True), **options)


def rows(folder):
    """Of the metrics, less what may differ between equal runs."""
    return [
        {k: x for k, x in row.items() if not k.startswith(("time/", "perf/"))}
        for row in workdir.rows(folder / workdir.METRICS)
    ]
