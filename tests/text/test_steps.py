"""Steps and their tokens: by hand, and for every kind of tokenizer."""

import time

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from grpo_jax.text import steps, tokenizer, vocabulary
from grpo_jax.text.tokenizer import Bytes

END = Bytes.stop_ids[0]


@pytest.mark.parametrize(
    ("text", "texts", "ends"),
    [
        ("ab\ncd\n#", ["ab", "cd", "#"], [2, 5, 6]),
        ("ab", ["ab"], [1]),  # no newline
        ("ab\ncd", ["ab", "cd"], [2, 4]),  # or text behind the last
        ("ab\n", ["ab"], [2]),
        ("a\n\n\nb", ["a", "b"], [3, 4]),  # blank lines belong to the step before
        ("a\n \t\nb\n\n", ["a", "b"], [4, 7]),
        ("\n\na\nb", ["a", "b"], [3, 4]),  # at the beginning to the first
        ("\n\n", [""], [1]),
        ("  a\n b ", ["  a", " b "], [3, 6]),
        ("a\r\nb\x0bc\u2028d", ["a\r", "b\x0bc\u2028d"], [2, 9]),  # newlines alone
    ],
)
def test_a_step_is_a_line(text, texts, ends):
    splitter = steps.Splitter(Bytes().decode, Bytes.size)
    ids = np.array(Bytes().encode(text))
    assert splitter.split(ids, text) == (texts, ends)
    # What ends the text is the last step's, and no step of its own.
    found = splitter.split(np.append(ids, END), text)
    assert found == (texts, [*ends[:-1], len(ids)])


def test_a_text_that_is_its_end_alone_is_one_step():
    splitter = steps.Splitter(Bytes().decode, Bytes.size)
    assert splitter.split(np.array([END]), "") == ([""], [0])


# Tokens that hold newlines and more ---------------------------------------------------
WORDS = ["a", "b", "1", "Ċ", "Ġ", ".", "}", "ĊĊ", ".ĊĊ", "Ċ}", "Ċ}Ċ", "Ġa", "ĠĊ", "Ċ1"]


def words():
    """A byte-level tokenizer that cuts a text into the longest of its words."""
    bytes_ = list(vocabulary.of_bytes("<|end|>").get_vocab())
    known = {w: i for i, w in enumerate(dict.fromkeys([*bytes_, *WORDS]))}
    made = Tokenizer(models.WordLevel(known, unk_token="a"))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    return made, known


@pytest.mark.parametrize(
    ("pieces", "texts", "ends"),
    [
        (["a", ".ĊĊ", "b"], ["a.", "b"], [1, 2]),  # a newline within a token
        (["a", "Ċ1", "b"], ["a", "1b"], [1, 2]),  # and text behind it there
        (["a", "Ċ1"], ["a\n1"], [1]),  # a line without a token of its own
        (["a", "Ċ}Ċ", "b"], ["a\n}", "b"], [1, 2]),
        (["a", "Ċ}Ċ", "Ċ", "b"], ["a\n}", "b"], [2, 3]),
        (["Ċ}Ċ", "b", "<|end|>"], ["}", "b"], [0, 2]),
        (["a", "ĊĊ", "ĠĊ", "<|end|>"], ["a"], [3]),
        (["<|end|>"], [""], [0]),
    ],
)
def test_the_token_that_holds_the_newline_ends_the_step(pieces, texts, ends):
    made, known = words()
    ids = np.array([known[piece] for piece in pieces])
    splitter = steps.Splitter(made.decode, made.get_vocab_size())
    assert splitter.split(ids, made.decode(ids.tolist())) == (texts, ends)


def byte_pairs():
    base = vocabulary.of_bytes("<|end|>")
    letters = [base.id_to_token(i) for i in range(256)]
    tokens = [*letters, "<|end|>", "ĊĊ", "ĊĊĊ", ".Ċ", "ĠĊ", "12"]
    merges = ["Ċ Ċ", "ĊĊ Ċ", ". Ċ", "Ġ Ċ", "1 2"]
    given = {"model": "gpt2", "pre": "llama-bpe", "tokens": tokens, "merges": merges}
    given["token_type"] = [1] * 256 + [3] + [1] * 5
    return vocabulary.build(lambda name, default=None: given.get(name, default))


