"""A fast tokenizer from the vocabulary that a GGUF file carries."""

from collections.abc import Callable
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
)
from tokenizers import pre_tokenizers as pre

from grpo_jax.section import Refused

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
# How words are cut before merging, by the name that the file gives: the regular
# expressions are those of the models' own tokenizers.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _by(regex: str):
    split = pre.Split(Regex(regex), "isolated")
    return pre.Sequence([split, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS = {
    "gpt-2": lambda: pre.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
    ),
    "llama-bpe": lambda: _by(LLAMA3),
    "qwen2": lambda: _by(QWEN2),
    "deepseek-r1-qwen": lambda: _by(QWEN2),  # Qwen2's, by another name
}


def build(get: Callable[[str, Any], Any]) -> Tokenizer:
    """`get(name, default)` reads the metadata that begin with tokenizer.ggml."""
    kind = get("model", None)
    if kind not in KINDS:
        raise Refused(
            f"the file's tokenizer is {kind!r}; implemented are {', '.join(KINDS)}. "
            "Give the model as a folder with a tokenizer.json instead."
        )
    tokens = get("tokens", [])
    types = get("token_type", [NORMAL] * len(tokens))
    _check(get, tokens, types)
    tokenizer = KINDS[kind](tokens, get)
    marks = [
        AddedToken(token, special=type_ == CONTROL, normalized=False)
        for token, type_ in zip(tokens, types, strict=True)
        if type_ in (CONTROL, USER_DEFINED)
    ]
    tokenizer.add_tokens(marks)
    begin = get("bos_token_id", None)
    if get("add_bos_token", _begins(get)) and begin is not None:
        mark = tokens[begin]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[mark, "$A"], special_tokens=[(mark, begin)]
        )
    return tokenizer


def _check(get, tokens: list[str], types: list[int]):
    """What else would be an index error, far from here."""
    lengths = {"token_type": types, "scores": get("scores", tokens)}
    if get("model", None) == "llama":
        lengths["scores"] = get("scores", [])
    for name, values in lengths.items():
        if len(values) != len(tokens):
            raise Refused(
                f"the file has {len(tokens)} tokens, but {len(values)} of {name}. "
                "Fetch it again."
            )
    for role in ("bos", "eos", "padding", "unknown", "eot", "eom"):
        i = get(f"{role}_token_id", 0)
        if not 0 <= i < max(len(tokens), 1):
            raise Refused(
                f"the file's {role}_token_id is {i}; it has {len(tokens)} tokens. "
                "Fetch it again."
            )


def _begins(get) -> bool:
    """Whether such models see a mark before every text, where the file is silent."""
    return get("model", None) == "llama" or get("pre", None) == "llama-bpe"


def _byte_pairs(tokens: list[str], get) -> Tokenizer:
    """GPT-2's kind: bytes as printable characters, and a list of merges."""
    style = get("pre", None)
    if style not in PRE_TOKENIZERS:
        raise Refused(
            f"the file says tokenizer.ggml.pre = {style!r} of how words are cut; known "
            f"are {', '.join(PRE_TOKENIZERS)}. Give the model as a folder instead."
        )
    merges = [tuple(merge.split(" ", 1)) for merge in get("merges", [])]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    whole = style == "llama-bpe"  # a word in the vocabulary is not cut at all
    try:
        model = models.BPE(vocabulary, merges, ignore_merges=whole)
    except Exception as error:  # the library has no narrower one
        raise Refused(
            f"the file's tokens and merges do not fit together ({error}). Fetch it "
            "again."
        ) from None
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[style]()
    if style in ("qwen2", "deepseek-r1-qwen"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(tokens: list[str], get) -> Tokenizer:
    """SentencePiece's byte pairs: ▁ for a space, merges in order of their scores."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    scores = get("scores", [])
    merges = sorted(
        (-scores[i], vocabulary[token[:cut]], (token[:cut], token[cut:]))
        for token, i in vocabulary.items()
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    )
    unknown = tokens[get("unknown_token_id", 0)]
    model = models.BPE(
        vocabulary,
        [pair for *_, pair in merges],
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    space = normalizers.Replace(" ", "▁")
    joined = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if get("add_space_prefix", True):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
        joined.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = space
    tokenizer.decoder = decoders.Sequence(joined)
    return tokenizer


KINDS = {"gpt2": _byte_pairs, "llama": _sentence_pieces}


def of_bytes(end: str) -> Tokenizer:
    """The 256 bytes, without merges, and one special token."""
    # The printable stand-ins of bytes, in the order of the bytes they stand for.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in stand_in)
    stand_in |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE({stand_in[b]: b for b in range(256)}, []))
    tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    return tokenizer
