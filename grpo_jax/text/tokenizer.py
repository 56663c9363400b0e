"""Text ↔ token ids, behind one small interface: models' own tokenizers, and bytes.

encode(text) → ids        decode(ids) → text        chat(messages) → text
size, start_ids, stop_ids, save(folder)
"""

import pathlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jinja2

from grpo_jax.section import Refused
from grpo_jax.text import vocabulary

Messages = list[dict[str, str]]  # [{"role": "user", "content": "..."}]


@runtime_checkable
class Tokenizer(Protocol):
    size: int  # ids are below it
    start_ids: tuple[int, ...]  # what a text without a template begins with
    stop_ids: tuple[int, ...]  # any of them ends a completion
    has_template: bool  # of chats

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def chat(self, messages: Messages) -> str: ...
    def save(self, folder: pathlib.Path): ...


class Bytes:
    """The bytes of UTF-8, and one id that ends a text: for models made from scratch."""

    END = "<|end|>"
    size = 257
    start_ids = ()
    stop_ids = (256,)
    has_template = False

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def chat(self, messages: Messages) -> str:
        return "".join(f"{message['content']}\n" for message in messages)

    def save(self, folder: pathlib.Path):
        """As a tokenizer.json, from which `transformers` gives the same ids."""
        import transformers

        vocabulary.of_bytes(self.END).save(str(folder / "tokenizer.json"))
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), eos_token=self.END
        )
        fast.save_pretrained(folder)


class HuggingFace:
    """A tokenizer of `transformers`, and every id that its model may end with."""

    def __init__(self, tokenizer: Any, named: Sequence[int] = ()):
        self.tokenizer = tokenizer
        self.size = len(tokenizer)
        self.has_template = tokenizer.chat_template is not None
        begun = tokenizer.encode("")[:1]  # some put a token before every text
        self.start_ids = tuple(i for i in begun if i == tokenizer.bos_token_id)
        own = {tokenizer.eos_token_id, self._end_of_turn()} - {None}
        self.stop_ids = tuple(sorted(own | set(named)))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def chat(self, messages: Messages) -> str:
        """The messages as the model's template writes them, ready for its answer."""
        if self.tokenizer.chat_template is None:
            raise Refused(
                "the model has no chat template: it is not made for chats. Use --raw."
            )
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise Refused(
                f"the model's chat template fails: {error}. Use --raw."
            ) from None

    def save(self, folder: pathlib.Path):
        self.tokenizer.save_pretrained(folder)

    def _end_of_turn(self) -> int | None:
        """The special token that the template writes behind an answer."""
        if self.tokenizer.chat_template is None:
            return None
        answer = "an answer"
        messages = [
            {"role": "user", "content": "a question"},
            {"role": "assistant", "content": answer},
        ]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        except jinja2.TemplateError:  # `chat` will say so, to whoever uses it
            return None
        if answer not in text:
            return None
        behind = self.encode(text.rpartition(answer)[2])
        special = set(self.tokenizer.all_special_ids)
        special |= set(self.tokenizer.added_tokens_decoder)
        return next((i for i in behind if i in special), None)