def sentence_pieces():
    pieces = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "a", "b", "ab", "1", "."]
    given = {"model": "llama", "tokens": pieces, "scores": [0.0] * len(pieces)}
    given["token_type"] = [2, 3] + [6] * 256 + [1] * 6
    return vocabulary.build(lambda name, default=None: given.get(name, default))


def known():
    """Each kind: (ids of a text, text of ids, how many ids there are)."""
    found = {"bytes": (Bytes().encode, Bytes().decode, Bytes.size)}
    of_fast = {"byte pairs": byte_pairs(), "sentence pieces": sentence_pieces()}
    for name, made in of_fast.items():
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
        ours = tokenizer.HuggingFace(fast)
        found[name] = ours.encode, ours.decode, ours.size
    made, _ = words()
    found["words"] = None, made.decode, made.get_vocab_size()
    return found


KNOWN = known()
texts = st.text(st.sampled_from("ab12. \n\n\n\t}½数"), max_size=40)


def is_whole(ids, text, found):
    """Whether every token is in exactly one step."""
    ends = np.array(found.ends)
    assert len(found.texts) == len(ends) > 0
    assert (np.diff(ends) > 0).all() and ends[0] >= 0 and ends[-1] == len(ids) - 1
    said = "\n".join(found.texts).split("\n")
    assert said == [x for x in text.split("\n") if x.strip()] or said == [""]


@given(texts, st.integers(0, 40), st.sampled_from(["bytes", "byte pairs"]))
def test_a_step_holds_the_tokens_that_say_its_line(text, cut, name):
    """And the first to complete it is its last; cut anywhere, within characters too."""
    encode, decode, size = KNOWN[name]
    ids = np.array(encode(text)[: cut + 1])
    if not len(ids):
        return
    text = decode(ids.tolist())
    found = steps.Splitter(decode, size).split(ids, text)
    is_whole(ids, text, found)
    start = 0
    for told, end in zip(found.texts, found.ends, strict=True):
        said = decode(ids[start : end + 1].tolist())
        assert [x for x in said.split("\n") if x.strip()] == (
            told.split("\n") if told else []
        )
        start = end + 1


@given(st.data(), st.sampled_from(list(KNOWN)))
def test_every_token_is_in_exactly_one_step_whatever_was_drawn(data, name):
    """Also of tokens that no text is cut into, and that are no characters together."""
    _, decode, size = KNOWN[name]
    newline = [i for i in range(size) if "\n" in decode([i])]
    ids = st.integers(0, size - 1) | st.sampled_from(newline)
    ids = np.array(data.draw(st.lists(ids, min_size=1, max_size=30)))
    text = decode(ids.tolist())
    found = steps.Splitter(decode, size).split(ids, text)
    is_whole(ids, text, found)


def test_bytes_that_swallow_a_newline_leave_one_step():
    """SentencePiece's bytes are read together: a newline beside half a character is
    none. Which newline of the rest is whose cannot be told."""
    encode, decode, size = KNOWN["sentence pieces"]
    half, newline = encode("数")[-1], encode("a\n")[-1]
    ids = np.array([*encode("a\nb"), newline, half])
    text = decode(ids.tolist())
    assert text == "a\nb\ufffd\ufffd"
    assert steps.Splitter(decode, size).split(ids, text) == ([text], [len(ids) - 1])


def test_each_token_is_looked_at_once():
    asked = []

    def decode(ids):
        asked.extend(ids)
        return Bytes().decode(ids)

    splitter = steps.Splitter(decode, Bytes.size)
    ids = np.array(Bytes().encode("12\n21\n12"))
    for _ in range(3):
        splitter.split(ids, "12\n21\n12")
    assert sorted(asked) == sorted({*b"12\n"})


def test_the_work_is_linear_in_the_length():
    """Twice as long a text is not cut twice as often: by the calls, not by a clock."""
    calls = []
    splitter = steps.Splitter(lambda ids: calls.append(1) or "\n" * (ids[0] == 10), 257)
    ids = np.array([*b"a" * 49, 10] * 4000)
    began = time.perf_counter()
    found = splitter.split(ids, ("a" * 49 + "\n") * 4000)
    assert len(found.ends) == 4000 and len(calls) == 2
    assert time.perf_counter() - began < 20


def test_without_tokens_each_line_is_a_step():
    assert steps.lines("a\n\n b \n") == ["a", " b "]
    assert steps.lines("\n") == [""] and steps.lines("") == [""]
