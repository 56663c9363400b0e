"""How a reward model reads: a question, a completion, and where its score stands.

A completion that is scored as a whole ends as an answer does, and is scored there. Of
one that is scored by steps each is a piece of its own: its text, a newline, and, where
the model was made with one, a tag before it. What ends the piece is where the score
stands, so no token belongs to two steps, whatever the tokenizer.
"""

from collections.abc import Sequence
from typing import NamedTuple

from grpo_jax.section import Refused
from grpo_jax.text import prompts
from grpo_jax.text.tokenizer import Tokenizer


class Row(NamedTuple):
    """A completion, and which of its tokens its scores stand at."""

    tokens: list[int]
    ends: list[int]


class Reader(NamedTuple):
    tokenizer: Tokenizer
    instruction: str
    wrapping: str
    by_steps: bool
    tag: int | None  # None: a step's newline is its end

    def question(self, text: str) -> list[int]:
        how = {"instruction": self.instruction, "wrapping": self.wrapping}
        return prompts.prompt(text, self.tokenizer, **how)

    def row(self, steps: Sequence[str]) -> Row:
        encode = self.tokenizer.encode
        if not self.by_steps:
            tokens = [*encode("\n".join(steps)), self.tokenizer.stop_ids[0]]
            return Row(tokens, [len(tokens) - 1])
        tokens, ends = [], []
        for step in steps:
            if self.tag is None:
                tokens += encode(step.strip("\n") + "\n")
                ends.append(len(tokens) - 1)
            else:
                tokens += [*encode(step.strip("\n")), self.tag]
                ends.append(len(tokens) - 1)
                tokens += encode("\n")
        return Row(tokens, ends)


def token(tokenizer: Tokenizer, text: str, name: str) -> int:
    """The one token that a setting means."""
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise Refused(
            f"{name} is {text!r}, which the tokenizer writes with {len(ids)} tokens; a "
            "score stands at one. Name a text that is one token."
        )
    return ids[0]
