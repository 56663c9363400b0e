"""A reward model's data as it reads them: what is learned from, and what is held out.

Questions are held out by their text alone, with all that was said of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from grpo_jax import config
from grpo_jax.data import labelled, problem
from grpo_jax.data.settings import GENERATED
from grpo_jax.data.verdicts import Preference, Solution
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused
from grpo_jax.task import SEED, Task
from grpo_jax.text import reading
from grpo_jax.text.tokenizer import Tokenizer


class Item(NamedTuple):
    """One question with its completions as tokens."""

    question: list[int]
    rows: list[reading.Row]  # of a preference the better one, then the worse
    labels: list[list[float | None]]  # of each row's ends; of a preference nothing


def reader(settings: config.Config, tokenizer: Tokenizer) -> reading.Reader:
    """How the model of these settings reads."""
    chosen, data = settings.reward, settings.data
    tag = chosen.tag
    if tag is not None:
        tag = reading.token(tokenizer, tag, chosen.dotted("tag"))
    given = tokenizer, data.instruction, data.wrapping, chosen.labels == "steps", tag
    return reading.Reader(*given)


def candidates(chosen: config.Reward, tokenizer: Tokenizer) -> tuple[int, int] | None:
    """The tokens that say good and bad; None: a head of its own says the score."""
    if chosen.head == "scalar":
        return None
    names = ("good", "bad")
    ids = [
        reading.token(tokenizer, getattr(chosen, name), chosen.dotted(name))
        for name in names
    ]
    if ids[0] == ids[1]:
        raise Refused(f"reward.good and bad are the same token, {ids[0]}. Name others.")
    return ids[0], ids[1]


def make(settings: config.Config, spec: Spec, tokenizer: Tokenizer) -> Task:
    """Reads the data; what is too long for the model is left out, and told."""
    data = settings.data
    found = _found(data, data.split, settings.reward.labels)
    if data.test is None:
        train, held_out = problem.parted(found.all, data.held_out)
        left_out = found.left_out
    else:
        more = _found(data, data.test, settings.reward.labels)
        train, held_out = found.all, more.all
        left_out = found.left_out + more.left_out
    read, most = reader(settings, tokenizer), spec.max_length
    most = min(most, settings.reward.longest or most)
    train, long = _short(read, train, most)
    held_out, more_long = _short(read, held_out, most)
    left_out = left_out + long + more_long
    if not train:
        raise Refused(
            f"data.name is {data.name!r}; nothing is left to learn from, of "
            f"{len(found.all)}, with at most {most} tokens each. Raise reward.longest, "
            "choose a model with a larger max_length, or lower data.held_out."
        )
    return Task(train, held_out, left_out, data, tokenizer)


def _found(data: config.Data, split: str, kind: labelled.Kind) -> labelled.Labelled:
    if data.name in GENERATED:
        return labelled.generated(data.name, data.count, data.sizes, kind, SEED)
    return labelled.read(data.name, split, kind, data.question, data.subset)


def item(read: reading.Reader, one: Preference | Solution) -> Item:
    question = read.question(one.question)
    if isinstance(one, Preference):
        return Item(question, [read.row([x]) for x in one[1:]], [])
    return Item(question, [read.row(one.steps)], [list(one.labels)])


def size(one: Item) -> int:
    """Tokens of the question and its longest completion, and the place behind it."""
    return len(one.question) + max(len(row.tokens) for row in one.rows) + 1


def _short(read: reading.Reader, found: Sequence, most: int) -> tuple[list, list[str]]:
    kept, long = [], []
    for one in found:
        as_read = item(read, one)
        n, count = size(as_read), len(as_read.question)
        if n <= most and count:
            kept.append(one)
        else:
            why = f"{n} tokens, at most {most} fit" if count else "its question is none"
            long.append(f"{one.question[:60]!r}: {why}")
    return kept, long
