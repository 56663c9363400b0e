"""What is learned from texts that are there: demonstrations, and pairs of answers.

SFT, and RFT with it, raises the likelihood of texts (paper eq. 5 and 7); DPO that of
the better of two answers over the worse (eq. 11). The same devices, optimizer, adapters
and parts as online; texts of a demonstration are whole rows of bins (see `packing`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from grpo_jax import config, crossing, learner, packing, reference, scoring, train_step
from grpo_jax.losses import likelihood, preference, statistics
from grpo_jax.models import kernels, transformer
from grpo_jax.models.settings import Lora, Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.sampling import shapes
from grpo_jax.section import Refused
from grpo_jax.training import TextMean

WIDTH = 64  # of bins at least: short texts leave little of them empty


class Text(NamedTuple):
    """A question and its answer; the answer's tokens are learned."""

    question: Sequence[int]
    answer: Sequence[int]


class Pair(NamedTuple):
    question: Sequence[int]
    better: Sequence[int]
    worse: Sequence[int]


class Demonstrations(NamedTuple):
    """Whole texts, G in each block."""

    texts: scoring.Texts
    is_learned: Bool[Array, "B G C"]
    row_weight: Float[Array, "B G"]


class Pairs(NamedTuple):
    texts: scoring.Texts  # the better answer, then the worse
    ref_logp: Float[Array, "B 2 C"]
    weight: Float[Array, "B"]  # 1 / pairs; 0: none stands there


def make(
    spec: Spec,
    settings: config.Config,
    stage: Literal["sft", "rft", "dpo"],
    mesh: Mesh | None = None,
) -> learner.Learner:
    """How a stage learns: at its own rate, and without what is for rollouts."""
    chosen = getattr(settings, stage)
    plain, rate = config.Config(), chosen.learning_rate
    beta, loss, held = 0.0, text_loss, plain.reference
    if stage == "dpo":
        # Any KL weight says that a reference is held; the loss has its own.
        beta, loss = chosen.beta, functools.partial(pair_loss, chosen)
        held = config.Reference(held=settings.reference.held)
    settings = dataclasses.replace(
        settings,
        stages=plain.stages,
        **{name: getattr(plain, name) for name in ("sft", "rft", "dpo")},
        algorithm=config.Algorithm(beta=beta),
        rewards=plain.rewards,
        reward_model=plain.reward_model,
        groups=plain.groups,
        reference=held,
        critic=plain.critic,
        optimizer=dataclasses.replace(settings.optimizer, learning_rate=rate),
    )
    return learner.make(spec, settings, chosen.steps, mesh, loss)


