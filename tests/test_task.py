"""A run's problems: which are trained on, which are kept for examination, how they read."""

import json

import pytest

from grpo_jax import config, task
from grpo_jax.data import arithmetic, problem, sets, settings
from grpo_jax.section import Refused
from grpo_jax.text.tokenizer import Bytes
from tests.models import examples

SPEC = examples.SPECS["qwen2"]  # 512 positions


def made(max_new=16, max_prompt=None, **data):
    sampling = config.Sampling(max_new=max_new, max_prompt=max_prompt)
    data = {"count": 100} | data if "name" not in data else data
    chosen = config.Config(data=config.Data(**data), sampling=sampling)
    return task.make(chosen, SPEC, Bytes())


def lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_no_question_is_trained_on_and_examined_on():
    found = made(held_out=0.3, size=1, count=500)
    train, held_out = ({p.question for p in x} for x in (found.train, found.held_out))
    assert not train & held_out
    assert len(train) == len(found.train) and len(held_out) == len(found.held_out)
    assert 60 < len(train | held_out) <= 100  # one-digit sums, each once


def test_generated_problems_are_of_all_sizes_in_equal_shares():
    found = made(name="series", count=90, size=4, least=2, held_out=0.0).train
    signs = [sum(map(p.question.count, "+-")) for p in found]
    assert [signs.count(n) for n in (2, 3, 4)] == [30, 30, 30]
    alone = made(name="series", count=90, size=4, held_out=0.0).train
    assert {
        p for p in found if p.question.count("+") + p.question.count("-") == 4
    } <= set(alone)


def test_what_is_held_out_stays_so_whatever_is_beside_it():
    few, many = made(count=50, held_out=0.3), made(count=500, held_out=0.3)
    assert {p.question for p in few.held_out} <= {p.question for p in many.held_out}
    assert not made(held_out=0.0).held_out


def test_a_test_split_is_examined_on_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    for split, count in (("train", 20), ("test", 5)):
        rows = [
            {"question": f"{split} {i}", "answer": f"#### {i}"} for i in range(count)
        ]
        lines(tmp_path / "gsm8k" / f"{split}.jsonl", rows)
    found = made(name="gsm8k", test="test")
    assert [p.question for p in found.train] == [f"train {i}" for i in range(20)]
    assert [p.question for p in found.held_out] == [f"test {i}" for i in range(5)]


def test_another_set_is_asked_in_the_same_way(tmp_path, monkeypatch):
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    for split in ("train", "test"):
        rows = [{"question": f"{split} {i}", "answer": f"#### {i}"} for i in range(5)]
        lines(tmp_path / "gsm8k" / f"{split}.jsonl", rows)
    mine = lines(tmp_path / "mine.jsonl", [{"question": "1+1", "answer": "2"}] * 2)
    chosen = config.Config(
        data=config.Data(count=100, instruction="steps", wrapping="paper"),
        sampling=config.Sampling(max_new=16),
    )
    own = task.make(chosen, SPEC, Bytes())

    def asked(name):
        found = task.other(chosen, name, own, SPEC)
        first = Bytes().decode(found.question(found.held_out[0]))
        assert first.startswith("User: ") and "step by step" in first
        return found.settings, [p.question for p in found.held_out]

    assert asked("gsm8k")[1] == [f"test {i}" for i in range(5)]
    assert asked(mine)[1] == ["1+1", "1+1"]
    data, questions = asked("chains-4")
    assert (data.name, data.size) == ("chains", 4) and len(questions) > 100
    assert all(question.count(".") == 5 for question in questions)
    assert asked("sums")[1] == [
        p.question for p in task.make(config.Config(), SPEC, Bytes()).held_out
    ]


