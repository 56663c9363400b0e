"""How often answers are right: by hand on a fixed table, resumed, and in pairs."""

import json
import os
import signal
from typing import NamedTuple

import jax
import numpy as np
import pytest

from grpo_jax import (
    accuracy,
    asking,
    cli,
    config,
    evaluate,
    inquiry,
    programs,
    runs,
    sharding,
    stage,
    task,
)
from grpo_jax.data import sets
from grpo_jax.models import load
from grpo_jax.models.settings import Model
from grpo_jax.pool import Answers
from grpo_jax.rewards.grading import Graded
from grpo_jax.text.tokenizer import Bytes
from tests import test_runs


class Told(NamedTuple):
    """What a model says: its likeliest answer, whether that ended, and four draws."""

    answer: str  # the right one
    likeliest: str
    has_ended: bool
    drawn: list[str]


TABLE = {
    "2+2": Told("4", "#### 4", True, ["#### 4", "#### 4.0", "\\boxed{4}", "#### 5"]),
    "3+4": Told("7", "#### 6", True, ["dunno", "#### 7", "", "six"]),
    "1/2": Told(
        "1/2",
        "\\boxed{0.5} and",
        False,  # so that its draws are cut as well: a last word is unfinished
        ["\\boxed{.5}\nor 1/2", "\\boxed{1/2}", "#### 3\n", "\\boxed{3} or 1/2"],
    ),
    "9+0": Told("9", "dunno", True, ["#### 8"] * 4),
}
WORSE = TABLE | {
    "2+2": TABLE["2+2"]._replace(likeliest="#### 3", drawn=["#### 5"] * 4),
    "1/2": TABLE["1/2"]._replace(likeliest="#### 3"),
    "9+0": TABLE["9+0"]._replace(likeliest="#### 9"),
}
EXPECTED = {
    "accuracy": 1 / 2,
    "accuracy_paper": 1 / 2,
    "length": (6 + 6 + 15 + 5) / 4,  # characters, as bytes have it
    "truncated": 1 / 4,
    "format": 3 / 4,
    # Of 4 draws 3, 1, 2 and 0 are right: 1 − C(4 − c, k) / C(4, k)
    "pass@1": (3 / 4 + 1 / 4 + 2 / 4) / 4,
    "pass@2": (1 + 1 / 2 + 5 / 6) / 4,
    "pass@4": 3 / 4,
    # Of pairs, 3 hold two fours and 3 a four and a five, which share the victory; 3 of
    # 6 hold the seven, which silence does not beat; one half, or a tie in 4 of 6.
    "maj@1": (3 / 4 + 1 / 4 + 2 / 4) / 4,
    "maj@2": ((3 + 3 / 2) / 6 + 3 / 6 + (1 + 4 / 2) / 6) / 4,
    "maj@4": (1 + 1 + 1 / 2) / 4,
}


class Speaker:
    """Answers from a table in place of a model; `asked` has the batches it was asked."""

    def __init__(self, table):
        self.table, self.asked, self.before = table, [], lambda: None

    def ask(self, asker, params, problems, numbers, key, meanwhile):
        G = asker.sampler.group_size
        if G == 1:
            self.asked.append([p.question for p in problems])
            self.before()
        said = [self.table[p.question] for p in problems]
        texts = [[s.likeliest] if G == 1 else s.drawn for s in said]
        groups = [
            Answers(
                number=i,
                tokens=np.zeros((G, 20), np.int32),
                length=np.array([len(x.encode()) for x in row], np.int32),
                has_ended=np.full(len(row), s.has_ended),
                logp=np.zeros((G, 20), np.float32),
                plain=np.zeros((G, 20), np.float32),
            )
            for i, row, s in zip(numbers, texts, said, strict=True)
        ]
        graded = Graded(np.zeros((len(problems), G, 1)), [])
        return asking.Asked(problems, [], groups, texts, graded)