def text_loss(
    spec: Spec,
    numerics: Numerics,
    chosen: Lora,
    frozen: transformer.Params | None,
    params: transformer.Params,
    batch: Demonstrations,
    place: scoring.Place | None,
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """−log π of what is to be learned."""
    params = train_step.with_frozen(params, frozen, chosen)
    logp = scoring.log_probs(spec, params, batch.texts, 1.0, numerics, place).logp
    everyone = jnp.ones_like(batch.row_weight)
    loss = likelihood.token_nll(logp, batch.is_learned, everyone, batch.row_weight)
    surprise = statistics.mean(-logp, batch.is_learned)
    return loss, {"loss": statistics.Sum(loss), "nll": surprise}


def pair_loss(
    settings: config.DPO,
    spec: Spec,
    numerics: Numerics,
    chosen: Lora,
    frozen: transformer.Params | None,
    params: transformer.Params,
    batch: Pairs,
    place: None,
) -> tuple[Float[Array, ""], statistics.Statistics]:
    """DPO's or IPO's, the mean over pairs."""
    params = train_step.with_frozen(params, frozen, chosen)
    logp = scoring.log_probs(spec, params, batch.texts, 1.0, numerics).logp
    margin = functools.partial(preference.margin, form=settings.form)
    margin = jnp.vectorize(margin, signature="(t),(t),(t)->()")
    better, worse = margin(logp, batch.ref_logp, batch.texts.is_completion).T
    known = {"beta": settings.beta}
    if settings.loss == "dpo":
        known["label_smoothing"] = settings.label_smoothing
    of_pair = functools.partial(getattr(preference, settings.loss), **known)
    loss = (jnp.vectorize(of_pair)(better, worse) * batch.weight).sum()
    is_pair = batch.weight > 0
    return loss, {
        "loss": statistics.Sum(loss),
        "margin": statistics.mean(settings.beta * (better - worse), is_pair),
        "right": statistics.mean(better > worse, is_pair),
        "gain/better": statistics.mean(better, is_pair),
        "gain/worse": statistics.mean(worse, is_pair),
    }


def lay_texts(
    run: learner.Learner, texts: Sequence[Text], loss_mean: TextMean
) -> tuple[Demonstrations, train_step.Place | None]:
    """This process's texts of one update, on the devices, and where tokens stand."""
    parts, lanes = run.settings.training.parts, learner.lanes(run.mesh)
    rows = _dealt(texts, lanes.count * parts)
    length = np.array([[len(t.question) + len(t.answer) for t in row] for row in rows])
    most = run.spec.max_length
    _need_room(most, int(length.max()))
    layout = packing.lay(length, lanes, 1, parts, most, 1, WIDTH)
    size = *length.shape, layout.columns
    tokens, is_learned = np.zeros(size, np.int32), np.zeros(size, bool)
    for at in np.ndindex(length.shape):
        asked, told = rows[at[0]][at[1]]
        tokens[at][: length[at]] = [*asked, *told]
        # Nothing stands before a text: what begins it cannot be learned.
        is_learned[at][max(len(asked), 1) : length[at]] = True
    is_token = np.arange(layout.columns) < length[:, :, None]
    weight = _weights(is_learned.sum(-1), loss_mean)
    laid = learner.laid_samples(layout, tokens, is_token, is_learned, weight)
    tokens, is_token, is_learned, weight = (x[0] for x in laid)  # the one minibatch
    nothing = np.zeros((len(tokens), 1), np.int32)
    texts = scoring.Texts(nothing, nothing > 0, tokens, is_token)
    do, place = run.programs, None
    if layout.place is not None and kernels.serves_bins(run.settings.model.numerics):
        place = crossing.up(layout.place[0], do.shares)
    return crossing.up(Demonstrations(texts, is_learned, weight), do.rows), place


def learn_texts(
    run: learner.Learner,
    state: learner.State,
    laid: tuple[Demonstrations, train_step.Place | None],
) -> tuple[learner.State, statistics.Statistics]:
    """The state after one update; the one given is gone."""
    learner.check_state(run, state)
    given, parts = (state.policy, state.frozen, *laid), run.settings.training.parts
    after, measured = run.policy.update(*given, parts=parts)
    return state._replace(policy=after), measured


def lay_pairs(
    run: learner.Learner, pairs: Sequence[Pair]
) -> tuple[train_step.Share, Float[Array, "B"]]:
    """This process's pairs of one update, on the devices, and their weights."""
    lanes = learner.lanes(run.mesh)
    cells = lanes.count * run.settings.training.parts
    (each,) = crossing.agreed(-(-len(pairs) // cells))
    (all_pairs,) = crossing.summed(len(pairs))
    count = each * cells
    weight = np.zeros(count)
    weight[: len(pairs)] = 1 / all_pairs
    texts = _texts_of(run.spec.max_length, pairs, count)
    order = lanes.first * (count // lanes.count) + np.arange(count)
    laid = train_step.Share(texts, order, order, None), weight
    return crossing.up(laid, run.programs.rows)


def learn_pairs(
    run: learner.Learner,
    state: learner.State,
    laid: tuple[train_step.Share, Float[Array, "B"]],
) -> tuple[learner.State, statistics.Statistics]:
    """The state after one update; the one given is gone."""
    learner.check_state(run, state)
    (share, weight), parts, do = laid, run.settings.training.parts, run.programs
    held, temperature = state.frozen, crossing.up(np.float32(1), do.everywhere)
    if state.reference is not None:
        held = reference.at_hand(state.reference)
    scored = do.score(held, None, share, temperature, parts, with_entropy=False)
    given = state.frozen, Pairs(share.texts, scored.logp, weight), None
    after, measured = run.policy.update(state.policy, *given, parts=parts)
    return state._replace(policy=after), measured


def _need_room(most: int, *sizes: int):
    """Refuses texts of such sizes, on all processes, if any is too long."""
    (longest,) = crossing.agreed(max(sizes, default=0))
    if longest > most:
        raise Refused(
            f"a text has {longest} tokens, a question and its answer; the model was "
            f"made for {most} positions. Leave such ones out, or shorten them."
        )


def _dealt(texts: Sequence[Text], cells: int) -> list[list[Text]]:
    """To each cell as many texts and nearly as many tokens; some texts are empty."""
    (each,) = crossing.agreed(-(-len(texts) // cells))
    size = [len(text.question) + len(text.answer) for text in texts]
    rows = [[texts[i] for i in own] for own in packing.share_out(size, cells)]
    return [row + [Text((), ())] * (each - len(row)) for row in rows]


def _weights(count: np.ndarray, loss_mean: TextMean) -> np.ndarray:
    """Of a row's learned tokens; the weights of all processes' rows add up to 1."""
    rows, tokens = crossing.summed(int((count > 0).sum()), int(count.sum()))
    weight = np.full(count.shape, 1 / max(tokens, 1))
    if loss_mean == "per_sequence":
        weight = 1 / (np.maximum(count, 1) * max(rows, 1))
    return np.where(count > 0, weight, 0)


def _texts_of(most: int, pairs: Sequence[Pair], count: int) -> scoring.Texts:
    """Questions once, with both their answers."""
    asked = [len(pair.question) for pair in pairs]
    told = [max(len(pair.better), len(pair.worse)) for pair in pairs]
    _need_room(most, *map(sum, zip(asked, told, strict=True)))
    if crossing.agreed(0 in asked)[0]:
        raise Refused("a pair has no question. Give it one of at least one token.")
    sizes = crossing.agreed(max(asked, default=1), max(told, default=1))
    P, C = map(shapes.length, sizes)
    question, is_question = np.zeros((count, P), np.int32), np.zeros((count, P), bool)
    tokens, is_token = np.zeros((count, 2, C), np.int32), np.zeros((count, 2, C), bool)
    is_question[:, -1] = True  # or there would be nothing to begin with
    for i, pair in enumerate(pairs):
        n = len(pair.question)
        question[i, P - n :], is_question[i, P - n :] = pair.question, True
        for j, answer in enumerate((pair.better, pair.worse)):
            tokens[i, j, : len(answer)], is_token[i, j, : len(answer)] = answer, True
    return scoring.Texts(question, is_question, tokens, is_token)
