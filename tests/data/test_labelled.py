"""Files that judge completions: what is kept, what is left out, and what is refused."""

import json
import os
import pathlib
import re

import pytest

from grpo_jax.data import labelled, sets, settings
from grpo_jax.data.verdicts import Preference, Solution
from grpo_jax.section import Refused
from grpo_jax.text import answers


def written(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def judged(question, completion, is_correct):
    return {"question": question, "completion": completion, "is_correct": is_correct}


def preferred(question, chosen, rejected):
    return {"question": question, "chosen": chosen, "rejected": rejected}


def test_what_says_nothing_is_left_out_and_named(tmp_path):
    rows = [judged("q", "a", 1), judged(" ", "a", 1), judged("q", "b", None)]
    rows += [judged("q", "  ", 0), judged("q", "a", 1)]
    name = written(tmp_path, rows)
    found = labelled.read(name, "train", "correct")
    assert found.all == [Solution("q", ("a",), (1.0,))]
    assert found.left_out == [
        f"{name}, line 2: has no question",
        f"{name}, line 3: has no label",
        f"{name}, line 4: has an empty step",
        f"{name}, line 5: says what {name}, line 1 says",
    ]


def test_equal_sides_are_left_out(tmp_path):
    rows = [preferred("q", "a", "a"), preferred("q", "a", "b")]
    found = labelled.read(written(tmp_path, rows), "train", "preferences")
    assert found.all == [Preference("q", "a", "b")]
    (told,) = found.left_out
    assert told.endswith("line 1: prefers a completion to itself")


@pytest.mark.parametrize(
    ("kind", "rows", "kept"),
    [
        (
            "preferences",
            [preferred("q", "a", "b"), preferred("q", "b", "a")],
            preferred("p", "a", "b"),
        ),
        ("correct", [judged("q", "a", 1), judged("q", "a", 0)], judged("p", "a", 1)),
    ],
)
def test_what_contradicts_another_is_left_out_with_it(kind, rows, kept, tmp_path):
    found = labelled.read(written(tmp_path, [*rows, kept]), "train", kind)
    assert [one.question for one in found.all] == ["p"]
    second, first = found.left_out
    assert "line 2: contradicts" in second and second.endswith("line 1")
    assert "line 1: is contradicted by" in first and first.endswith("line 2")


def test_labels_that_say_more_or_less_do_not_contradict(tmp_path):
    row = {"question": "q", "steps": ["a", "b"], "labels": [1, None]}
    name = written(tmp_path, [row, row | {"labels": [None, 0]}])
    found = labelled.read(name, "train", "steps")
    assert [one.labels for one in found.all] == [(1.0, None)]
    assert found.left_out == [f"{name}, line 2: says what {name}, line 1 says"]


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("steps", {"question": "q", "steps": ["a"], "labels": []}, "1 steps and 0"),
        ("steps", {"question": "q"}, "has question, and reward.labels 'steps' need"),
        ("correct", {"question": "q", "completion": "a"}, "need question, completion"),
        ("preferences", {"chosen": "a"}, "KeyError: 'rejected'.*need chosen and rej"),
        ("preferences", ["a"], "is a list; a row names its columns"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_by_its_line(kind, row, message, tmp_path):
    name = written(tmp_path, [row])
    with pytest.raises(Refused, match=rf"rows\.jsonl, line 1.*{message}"):
        labelled.read(name, "train", kind)


def test_a_file_without_anything_to_learn_is_refused(tmp_path):
    name = written(tmp_path, [preferred("q", "a", "a")])
    with pytest.raises(Refused, match=r"of 1, 1 are left out; .*line 1: prefers"):
        labelled.read(name, "train", "preferences")


def test_a_question_may_stand_in_another_column(tmp_path):
    row = {"asked": "q", "completion": "a", "is_correct": 1}
    found = labelled.read(written(tmp_path, [row]), "train", "correct", "asked")
    assert found.all == [Solution("q", ("a",), (1.0,))]


@pytest.mark.parametrize("name", sorted(settings.GENERATED))
def test_generated_problems_are_answered_rightly_and_wrongly(name):
    pairs = labelled.generated(name, 50, [2], "preferences", 0).all
    last = answers.last if name == "sums" else answers.final
    for pair in pairs:
        assert last(pair.better) != last(pair.worse)
    whole = labelled.generated(name, 50, [2], "correct", 0).all
    assert [(x.question, x.steps[0]) for x in whole[::2]] == [x[:2] for x in pairs]
    assert [(x.question, x.steps[0]) for x in whole[1::2]] == [x[::2] for x in pairs]
    assert {x.labels for x in whole[::2]} == {(1.0,)}
    assert {x.labels for x in whole[1::2]} == {(0.0,)}


def test_generated_answers_are_of_all_sizes():
    found = labelled.generated("series", 40, range(1, 4), "correct", 0).all
    signs = [len(re.findall("[+-]", x.question)) for x in found[::2]]
    assert sorted(signs)[0] == 1 and {signs.count(n) for n in (2, 3)} <= {13, 14}


@pytest.mark.parametrize(("name", "equals"), [("chains", " = "), ("series", "=")])
def test_from_its_first_mistake_on_a_chain_is_wrong(name, equals):
    found = labelled.generated(name, 50, [3], "steps", 0).all
    firsts = set()
    for good, bad in zip(found[::2], found[1::2], strict=True):
        assert good.labels == (1.0,) * 4 and len(bad.steps) == 4
        first = bad.labels.index(0.0)
        firsts.add(first)
        assert bad.labels == (1.0,) * first + (0.0,) * (4 - first)
        assert bad.steps[:first] == good.steps[:first]
        differ = [a != b for a, b in zip(good.steps, bad.steps, strict=True)]
        assert all(differ[first:])
        for before, after in zip(bad.steps[first:2], bad.steps[first + 1 : 3]):  # noqa: B905
            assert after.startswith(before.split(equals)[1])
    assert firsts == {0, 1, 2}


DATA = os.environ.get(sets.FOLDER)


@pytest.mark.skipif(DATA is None, reason="no real data here")
@pytest.mark.parametrize(
    ("file", "kind", "count"),
    [
        ("hh_rlhf/harmless_base_test.jsonl", "preferences", 2312),
        ("gsm8k_model_solutions/test.jsonl", "correct", 5268),
        ("processbench/gsm8k.jsonl", "steps", 400),
        ("prm800k_examples/prm800k-phase1-train-example.jsonl", "steps", 123),
    ],
)
def test_real_files_are_read(file, kind, count):
    found = labelled.read(str(pathlib.Path(DATA, file)), "train", kind)
    assert len(found.all) == count