@pytest.fixture
def model(monkeypatch):
    """In place of `tiny`; its weights are never made."""
    model, base = Speaker(TABLE), load.find(Model(name="tiny"))
    read = load.Model(base.spec, {}, base.tokenizer, {})
    monkeypatch.setattr(asking, "ask", model.ask)
    monkeypatch.setattr(runs, "read", lambda *args, **options: read)
    monkeypatch.setattr(programs, "publish", lambda *args, **options: {})
    return model


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [{"question": q, "answer": f"#### {s.answer}"} for q, s in TABLE.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(capsys, data, tmp_path):
    def run(*words, name="tiny", out="a.json"):
        line = ["evaluate", name, "--data", str(data), "--out", str(tmp_path / out)]
        code = cli.main([*line, *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_numbers_of_a_table_by_hand(model, run, tmp_path):
    code, text, _ = run("--k", 4)
    found = json.loads((tmp_path / "a.json").read_text())
    assert code == 0 and found["questions"] == 4 and found["left_out"] == 0
    metrics = found["metrics"]
    for name, value in EXPECTED.items():
        np.testing.assert_allclose(metrics[f"eval/{name}"], value, 1e-12)
    low, high = accuracy.wilson(2, 4)[1:]
    assert metrics["eval/accuracy_low"] == low
    assert metrics["eval/accuracy_high"] == high
    of_questions = np.array([3 / 4, 1 / 4, 2 / 4, 0])
    low, high = accuracy.bootstrap(of_questions, 0)[1:]
    assert (metrics["eval/pass@1_low"], metrics["eval/pass@1_high"]) == (low, high)
    words = " ".join(text.split())
    assert "accuracy 50.0% 15.0% to 85.0%" in words and "62.5%" in words
    assert "accuracy, as in the paper 50.0% 15.0% to 85.0%" in words
    assert "8.0 tokens, 25.0% are cut short, 75.0% give an answer" in text
    assert not any(x != "\n" and not x.isprintable() for x in text)


def test_only_the_likeliest_answer_where_none_are_drawn(model, run, tmp_path):
    assert run()[0] == 0
    metrics = json.loads((tmp_path / "a.json").read_text())["metrics"]
    assert metrics["eval/accuracy"] == 1 / 2 and not [k for k in metrics if "@" in k]


@pytest.mark.parametrize("samples", [1, 6, 8])
def test_k_is_every_power_of_two_and_the_number_of_samples(samples):
    assert evaluate.ks(samples) == {1: [1], 6: [1, 2, 4, 6], 8: [1, 2, 4, 8]}[samples]


def test_killed_and_started_again_it_asks_only_what_is_missing(model, run, tmp_path):
    words = ["--k", 4, "--batch-size", 2]
    assert run(*words, out="whole.json")[0] == 0
    assert model.asked == [["2+2", "3+4"], ["1/2", "9+0"]]
    model.asked = []

    def fail():
        if len(model.asked) == 2:
            raise RuntimeError("a device is lost")

    model.before = fail
    code, _, error = run(*words)
    assert code == 1 and "RuntimeError: a device is lost" in error
    rows = tmp_path / "a.jsonl"
    assert rows.read_text().count("\n") == 3 and not (tmp_path / "a.json").exists()
    kept = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(kept[:2]) + kept[2][:30])  # killed while it wrote a row
    model.asked, model.before = [], lambda: None
    assert run(*words)[0] == 0
    assert model.asked == [["2+2", "3+4"], ["1/2", "9+0"]]  # batches as they were
    for suffix in ("json", "jsonl"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        assert (tmp_path / f"a.{suffix}").read_bytes() == whole


def test_what_is_done_is_not_asked_again(model, run, tmp_path, monkeypatch):
    run("--k", 4)
    before = (tmp_path / "a.json").read_bytes()
    model.asked = []
    code, text, _ = run("--k", 4)
    assert code == 0 and not model.asked and "62.5%" in text
    assert (tmp_path / "a.json").read_bytes() == before


def test_asked_to_stop_it_keeps_what_is_done_and_goes_on_later(model, run):
    model.before = lambda: os.kill(os.getpid(), signal.SIGTERM)
    code, _, error = run("--batch-size", 3)
    assert code == 33 and error == (
        "stopped after question 3, and saved: the same command goes on\n"
    )
    assert run("--batch-size", 3)[0] == 0  # of the last batch nothing is left to stop
    assert model.asked == [["2+2", "3+4", "1/2"], ["9+0"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--k", 2], "samples was 4, is 2"),
        (["--k", 4, "--max-new", 9], "sampling.max_new was 256, is 9"),
        (["--k", 4, "--wrapping", "raw"], "data.wrapping was 'paper', is 'raw'"),
        (["--k", 4, "--questions", 3], "asked was "),
    ],
)
def test_other_settings_are_not_mixed_into_a_file(model, run, words, message):
    run("--k", 4)
    code, _, error = run(*words)
    assert code == 2 and f"holds other answers: {message}" in error
    assert "Give another --out" in error


def test_two_are_compared_question_by_question(model, run, tmp_path):
    model.table = WORSE
    assert run("--k", 4, out="worse.json")[0] == 0
    model.table = TABLE
    code, text, _ = run("--k", 2, "--against", tmp_path / "worse.json")
    assert code == 0
    found = json.loads((tmp_path / "a.json").read_text())["compared"]
    assert (found["questions"], found["only_ours"], found["only_theirs"]) == (4, 2, 1)
    assert found["mcnemar_p"] == 1.0  # of 3, 2 and more, or 1 and fewer
    assert found["right"] == 1 / 4 and found["pass@1"] == (1 / 4 + 2 / 4) / 4
    gain = accuracy.bootstrap(np.array([1.0, 0, 1, -1]), 0)
    names = [f"right_gain{suffix}" for suffix in ("", "_low", "_high")]
    assert [found[name] for name in names] == list(gain)
    np.testing.assert_allclose(found["pass@1_gain"], 3 / 16, 1e-12)
    assert "pass@4" not in found  # of two draws there is none
    assert "2 only the first got right, 1 only the other: p = 1 (McNemar)" in text


def test_another_model_is_asked_the_same(model, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text, _ = run("--against", "tiny")
    assert code == 0 and model.asked == [list(TABLE)] * 2 and "p = 1 (McNemar)" in text
    (other,) = (tmp_path / "runs/evaluations").glob("tiny-data-*.jsonl")
    assert other.read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_only_questions_in_common_are_compared(model, run, tmp_path):
    run(out="few.json")
    path = tmp_path / "few.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    run("--against", tmp_path / "few.json")
    found = json.loads((tmp_path / "a.json").read_text())["compared"]
    assert found["questions"] == 3 and found["right"] == 1 / 3
    assert found["only_ours"] == found["only_theirs"] == 0
    path.write_text(lines[0])
    code, _, error = run("--against", tmp_path / "few.json")
    assert code == 2 and "no question in common" in error


def test_examples_are_not_asked(model, run):
    assert run("--shots", 1)[0] == 0
    assert model.asked == [["3+4", "1/2", "9+0"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.txt"], "--out is a.txt; it must end in .json"),
        (["--against", "nothing.json"], "nothing.jsonl holds no answers of"),
        (["--questions", "0"], "evaluation.questions is 0; it must be positive"),
        (["--batch-size", "0"], "evaluation.batch_size is 0; it must be positive"),
        (["--k", "-1"], "evaluation.samples is -1"),
        (["--temperature", "0.5"], "evaluation.temperature is 0.5; evaluation.samples"),
        (["--max-new", "0"], "sampling.max_new is 0"),
        (["--shots", "9"], "holds nothing to ask"),
        (["--data", "nothing.jsonl"], "nothing.jsonl is not there"),
        (["--data", "sums", "--split", "test"], "which has no splits"),
        (["--mesh", "1", "3", "1"], "there are 4 devices"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    model, run, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*words)
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert not model.asked


def test_what_is_left_out_is_counted_once(model, run, tmp_path, data):
    long, empty = {"question": "1" * 2000}, {"question": ""}
    lines = [json.dumps(row | {"answer": "1"}) + "\n" for row in (long, empty)]
    data.write_text(data.read_text() + "".join(lines))
    assert run()[0] == 0 and model.asked == [list(TABLE)]
    assert json.loads((tmp_path / "a.json").read_text())["left_out"] == 2


def test_a_result_without_its_rows_is_not_written_over(model, run, tmp_path):
    (tmp_path / "a.json").write_text("precious")
    code, _, error = run()
    assert code == 2 and "Give another --out" in error
    assert (tmp_path / "a.json").read_text() == "precious"


def test_a_model_has_no_data_of_its_own(capsys):
    assert cli.main(["evaluate", "tiny"]) == 2
    assert "tiny is no run, which has data. Give --data." in capsys.readouterr().err


def test_a_run_is_asked_as_it_was_while_it_was_trained(tmp_path, capsys):
    """By its own data, prompts and draws: the numbers of a row of its metrics."""
    settings = test_runs.EXAMINED
    test_runs.written(tmp_path, settings, [None])
    words = ["evaluate", str(tmp_path), "--k", "2"]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    (path,) = (tmp_path / "evaluations").glob("sums-1-*.json")
    found = json.loads(path.read_text())
    base = runs.find(Model(name=str(tmp_path))).base
    known = task.make(settings, base.spec, base.tokenizer)
    mesh = sharding.mesh(1, 4, 1)
    _, trained = test_runs.policy(tmp_path, mesh=mesh)
    run = stage.Run(
        settings,
        base.spec,
        known,
        None,
        mesh,
        jax.random.key(settings.seed),
    )
    examiner = evaluate.Examiner(run, known.held_out)
    params = programs.publish(trained.params, "float32", run.mesh)
    expected = evaluate.summary(examiner.ks, examiner.examine(params))
    assert found["metrics"] == expected and found["checkpoint"] == 1
    assert expected["eval/length"] > 0 and f"{len(known.held_out)} questions" in text
    rows = path.with_suffix(".jsonl").read_text().splitlines()
    assert len(rows) == 1 + len(known.held_out)
    assert json.loads(rows[0])["seed"] == settings.seed == 3


class Programmer(Speaker):
    """What it says is graded as rewards are."""

    def ask(self, asker, params, problems, numbers, key, meanwhile):
        asked = super().ask(asker, params, problems, numbers, key, meanwhile)
        ended = [group.has_ended for group in asked.groups]
        begun = list(map(asker.grader.submit, problems, asked.texts, ended))
        return asked._replace(graded=asker.grader.collect(begun))


PROGRAMS = {
    "def one():\n": Told(
        "1", "    return 1", True, ["    return 1"] * 3 + ["    pass"]
    ),
    "def two():\n": Told(
        "2", "    return 3", True, ["def two(): return 2"] + ["?"] * 3
    ),
    "def six():\n": Told("6", "It is 6.", True, ["    return 5"] * 4),
}


def test_programs_are_right_if_they_pass_and_have_no_vote(
    model, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(asking, "ask", Programmer(PROGRAMS).ask)
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    (tmp_path / "humaneval").mkdir()
    rows = [
        {
            "prompt": prompt,
            "test": f"def check(f): assert f() == {told.answer}",
            "entry_point": prompt[4:7],
        }
        for prompt, told in PROGRAMS.items()
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "humaneval" / "test.jsonl").write_text(lines)
    out = str(tmp_path / "a.json")
    line = ["evaluate", "tiny", "--data", "humaneval", "--k", "4", "--out", out]
    line += ["--max-new", "16"]
    assert cli.main(line) == 0
    metrics = json.loads((tmp_path / "a.json").read_text())["metrics"]
    assert metrics["eval/accuracy"] == pytest.approx(1 / 3)
    assert metrics["eval/format"] == pytest.approx(2 / 3)  # that are Python
    # Of 4 draws 3, 1 and 0 pass.
    assert metrics["eval/pass@1"] == pytest.approx((3 / 4 + 1 / 4) / 3)
    assert metrics["eval/pass@2"] == pytest.approx((1 + 1 / 2) / 3)
    assert metrics["eval/pass@4"] == pytest.approx(2 / 3)
    said = capsys.readouterr().out
    assert "pass@4" in said and "maj@" not in said + " ".join(metrics)


def test_a_model_with_a_template_is_asked_for_functions_and_others_go_on_with_them():
    text = Bytes()
    assert inquiry._usual("humaneval", text) == config.Data()
    text.has_template = True
    asked = inquiry._usual("humaneval", text)
    assert (asked.instruction, asked.wrapping) == ("function", "chat")
    assert inquiry._usual("gsm8k", text).instruction == "steps"
