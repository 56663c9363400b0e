"""What a command asks of a model: data, prompts and lengths, as its words have them.

Of a run all of them are the run's own, where the words do not say otherwise.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

from grpo_jax import config, runs
from grpo_jax.data.settings import KNOWN, PROMPTS, generated
from grpo_jax.models import settings
from grpo_jax.section import Refused
from grpo_jax.text.tokenizer import Tokenizer

CHINESE = {"cmath", "mgsm-zh"}
COLUMNS = "question", "answer"


@runtime_checkable
class Given(Protocol):
    """The words that such commands have in common."""

    model: str
    data: str | None
    question: str | None
    answer: str | None
    instruction: str | None
    wrapping: str | None
    shots: int | None
    max_new: int | None
    dtype: str | None
    mesh: tuple[int, int, int] | None


def chosen(
    given: Given,
    found: runs.Found,
    data: config.Data,
    evaluation: config.Evaluation,
    **changed: Any,  # of sampling
) -> config.Config:
    """All that answers depend on; nothing of how the run learns."""
    begun, plain = found.settings, config.Config()
    numerics = begun.model.numerics if begun else plain.model.numerics
    sampling = begun.sampling if begun else plain.sampling
    if given.dtype is not None:
        numerics = dataclasses.replace(numerics, compute=given.dtype)
        sampling = dataclasses.replace(sampling, cache=given.dtype)
    if given.max_new is not None:
        least = min(sampling.min_new, given.max_new)
        new = {"max_new": given.max_new, "min_new": least}
        sampling = dataclasses.replace(sampling, **new)
    sampling = dataclasses.replace(sampling, **changed)
    return config.Config(
        seed=begun.seed if begun else plain.seed,
        model=settings.Model(numerics=numerics),
        data=data,
        sampling=sampling,
        training=config.Training(mesh=given.mesh),
        evaluation=evaluation,
    )


def named(given: Given, own: config.Data | None) -> str:
    """The data: the run's, if no others are given."""
    if given.data is None and own is None:
        raise Refused(f"{given.model} is no run, which has data. Give --data.")
    return given.data or own.name


def prompts(given: Given, own: config.Data | None, text: Tokenizer) -> dict:
    """How a question is put."""
    usual = own or _usual(named(given, own), text)
    known = {name: getattr(usual, name) for name in PROMPTS}
    return known | _said(given, PROMPTS)


def with_columns(given: Given, data: config.Data) -> config.Data:
    columns = _said(given, COLUMNS)
    if columns and (generated(data.name) or data.name in KNOWN):
        raise Refused(
            f"--{next(iter(columns))} names a column, and those of {data.name} are "
            "known. Leave it out."
        )
    return dataclasses.replace(data, **columns)


def _said(given: Given, names: tuple[str, ...]) -> dict:
    return {name: x for name in names if (x := getattr(given, name)) is not None}


def _usual(name: str, text: Tokenizer) -> config.Data:
    """How a model is asked that was not trained here."""
    if generated(name) or (name == "humaneval" and not text.has_template):
        return config.Data()  # the prompts of humaneval are there to be continued
    asked = "steps-zh" if name in CHINESE else "steps"
    asked = "function" if name == "humaneval" else asked
    wrapping = "chat" if text.has_template else "paper"
    return config.Data(instruction=asked, wrapping=wrapping)
