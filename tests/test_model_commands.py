"""The commands about models, as a user types them."""

import json

import pytest
import transformers

from grpo_jax import cli, selftest
from grpo_jax.sampling import draw


def run(capsys, *words):
    code = cli.main(list(words))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_sample_streams_one_answer_and_tabulates_more(capsys):
    code, text, _ = run(capsys, "sample", "tiny", "2 + 3 =", "--max-new", "4")
    assert code == 0 and text.endswith("\n")
    again = run(capsys, "sample", "tiny", "2 + 3 =", "--max-new", "4")[1]
    assert text == again
    words = ["sample", "tiny", "2 + 3 =", "--max-new", "4", "--n", "2"]
    code, text, _ = run(capsys, *words)
    assert code == 0 and "answer" in text and "│ 1 " in text


def test_an_answer_ends_with_a_stop(capsys):
    words = ["sample", "tiny", "2 + 3 =", "--max-new", "40", "--temperature", "2"]
    whole = run(capsys, *words)[1].rstrip("\n")
    letter = whole[len(whole) // 2]
    cut = run(capsys, *words, "--stop", letter)[1].rstrip("\n")
    assert cut == whole[: whole.index(letter) + 1]


def test_a_sampler_tests_itself(capsys, monkeypatch):
    monkeypatch.setattr(selftest, "DRAWS", 20_000)
    words = ["sample", "tiny", "2 + 3 =", "--self-test"]
    code, text, _ = run(capsys, *words)
    assert code == 0 and text.count("as it should be") == len(selftest.RULES) + 1
    greedy = draw.Rule(0.01)
    monkeypatch.setattr(draw, "rule", lambda settings: greedy)
    code, text, _ = run(capsys, *words)
    assert code == 1 and "a rollout's first token" in text.split("WRONG")[0]


def test_models_lists_what_is_known_and_what_is_here(capsys):
    code, text, _ = run(capsys, "models")
    assert code == 0 and "qwen2.5-7b" in text and "7,615,616,512" in text
    assert "14.19" in text and "57,344" in text and "devices: 4" in text
    code, text, _ = run(capsys, "models", "gemma-3-1b")
    assert code == 0 and "999,885,952 parameters" in text and "window = 512" in text


def test_convert_writes_what_transformers_opens(capsys, tmp_path):
    folder = tmp_path / "out"
    code, text, _ = run(capsys, "convert", "tiny", str(folder), "--dtype", "float32")
    assert code == 0 and "float32" in text
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.vocab_size == 257 and config.num_hidden_layers == 4
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [256]
    assert transformers.AutoTokenizer.from_pretrained(folder).encode("Hi") == [72, 105]


def test_convert_rounds_only_when_told_and_says_so(capsys, tmp_path):
    half, full = tmp_path / "half", tmp_path / "full"
    for words, says in (
        (("tiny", half, "--dtype", "bfloat16"), "GiB of bfloat16, rounded"),
        (("tiny", full), "GiB of float32\n"),
        ((half, tmp_path / "again"), "GiB of bfloat16\n"),
        ((full, tmp_path / "same"), "GiB of float32\n"),
    ):
        code, text, _ = run(capsys, "convert", *map(str, words))
        assert code == 0 and says in text
    config = json.loads((tmp_path / "again/config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert (config["bos_token_id"], config["eos_token_id"]) == (None, [256])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sample", "nowhere", "Hi"), "there is no model nowhere"),
        (("sample", "tiny", "Hi", "--chat", "--raw"), "--chat and --raw contradict"),
        (("sample", "tiny", "Hi", "--chat"), None),
        (("sample", "tiny", ""), "question 0 is empty"),
        (("sample", "tiny", "Hi", "--n", "0"), "--n is 0; it must be at least one"),
        (
            ("sample", "tiny", "Hi", "--temperature", "-1"),
            "temperature is -1.0; a temp",
        ),
        (("sample", "tiny", "Hi", "--top-p", "0"), "sampling.top_p is 0.0; it is a"),
        (("sample", "tiny", "Hi", "--max-new", "0"), "sampling.max_new is 0"),
        (
            ("sample", "tiny", "Hi", "--max-new", "1023"),
            "2 tokens; with sampling.max_new",
        ),
        (("convert", "tiny", "x.gguf"), "GGUF files are read, not written"),
        (("convert", "nowhere", "x"), "there is no model nowhere"),
        (("models", "nowhere"), "there is no model nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(
    capsys, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    if message is None:  # the byte tokenizer writes a chat as lines
        assert run(capsys, *words, "--max-new", "1")[0] == 0
        return
    code, _, text = run(capsys, *words)
    assert code == 2 and message in text and len(text.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_convert_does_not_write_over_a_folder(capsys, tmp_path):
    code, _, text = run(capsys, "convert", "tiny", str(tmp_path))
    assert code == 2 and "exists already" in text


@pytest.mark.parametrize("words", [("--temperatur", "1"), ("--dtype", "int8")])
def test_a_misspelt_option_is_exit_code_2(capsys, words):
    with pytest.raises(SystemExit) as error:
        cli.main(["sample", "tiny", "Hi", *words])
    assert error.value.code == 2
