"""Tokenizers: ids and text, and every id that ends an answer."""

import pytest
import transformers
from tokenizers import AddedToken, Tokenizer, models, processors
from tokenizers import pre_tokenizers as pre

from grpo_jax.section import Refused
from grpo_jax.text import tokenizer, vocabulary

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ["", "2 + 3 = 5", "naïve ½ 数学\n\n\ttab", "<|end|>", "  spaces  "]


def fast(template=TEMPLATE, **roles):
    base = vocabulary.of_bytes("<|end|>")
    marks = ["<|im_start|>", "<|im_end|>"]
    base.add_special_tokens(
        [AddedToken(m, special=True, normalized=False) for m in marks]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=base, chat_template=template, eos_token="<|end|>", **roles
    )


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_the_texts_own(text):
    ours = tokenizer.Bytes()
    ids = ours.encode(text)
    assert ids == list(text.encode()) and ours.decode([*ids, 256]) == text
    assert max([*ids, *ours.stop_ids]) < ours.size


def test_saved_bytes_are_the_same_ids_to_transformers(tmp_path):
    ours = tokenizer.Bytes()
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    wrapped = tokenizer.HuggingFace(theirs)
    for text in TEXTS:
        if text != ours.END:  # the end's own name is one token there, bytes here
            assert wrapped.encode(text) == ours.encode(text)
            assert wrapped.decode(ours.encode(text)) == text
    assert wrapped.stop_ids == ours.stop_ids and wrapped.size == ours.size


def test_all_ends_are_stops_the_templates_as_well():
    plain = tokenizer.HuggingFace(fast(template=None))
    assert plain.stop_ids == (256,) and not plain.has_template
    chatting = tokenizer.HuggingFace(fast(), named=[5, 256])
    im_end = 258
    assert chatting.stop_ids == (5, 256, im_end) and chatting.has_template


def test_a_text_begins_as_the_tokenizer_begins_every_text():
    assert tokenizer.HuggingFace(fast()).start_ids == ()
    begun = fast(bos_token="<|im_start|>")
    mark = ("<|im_start|>", 257)
    begun.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[mark]
    )
    assert tokenizer.HuggingFace(begun).start_ids == (257,)
    assert tokenizer.HuggingFace(begun).encode("H") == [72]


def test_a_chat_is_written_as_the_template_has_it():
    ours = tokenizer.HuggingFace(fast())
    text = ours.chat([{"role": "user", "content": "Hi"}])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert ours.encode(text)[0] == 257
    with pytest.raises(Refused, match=r"has no chat template.*--raw"):
        tokenizer.HuggingFace(fast(template=None)).chat([])
    assert tokenizer.Bytes().chat([{"role": "user", "content": "Hi"}]) == "Hi\n"


def test_a_template_that_fails_or_drops_the_answer_fails_only_where_it_is_used():
    broken = tokenizer.HuggingFace(fast("{{ raise_exception('no system role') }}"))
    assert broken.stop_ids == (256,)
    with pytest.raises(Refused, match="chat template fails: no system role"):
        broken.chat([{"role": "user", "content": "Hi"}])
    assert tokenizer.HuggingFace(fast("nothing said")).stop_ids == (256,)


# From the metadata of GGUF files --------------------------------------------------------
def metadata(**values):
    return lambda name, default=None: values.get(name, default)


def byte_pairs(style):
    base = vocabulary.of_bytes("<|end|>")
    letters = [base.id_to_token(i) for i in range(256)]
    tokens = [*letters, "<|end|>", "12", "Ġt", "he", "the", "Ġthe", "<tool>"]
    merges = ["1 2", "Ġ t", "h e", "t he", "Ġt he"]
    types = [1] * 256 + [3] + [1] * 5 + [4]
    given = {"model": "gpt2", "pre": style, "tokens": tokens, "token_type": types}
    return vocabulary.build(metadata(**given, merges=merges))


@pytest.mark.parametrize(
    ("style", "text", "expected"),
    [
        ("gpt-2", "the the 12", ["the", "Ġthe", "Ġ", "12"]),
        ("smollm", "12 the", ["1", "2", "Ġthe"]),
        ("llama-bpe", "12", ["12"]),
        ("qwen2", "12", ["1", "2"]),
        ("gpt-2", "12<|end|>the", ["12", "<|end|>", "the"]),
        ("gpt-2", "12<tool>", ["12", "<tool>"]),
    ],
)
def test_words_are_cut_the_models_own_way(style, text, expected):
    built = byte_pairs(style)
    got = built.encode(text, add_special_tokens=False)
    assert got.tokens == expected
    assert built.decode(got.ids, skip_special_tokens=False) == text


def sentence_pieces(prefix):
    pieces = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "t", "h", "e", "▁t", "he", "▁the"]
    types = [2, 3] + [6] * 256 + [1] * 7
    scores = [0.0] * 258 + [-10.0] * 4 + [-2.0, -1.0, -3.0]
    given = {"model": "llama", "tokens": pieces, "token_type": types, "scores": scores}
    return vocabulary.build(metadata(**given, add_space_prefix=prefix))


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_pieces_merge_by_score_and_fall_back_to_bytes(prefix):
    built = sentence_pieces(prefix)
    got = built.encode("the the½", add_special_tokens=False)
    first = ["▁the"] if prefix else ["t", "he"]
    assert got.tokens == [*first, "▁the", "<0xC2>", "<0xBD>"]
    assert built.decode(got.ids) == "the the½"


def test_unknown_tokenizers_are_refused():
    with pytest.raises(
        Refused, match="tokenizer is 'bert'; implemented are gpt2, llama"
    ):
        vocabulary.build(metadata(model="bert"))
    with pytest.raises(Refused, match=r"tokenizer.ggml.pre = 'dbrx' of"):
        vocabulary.build(metadata(model="gpt2", pre="dbrx", tokens=[], token_type=[]))
    given = {"tokens": ["a"], "token_type": [1], "merges": ["a b"], "pre": "gpt-2"}
    with pytest.raises(Refused, match=r"do not fit together.*out of vocabulary"):
        vocabulary.build(metadata(model="gpt2", **given))


def test_the_bytes_stand_ins_are_those_of_every_byte_level_tokenizer():
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    ours = vocabulary.of_bytes("<|end|>").get_vocab()
    assert set(pre.ByteLevel.alphabet()) == set(ours) - {"<|end|>"}
    for text in TEXTS[1:3]:
        (pieces, _), *_ = theirs.pre_tokenizer.pre_tokenize_str(text)
        assert [ours[c] for c in pieces] == list(text.encode())
