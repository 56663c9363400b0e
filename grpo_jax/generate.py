"""Answers to one question, as `python -m grpo_jax sample` gives them."""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from grpo_jax import prng, programs
from grpo_jax.models import load, transformer
from grpo_jax.models.settings import Numerics
from grpo_jax.section import Refused


class Options(NamedTuple):
    n: int  # answers
    temperature: float  # 0: the likeliest token each time
    top_p: float  # only the likeliest tokens that reach this share together
    max_new: int  # tokens of an answer
    seed: int


def tokens(
    model: load.Model, question: list[int], options: Options, numerics: Numerics
) -> Iterator[np.ndarray]:
    """The next token of each answer, until all have ended; −1 behind an end."""
    _check(model, question, options)
    length = _bucket(len(question))
    padding = length - len(question)
    ids = jnp.asarray([[0] * padding + question])
    is_question = jnp.arange(length)[None] >= padding
    prefix = programs.prefill(model.spec, model.params, ids, is_question, numerics)
    shape = 1, options.n, _bucket(options.max_new)
    cache = transformer.empty_cache(model.spec, shape, numerics.compute)
    key = prng.step_key(prng.root(options.seed), prng.Stream.SAMPLE, 0)
    keys = prng.sample_keys(key, jnp.zeros(1, int), options.n)
    token = jnp.full((1, options.n), question[-1])
    ended = np.zeros(options.n, bool)
    for column in range(options.max_new):
        position = jnp.full(token.shape, len(question) - 1 + column)
        logits, cache = programs.step(
            model.spec, model.params, prefix, cache, token, position, column, numerics
        )
        knobs = column, options.temperature, options.top_p
        token = programs.draw(logits, keys, *knobs)
        drawn = np.where(ended, -1, np.asarray(token)[0])
        yield drawn
        ended |= np.isin(drawn, model.tokenizer.stop_ids)
        if ended.all():
            return


def _bucket(length: int) -> int:
    """The next power of two, and at least 16: few programs serve all lengths."""
    return max(16, 1 << (length - 1).bit_length())


def _check(model: load.Model, question: list[int], options: Options):
    for name, holds, rule in (
        ("n", options.n >= 1, "at least one answer"),
        ("temperature", options.temperature >= 0, "0 or more; 0 is greedy"),
        ("top-p", 0 < options.top_p <= 1, "a share in (0, 1]"),
        ("max-new", options.max_new >= 1, "at least one token"),
    ):
        if not holds:
            value = getattr(options, name.replace("-", "_"))
            raise Refused(f"--{name} is {value}; it must be {rule}.")
    if not question:
        raise Refused("the question is empty. Give some text.")
    if len(question) + options.max_new > model.spec.max_length:
        raise Refused(
            f"{len(question)} tokens of question and --max-new {options.max_new} pass "
            f"the {model.spec.max_length} positions that the model was made for. Ask "
            "for fewer."
        )