def test_of_another_set_what_is_trained_on_is_not_asked(tmp_path):
    rows = [{"question": f"{i}+1", "answer": str(i + 1)} for i in range(4)]
    own, other = (
        lines(tmp_path / f"{name}.jsonl", some)
        for name, some in (("own", rows[:3]), ("other", rows))
    )
    known = made(name=own, held_out=0.0)
    found = task.other(config.Config(), other, known, SPEC)
    assert [p.question for p in found.held_out] == ["3+1"]
    with pytest.raises(Refused, match="all of it is trained on"):
        task.other(config.Config(), own, known, SPEC)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("series", {"name": "series"}),
        ("series-5", {"name": "series", "size": 5}),
        ("chains-3-4", {"name": "chains", "least": 3, "size": 4}),
        ("series-1-2-3", None),
        ("series-x", None),
        ("gsm8k", None),
        ("mgsm-zh", None),
    ],
)
def test_a_name_may_say_sizes(name, known):
    assert settings.generated(name) == known


def test_a_set_without_answers_is_nothing_to_be_examined_on(tmp_path, monkeypatch):
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    row = {"question": "q", "chosen": "a", "rejected": "b"}
    lines(tmp_path / sets.SETS["hh-rlhf"].files["test"], [row] * 2)
    with pytest.raises(Refused, match=r"evaluation\.others has hh-rlhf"):
        task.other(config.Config(), "hh-rlhf", made(), SPEC)


def test_a_question_too_long_to_be_answered_is_left_out_and_named(tmp_path):
    rows = [{"question": "q" * n, "answer": "1"} for n in (1, 12, 13, 496, 497)]
    name = lines(tmp_path / "some.jsonl", rows)
    found = made(name=name, held_out=0.0)
    assert [len(p.question) for p in found.train] == [1, 12, 13, 496]  # of 512 − 16
    assert found.left_out == [f"'{'q' * 60}': 497 tokens, at most 496 fit"]
    found = made(name=name, held_out=0.0, max_prompt=12)
    assert [len(p.question) for p in found.train] == [1, 12]
    assert len(found.left_out) == 3
    with pytest.raises(Refused, match="no problem is left to train on, of 5"):
        made(name=name, held_out=0.0, max_new=512)


def test_a_row_without_an_answer_is_left_out(tmp_path):
    rows = [{"question": "q", "answer": "1"}, {"question": "r", "answer": " "}]
    found = made(name=lines(tmp_path / "some.jsonl", rows), held_out=0.0)
    assert len(found.train) == 1 and found.left_out[0].endswith("line 2")


def test_so_many_demonstrations_are_wrong_and_no_answer_is():
    found = made(wrong=0.6, held_out=0.0, count=1000)
    wrong = [p.demonstration.split()[-1] != p.answer for p in found.train]
    assert 0.55 < sum(wrong) / len(wrong) < 0.65
    for p in found.train:
        a, b = p.question.removesuffix("=").split("+")
        assert int(p.answer) == int(a) + int(b)


def test_in_series_so_many_carries_are_forgotten():
    told = {
        wrong: made(name="series", size=3, count=300, wrong=wrong, held_out=0.0).train
        for wrong in (0.0, 0.5, 1.0)
    }
    good = [
        sum(
            arithmetic.held(p.question, p.answer, p.demonstration.split("\n"))[-1]
            for p in problems
        )
        for problems in told.values()
    ]
    assert good[0] == 300 and 90 < good[1] < 200 and good[2] < 90
    assert len({tuple(p[:2] for p in problems) for problems in told.values()}) == 1


def test_a_stream_asks_each_problem_once_before_any_twice():
    found = made()
    n = len(found.train)
    rows = [found.row(3, i) for i in range(2 * n)]
    assert sorted(rows[:n]) == sorted(rows[n:]) == list(range(n))
    assert rows[:n] != rows[n:] and rows[:n] != [found.row(4, i) for i in range(n)]
    assert found.problem(3, 5) == found.train[problem.row(3, 5, n)]


