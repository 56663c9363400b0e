"""Rows of known sets and of any file become problems, or are refused by line."""

import json
import os

import datasets
import pytest

from grpo_jax.data import sets, settings
from grpo_jax.section import Refused

ROWS = {
    "gsm8k": {"question": "q", "answer": "2+2=<<2+2=4>>4\n#### 4"},
    "math": {"problem": "q", "solution": r"so \boxed{4}", "level": "Level 1"},
    "svamp": {"Body": "a.", "Question": "q?", "Answer": 1055000.0, "Type": "Sum"},
    "mgsm": {"question": "q", "answer": "4"},
    "mgsm-zh": {"messages": [{"role": "user", "content": "q"}], "answer": "4"},
    "cmath": {"question": "q", "golden": "4", "grade": 1},
    "humaneval": {
        "prompt": "def f():",
        "test": "def check(f): ...",
        "entry_point": "f",
    },
    "hh-rlhf": {"question": "q", "chosen": "4", "rejected": "5"},
}


def test_the_settings_know_the_known_sets():
    assert set(sets.SETS) == settings.KNOWN


def written(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("name", sorted(sets.SETS))
def test_every_known_set_is_read_from_the_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    written(tmp_path / sets.SETS[name].files["test"], [ROWS[name]])
    (found,) = sets.read(name, "test").all
    expected = {"svamp": "1055000", "humaneval": "def check(f): ...\n\ncheck(f)\n"}
    expected["hh-rlhf"] = None  # nobody knows
    assert found.answer == expected.get(name, "4")
    assert found.question == {"svamp": "a. q?", "humaneval": "def f():"}.get(name, "q")


@pytest.mark.parametrize("split", ["train", "math500"])
@pytest.mark.parametrize("name", sorted(sets.SETS))
def test_every_known_set_is_asked_of_the_hub_where_the_folder_is_not(
    name, split, monkeypatch
):
    """All configurations of one that has several; MATH-500 is a set of its own."""
    monkeypatch.delenv(sets.FOLDER, raising=False)
    asked = []

    def load_dataset(*given, **options):
        asked.append((*given, options["split"]))
        return [ROWS[name]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = sets.read(name, split)
    expected = {
        "math": [("EleutherAI/hendrycks_math", one, split) for one in sets.SUBJECTS]
    }
    if (name, split) == ("math", "math500"):
        assert asked == [("HuggingFaceH4/MATH-500", None, "test")]
    elif name == "math":
        assert asked == expected[name] and len(asked) == 7
    else:
        assert len(asked) == 1 and asked[0][-1] == split
    assert len(found.all) == len(asked) and not found.left_out


def test_a_set_of_the_hub_has_columns_and_perhaps_configurations(monkeypatch):
    def load_dataset(name, subset, split):
        assert (name, subset, split) == ("me/mine", "hard", "dev")
        return [{"ask": "q", "say": "4"}, {"ask": "", "say": "5"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = sets.read("me/mine", "dev", sets.Columns("ask", "say"), "hard")
    assert [p[:2] for p in found.all] == [("q", "4")]
    assert found.left_out == ["me/mine/hard/dev, row 1"]


@pytest.mark.skipif(sets.FOLDER not in os.environ, reason="no real data here")
@pytest.mark.parametrize(
    ("name", "split", "count"),
    [
        ("gsm8k", "train", 7473),
        ("gsm8k", "test", 1319),
        ("math", "train", 7500),
        ("math", "test", 5000),
        ("math", "math500", 500),
        ("svamp", "test", 1000),
        ("mgsm", "test", 250),
        ("mgsm-zh", "test", 250),
        ("cmath", "test", 1098),
        ("humaneval", "test", 164),
    ],
)
def test_every_row_of_the_real_sets_can_be_read(name, split, count):
    found = sets.read(name, split)
    assert len(found.all) + len(found.left_out) == count
    assert len(found.left_out) == (2 if (name, split) == ("math", "train") else 0)


def test_any_file_is_read_by_its_columns(tmp_path):
    rows = [{"q": "1+1?", "a": "It is\n#### 2", "d": "2"}, {"q": "2?", "a": 3, "d": ""}]
    path = str(written(tmp_path / "mine.jsonl", rows))
    found = sets.read(path, "train", sets.Columns("q", "a", "d"))
    assert [x[:3] for x in found.all] == [("1+1?", "2", "2"), ("2?", "3", "")]


def test_parquet_is_read_as_well(tmp_path):
    import datasets

    path = str(tmp_path / "mine.parquet")
    datasets.Dataset.from_list([{"question": "1+1?", "answer": "2"}]).to_parquet(path)
    assert [x.answer for x in sets.read(path, "train").all] == ["2"]


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_a_file_may_be_one_of_the_folder(name, tmp_path, monkeypatch):
    """But one that is here comes first."""
    there, here = tmp_path / "data", tmp_path / "here"
    for number, folder in enumerate((there, here)):
        (folder / "some").mkdir(parents=True)
        rows = datasets.Dataset.from_list([{"question": "q", "answer": str(number)}])
        write = {"jsonl": rows.to_json, "parquet": rows.to_parquet}[name]
        write(folder / "some" / f"mine.{name}")
    monkeypatch.setenv(sets.FOLDER, str(there))
    monkeypatch.chdir(tmp_path)
    assert sets.read(f"some/mine.{name}", "train").all[0].answer == "0"
    monkeypatch.chdir(here)
    assert sets.read(f"some/mine.{name}", "train").all[0].answer == "1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "a", "answer": "1"}\n{"question": ', "line 2 is not JSON"),
        (
            '{"question": "a"}',
            r"line 1 could not be read \(KeyError: 'answer'\); it has",
        ),
        ('{"question": " ", "answer": "1"}', "has no problems in its split 'train'"),
        ("[1]", "line 1 is a list; a row names"),
    ],
)
def test_a_bad_row_is_refused_by_its_line(text, message, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(Refused, match=message):
        sets.read(str(path), "train")


def test_a_file_that_is_not_there_is_refused(tmp_path, monkeypatch):
    """By the name that was given, wherever it was looked for."""
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    with pytest.raises(Refused, match=r"^nowhere\.jsonl is not there; data.name names"):
        sets.read("nowhere.jsonl", "train")


def test_a_row_without_an_answer_is_left_out_and_named(tmp_path):
    rows = [{"question": "a", "answer": x} for x in ("1", " ", "2")]
    path = written(tmp_path / "mine.jsonl", rows)
    found = sets.read(str(path), "train")
    assert [x.answer for x in found.all] == ["1", "2"]
    assert found.left_out == [f"{path}, line 2"]


def test_no_answer_is_none_and_not_the_word(tmp_path, monkeypatch):
    rows = [{"question": "a", "answer": None}, {"question": "b", "answer": 0}]
    found = sets.read(str(written(tmp_path / "some.jsonl", rows)), "train")
    assert [(p.question, p.answer) for p in found.all] == [("b", "0")]
    assert [where.split(", ")[1] for where in found.left_out] == ["line 1"]
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    of_hub = {"question": "q", "answer": None, "answer_number": 18}
    written(tmp_path / "mgsm" / "mgsm_en.jsonl", [of_hub])
    assert sets.read("mgsm", "test").all[0].answer == "18"


def test_a_row_that_prefers_an_answer_asks_its_question(tmp_path):
    """Nobody knows what is right, and the better answer shows how it may be said."""
    asked = "\n\nHuman: hi\n\nAssistant:"
    dialogue = {"chosen": asked + " hello", "rejected": asked + " go away"}
    apart = {"question": "q", "chosen": "a", "rejected": "b"}
    path = written(tmp_path / "a.jsonl", [dialogue, apart])
    found, left_out = sets.read(str(path), "train")
    assert [tuple(one)[:3] for one in found] == [
        (asked, None, " hello"),
        ("q", None, "a"),
    ]
    assert not left_out
    # Its question stands in the column that is named, as it does for a judge.
    written(path, [{"prompt": "what?", "chosen": "the a", "rejected": "the b"}])
    (one,) = sets.read(str(path), "train", sets.Columns("prompt")).all
    assert one.question == "what?" and one.demonstration == "the a"
    # Its answer may be called otherwise, too.
    written(path, [apart | {"solution": "4"}])
    (one,) = sets.read(str(path), "train", sets.Columns(answer="solution")).all
    assert one.answer == "4"
    # With an answer it is a problem like others, and without one, none.
    written(path, [apart | {"answer": "4"}, {"question": "q", "answer": None}])
    (one,), left_out = sets.read(str(path), "train")
    assert one.answer == "4" and len(left_out) == 1
