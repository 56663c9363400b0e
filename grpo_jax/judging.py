"""Reward models: what they say of completions, and how they learn it.

From preferences by Bradley and Terry, −log σ(r⁺ − r⁻); from labels of completions or of
their steps by −y log σ(r) − (1 − y) log σ(−r), the mean over labels. A question stands
once for its completions. The same devices, optimizer, adapters and parts as elsewhere.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from grpo_jax import config, crossing, learner, programs, scoring, sharding, train_step
from grpo_jax.labels import Item
from grpo_jax.losses import likelihood, preference, statistics
from grpo_jax.models import transformer
from grpo_jax.models.settings import Lora, Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.sampling import shapes
from grpo_jax.section import Refused
from grpo_jax.text.reading import Row

Candidates = tuple[int, int] | None  # tokens that say good and bad; None: a head does


class Laid(NamedTuple):
    """Completions, and which of their tokens scores stand at."""

    texts: scoring.Texts
    end: Int[Array, "B G S"]


class Batch(NamedTuple):
    """What one update learns from; of preferences the better completion comes first."""

    laid: Laid
    label: Float[Array, "B G S"]
    is_labelled: Bool[Array, "B G S"]
    weight: Float[Array, "B"]  # 1 / preferences, or 1 / labels; 0: nothing stands there


def make(
    spec: Spec, settings: config.Config, candidates: Candidates, mesh: Mesh | None
) -> learner.Learner:
    """How a reward model learns: at its own rate, and without what is for rollouts."""
    chosen, plain = settings.reward, config.Config()
    of_logits = of_pairs if chosen.labels == "preferences" else of_labels
    of_model = functools.partial(loss, of_logits, candidates)
    rate = chosen.learning_rate
    settings = dataclasses.replace(
        settings,
        stages=plain.stages,
        data=plain.data,
        reward=plain.reward,
        algorithm=config.Algorithm(beta=0.0),
        optimizer=dataclasses.replace(settings.optimizer, learning_rate=rate),
    )
    given = spec, settings, chosen.steps, mesh, of_model
    return learner.make(*given, has_head=candidates is None)


def loss(
    of_logits: Callable,
    candidates: Candidates,
    spec: Spec,
    numerics: Numerics,
    chosen: Lora,
    frozen: transformer.Params | None,
    params: transformer.Params,
    batch: Batch,
    place: None,
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """Of what the model says at every end."""
    params = train_step.with_frozen(params, frozen, chosen)
    logit = scoring.judgements(spec, params, *batch.laid, candidates, numerics)
    return of_logits(logit, batch)


def of_pairs(
    logit: Float[Array, "B 2 S"], batch: Batch
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """Bradley and Terry's, the mean over preferences."""
    better, worse = logit[:, :, 0].T
    of_pair = jnp.vectorize(preference.bradley_terry)
    loss = (of_pair(better, worse) * batch.weight).sum()
    is_pair = batch.weight > 0
    return loss, {
        "loss": statistics.Sum(loss),
        "right": statistics.mean(better > worse, is_pair),
        "margin": statistics.mean(better - worse, is_pair),
        "score": statistics.mean((better + worse) / 2, is_pair),
    }