def test_examples_stand_before_a_question_with_their_demonstrations():
    found = made(name="chains", size=1, held_out=0.0, count=10, shots=2, max_new=64)
    text = Bytes().decode(found.question(found.train[3]))
    first, second, _, fourth = found.train[:4]
    assert text == (
        f"{first.question}\n{first.demonstration}\n\n"
        f"{second.question}\n{second.demonstration}\n\n{fourth.question}\n"
    )


def test_an_answer_to_be_learned_ends():
    assert made().answer("12") == [49, 50, 256]


def test_sums_are_right_as_they_stand_and_others_by_their_final_answer():
    found = made()
    four = problem.Problem("2+2=", "4")
    assert [found.said(x) for x in ("", "  ")] == [None, None]
    assert found.is_right(four, found.said(" 4 "))
    assert not found.is_right(four, found.said("5"))
    assert not found.is_right(four, None)
    found = made(name="chains", count=20)
    assert found.checker == "correct" and found.said("4") is None
    assert found.is_right(four, found.said("so it is\n#### 4.0"))
    said = ["4.0", None, "5", r"\$4", "5.0"]
    assert found.votes(four, said) == [0, None, 1, 0, 1]


def test_what_was_cut_says_only_what_it_had_finished():
    sums, chains = made(), made(name="chains", count=20)
    assert sums.said("12  2  32", has_ended=False) == "2"
    assert chains.said("so\n#### 4", has_ended=False) is None
    assert chains.said(r"\boxed{4} an", has_ended=False) == "4"


def test_votes_on_sums_are_for_the_very_words():
    four = problem.Problem("2+2=", "4")
    assert made().votes(four, ["4", "5", None, "4.0", "5"]) == [0, 1, None, 2, 1]


def test_the_paper_s_grading_reads_lists_in_math_and_the_last_number_elsewhere():
    """5 and 7, then 5 again: in MATH repeats are dropped, and 7 is last."""
    asked = problem.Problem("q", "7", r"\boxed{7}")
    text = r"\boxed{5} \boxed{7} \boxed{5}"
    known = made(name="chains", count=20)
    assert not known.is_right_in_paper(asked, text)
    of_math = known._replace(settings=config.Data(name="math"))
    assert of_math.is_right_in_paper(asked, text)


def test_without_demonstrations_there_is_nothing_to_imitate(tmp_path):
    rows = [{"question": f"q{i}", "answer": "1"} for i in range(3)]
    found = made(name=lines(tmp_path / "some.jsonl", rows), held_out=0.0)
    with pytest.raises(Refused, match="0 of its problems have a demonstration"):
        task.demonstrated(found, 64)
    assert task.demonstrated(made(), 64) == (made().train, [])


def test_programs_are_judged_where_they_run(tmp_path, monkeypatch):
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    row = {"prompt": "def f():", "test": "def check(f): ...", "entry_point": "f"}
    lines(tmp_path / "humaneval" / "test.jsonl", [row])
    found = made(name="humaneval", split="test", test="test")
    assert found.checker == "code" and found.judges_programs
    (one,) = found.held_out
    assert (one.question, one.answer) == (row["prompt"], f"{row['test']}\n\ncheck(f)\n")
    assert not made().judges_programs


@pytest.mark.parametrize(
    ("functions", "stages", "is_refused"),
    [
        ((), ("online",), True),
        (("correct", "format"), ("sft", "rft"), True),
        (("format", "think"), ("online",), False),
        ((), ("sft",), False),
    ],
)
def test_what_compares_with_answers_needs_some(functions, stages, is_refused, tmp_path):
    row = {"question": "q", "chosen": "a", "rejected": "b"}
    name = lines(tmp_path / "x" / "a.jsonl", [row])
    found = made(name=name, held_out=0.0)
    rewards = config.Rewarding(functions=functions)
    chosen = config.Config(rewards=rewards, stages=stages, data=found.settings)
    assert not found.has_answers and made().has_answers
    if is_refused:
        with pytest.raises(Refused, match=r"nobody says what is right; .* Name model"):
            task.need_answers(chosen, found)
    else:
        task.need_answers(chosen, found)
