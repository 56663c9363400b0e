"""Rewards that a trained model gives: of completions, or of each of their steps.

    judge = neural.load(settings.reward_model, mesh, print)
    logits, faults = neural.steps(judge, questions, [[["a step", "another"]]])

The model reads text, with its own tokenizer and its own way to put a question: whatever
the policy's are, what was sampled is decoded, and tokenised again. A question is read
once for its group. What is too long for the model stays unscored, and is told. In
process supervision the steps are the policy's, which end with tokens of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from grpo_jax import asking, config, crossing, judging, labels, runs
from grpo_jax.models import settings
from grpo_jax.rewards import stepwise
from grpo_jax.rewards.settings import MODEL
from grpo_jax.section import Refused
from grpo_jax.text import reading
from grpo_jax.text import steps as lines
from grpo_jax.text.reading import Row


class Model(NamedTuple):
    """A reward model with its parameters on the devices."""

    settings: config.RewardModel
    reader: reading.Reader
    judge: judging.Judge
    identity: str  # of its weights


def load(
    chosen: config.RewardModel,
    mesh: Mesh,
    tell: Callable[[str], None],
    *,
    rewards_steps: bool = False,
) -> Model:
    """Of a run whose stage was reward, at its latest checkpoint, or at one named."""
    found = runs.find(settings.Model(name=chosen.name), "reward")
    of_run, text = found.settings, found.base.tokenizer
    by_steps = of_run.reward.labels == "steps"
    reason = f"{chosen.name} scores whole completions"
    chosen.need_read("of_steps", by_steps, reason, "a model of steps")
    rule = "it scores whole completions, and rewards.steps 'model' asks for each step"
    remedy = "Name a run whose reward.labels are steps."
    chosen.need("name", by_steps or not rewards_steps, rule, remedy)
    step = runs.step(found, "latest", tell)
    numerics = of_run.model.numerics
    key = crossing.up(jax.random.key_data(jax.random.key(0)))
    key = jax.random.wrap_key_data(key)
    made = runs.read(found, numerics.compute, key, mesh, step=step)
    candidates = labels.candidates(of_run.reward, text)
    if candidates is None and "head" not in made.params:
        raise Refused(f"{chosen.name} has no head at step {step}. Name another step.")
    judge = judging.Judge(
        made.spec, made.params, None, candidates, numerics, settings.Lora(), mesh
    )
    reader = labels.reader(of_run, text)
    return Model(chosen, reader, judge, runs.identity(found, step))


def outcomes(
    model: Model,
    questions: Sequence[str],
    texts: Sequence[Sequence[str | None]],  # None: that row was not drawn
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[Float[np.ndarray, "B G"], list[str]]:
    """One reward for each completion; NaN, and why, where there is none."""
    cut = lines.lines if model.reader.by_steps else lambda text: [text]
    given = [[None if x is None else cut(x) for x in group] for group in texts]
    found, faults = steps(model, questions, given, meanwhile)
    known = ~np.isnan(found)
    if model.settings.of_steps == "least":
        least = np.where(known, found, np.inf).min(-1)
        return np.where(known.any(-1), least, np.nan), faults
    last = np.maximum(known.sum(-1) - 1, 0)
    return np.take_along_axis(found, last[..., None], -1)[..., 0], faults


def steps(
    model: Model,
    questions: Sequence[str],
    cut: Sequence[Sequence[Sequence[str] | None]],  # each completion's steps
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[Float[np.ndarray, "B G S"], list[str]]:
    """A score for each step; NaN behind the last, and where there is none."""
    read, most = model.reader, model.judge.spec.max_length
    asked, faults = [], []
    for question, group in zip(questions, cut, strict=True):
        ids, rows = read.question(question), []
        for one in group:
            row = Row([], []) if one is None else read.row(one)
            n = len(ids) + len(row.tokens) + 1
            if n > most:
                what = f"{MODEL}: a completion has {n} tokens with its question"
                faults.append(f"{what}; the reward model was made for {most}")
                row = Row([], [])
            rows.append(row)
        # A question that leaves no room is not read either.
        asked.append((ids if any(row.ends for row in rows) else [0], rows))
    said = judging.score(model.judge, asked, model.settings.batch_size, meanwhile)
    S = max((len(one) for group in cut for one in group if one is not None), default=0)
    found = np.full((len(cut), max(map(len, cut), default=0), max(S, 1)), np.nan)
    for b, group in enumerate(said):
        for g, of_row in enumerate(group):
            found[b, g, : len(of_row)] = of_row
    if model.settings.output == "probability":
        known = ~np.isnan(found)
        found[known] = judging.probability(found[known])
    return found, faults


def judged(
    model: Model, asked: asking.Asked, names: Sequence[str], meanwhile: Callable
) -> asking.Asked:
    """With the model's rewards among those of the rules."""
    questions = [problem.question for problem in asked.problems]
    found, faults = outcomes(model, questions, asked.texts, meanwhile)
    parts = asked.graded.parts.copy()
    parts[:, :, list(names).index(MODEL)] = found
    graded = asked.graded._replace(parts=parts, faults=asked.graded.faults + faults)
    return asked._replace(graded=graded)


def stepped(model: Model, asked: asking.Asked, meanwhile: Callable) -> asking.Asked:
    """With the model's scores as the rewards of the policy's steps; of a completion
    that is too long, none has any."""
    questions = [problem.question for problem in asked.problems]
    groups = asked.stepped.groups
    cut = [[None if one is None else one.texts for one in group] for group in groups]
    found, faults = steps(model, questions, cut, meanwhile)
    rewarded = [
        [
            None if one is None else one._replace(reward=scores[: len(one.texts)])
            for one, scores in zip(group, of_group, strict=True)
        ]
        for group, of_group in zip(groups, found, strict=True)
    ]
    faults = asked.stepped.faults + faults
    return asked._replace(stepped=stepwise.Graded(rewarded, faults))