def of_labels(
    logit: Float[Array, "B G S"], batch: Batch
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """The labels' cross-entropy, the mean over labels."""
    there = batch.is_labelled

    def of_question(logit, label, there, weight):
        return likelihood.binary(logit, label, there, weight=weight)

    each = jax.vmap(of_question)(logit, batch.label, there, batch.weight)
    loss = each.sum()
    return loss, {
        "loss": statistics.Sum(loss),
        "right": statistics.mean((logit > 0) == (batch.label > 0.5), there),
        "score": statistics.mean(logit, there),
        "label": statistics.mean(batch.label, there),
    }


def lay(run: learner.Learner, items: Sequence[Item]) -> Batch:
    """This process's items of one update, on the devices."""
    lanes = learner.lanes(run.mesh)
    cells = lanes.count * run.settings.training.parts
    (each,) = crossing.agreed(-(-len(items) // cells))
    rows = [(item.question, item.rows) for item in items]
    laid = _laid(run.spec.max_length, rows, each * cells)
    label, there = np.zeros(laid.end.shape), np.zeros(laid.end.shape, bool)
    for i, item in enumerate(items):
        for j, of_row in enumerate(item.labels):
            for k, x in enumerate(of_row):
                label[i, j, k], there[i, j, k] = x or 0.0, x is not None
    has_labels = bool(items) and bool(items[0].labels)
    own = int(there.sum()) if has_labels else len(items)
    (count,) = crossing.summed(own)
    weight = np.where(np.arange(len(label)) < len(items), 1 / max(count, 1), 0)
    batch = Batch(laid, label, there, weight)
    return crossing.up(batch, run.programs.rows)


def learn(
    run: learner.Learner, state: learner.State, batch: Batch
) -> tuple[learner.State, statistics.Statistics]:
    """The state after one update; the one given is gone."""
    learner.check_state(run, state)
    given, parts = (state.policy, state.frozen, batch), run.settings.training.parts
    after, measured = run.policy.update(*given, parts=parts)
    return state._replace(policy=after), measured


class Judge(NamedTuple):
    """A reward model that scores, on the devices of all processes."""

    spec: Spec
    params: transformer.Params  # what is trained; with adapters these
    frozen: transformer.Params | None
    candidates: Candidates
    numerics: Numerics
    lora: Lora
    mesh: Mesh


def score(
    judge: Judge,
    asked: Sequence[tuple[Sequence[int], Sequence[Row]]],
    at_once: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[list[list[float]]]:
    """Logits at every end of every completion, question by question.

    All processes score at once, each its own; the shapes are few.
    """
    program = programs.judging(judge.spec, judge.numerics, judge.lora, judge.mesh)
    rows, lanes = sharding.of_rows(judge.mesh), learner.lanes(judge.mesh)
    (count,) = crossing.agreed(-(-len(asked) // at_once))
    each, found = -(-at_once // lanes.count) * lanes.count, []
    for start in range(0, count * at_once, at_once):
        some = asked[start : start + at_once]
        laid = crossing.up(_laid(judge.spec.max_length, some, each), rows)
        given = judge.params, judge.frozen, *laid, judge.candidates
        said = program(*given)
        meanwhile()
        logits = crossing.own(said)
        for (_, rows_), of_rows in zip(some, logits, strict=False):
            pairs = zip(rows_, of_rows, strict=False)
            found.append([x[: len(row.ends)].tolist() for row, x in pairs])
    return found


def probability(logit: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """σ of what the host has, without overflow."""
    return np.exp(-np.logaddexp(0, -logit))


def _laid(
    most: int, asked: Sequence[tuple[Sequence[int], Sequence[Row]]], count: int
) -> Laid:
    """So many questions, some of which may be nothing; of the host."""
    rows = [row for _, some in asked for row in some]
    P = max((len(question) for question, _ in asked), default=1)
    C = max((len(row.tokens) for row in rows), default=1) + 1
    sizes = [
        len(question) + max((len(row.tokens) for row in some), default=0) + 1
        for question, some in asked
    ]
    G = max((len(some) for _, some in asked), default=1)
    S = max((len(row.ends) for row in rows), default=1)
    P, C, G, S, longest = crossing.agreed(P, C, G, S, max(sizes, default=0))
    if longest > most:
        raise Refused(
            f"a text has {longest} tokens with its question; the model was made for "
            f"{most} positions. Leave such ones out, or shorten them."
        )
    if crossing.agreed(any(not question for question, _ in asked))[0]:
        raise Refused("a question has no tokens. Give it one at least.")
    P, C, S = shapes.length(P), shapes.length(C), shapes.few(S)
    question, is_question = np.zeros((count, P), np.int32), np.zeros((count, P), bool)
    tokens, is_token = np.zeros((count, G, C), np.int32), np.zeros((count, G, C), bool)
    end = np.zeros((count, G, S), np.int32)
    is_question[:, -1] = True  # or there would be nothing to begin with
    for i, (ids, some) in enumerate(asked):
        question[i, P - len(ids) :], is_question[i, P - len(ids) :] = ids, True
        for j, row in enumerate(some):
            n = len(row.tokens)
            tokens[i, j, :n], is_token[i, j, :n] = row.tokens, True
            end[i, j, : len(row.ends)] = row.ends
    return Laid(scoring.Texts(question, is_question, tokens, is_token), end)
