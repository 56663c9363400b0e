"""Labelled steps: by hand on a fixed table, resumed, refused, and read again."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest

from grpo_jax import (
    cli,
    config,
    crossing,
    labeller,
    labelling,
    labels,
    line,
    programs,
    rollout,
    runs,
    stage,
    workdir,
)
from grpo_jax.data import arithmetic, labelled, problem
from grpo_jax.models import load
from grpo_jax.models.settings import Model
from grpo_jax.pool import Answers
from grpo_jax.rewards import rules
from grpo_jax.text.tokenizer import Bytes
from tests import chaos, test_processes_of_runs
from tests.runs import TINY, build

END = Bytes.stop_ids[0]
CUT = "..."  # at the end of what does not come to one
FILES = "raw.jsonl", "hard.jsonl", "soft.jsonl", "summary.json", "figure.png"


class Told(NamedTuple):
    """What a model says: three solutions, and what it goes on with behind prefixes."""

    answer: str
    solutions: list[str]
    behind: dict[str, list[str]]


TABLE = {
    "2+2": Told(
        "4",
        ["a\n#### 4", "a\nb\n#### 5", "a\n\n#### 4"],
        {"a\n": ["#### 4", "#### 5"], "a\nb\n": ["#### 5", "c\n#### 3"]},
    ),
    "3+3": Told(
        "6",
        ["c\nd\n#### 6", "#### 7", "cut" + CUT],
        {"c\n": ["#### 5", "#### 6" + CUT], "c\nd\n": ["#### 6", "#### 6"]},
    ),
    "4+4": Told("8", [" \n", "nothing" + CUT, " "], {}),
    "5+5": Told("10", ["e\n#### 10"] * 3, {"e\n": ["#### 10", "#### 1"]}),
}
# Of solutions in their order: what came of the steps before the last, and of the whole.
FOUND = {
    "2+2": [(0, [[1, 2], [1, 1]]), (1, [[1, 2], [0, 2], [0, 1]])],
    "3+3": [(0, [[0, 2], [2, 2], [1, 1]]), (1, [[0, 1]])],
    "4+4": [],
    "5+5": [(0, [[1, 2], [1, 1]])],
}
HARD = {
    "2+2": [[1, 1], [1, 0, 0]],
    "3+3": [[0, 1, 1], [0]],
    "4+4": [],
    "5+5": [[1, 1]],
}


class Speaker:
    """In place of the sampler; `asked` has what it was asked, call by call."""

    def __init__(self, table):
        self.table, self.asked, self.before = table, [], lambda: None
        self.texts = {3: Bytes(), 2: Bytes()}  # of the solver, and of the completer

    def answers(self, sampler, params, questions, key, watch, meanwhile):
        G = sampler.group_size
        known = self.texts.get(G, Bytes())
        self.asked.append(
            [(known.decode(q.tokens), q.number, q.budgets) for q in questions]
        )
        self.before()
        for question in questions[::-1]:
            text = known.decode(question.tokens)
            (asked,) = [x for x in self.table if text.startswith(x)]
            begun = text.removeprefix(asked)
            told = self.table[asked]
            said = (told.behind[begun] if begun else told.solutions)[:G]
            assert len(said) == G
            columns = sampler.settings.max_new
            yield self.group(question.number, said, columns, known)

    def group(self, number, said, columns, known):
        shape = len(said), columns
        tokens, length = np.zeros(shape, np.int32), np.zeros(len(said), int)
        ended = np.array([not text.endswith(CUT) for text in said])
        for i, text in enumerate(said):
            ids = [*known.encode(text.removesuffix(CUT)), *[END] * bool(ended[i])]
            tokens[i, : len(ids)], length[i] = ids, len(ids)
        nothing = np.zeros(shape, np.float32)
        return Answers(number, tokens, length, nothing, nothing, ended)


@pytest.fixture
def model(monkeypatch):
    """In place of `tiny`; its weights are never made."""
    model, base = Speaker(TABLE), load.find(Model(name="tiny"))
    read = load.Model(base.spec, {}, base.tokenizer, {})
    monkeypatch.setattr(rollout, "answers", model.answers)
    monkeypatch.setattr(runs, "read", lambda *args, **options: read)
    monkeypatch.setattr(programs, "publish", lambda *args, **options: {})
    return model


@pytest.fixture
def data(tmp_path):
    """With a question that is held out behind those of the table."""
    held_out = next(x for i in range(99) if problem.is_held_out(x := f"{i}+7", 0.1))
    rows = [(q, told.answer) for q, told in TABLE.items()] + [(held_out, "1")]
    assert not any(problem.is_held_out(x, 0.1) for x in TABLE)
    path = tmp_path / "data.jsonl"
    lines = (json.dumps({"question": q, "answer": f"#### {a}"}) for q, a in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def run(capsys, data, tmp_path):
    def run(*words, out="a", known=()):
        given = {"--data": data, "--out": tmp_path / out, "--solutions": 3}
        given |= {"--completions": 2, "--max-new": 24, "--batch-size": 2}
        given |= {"--instruction": "none", "--wrapping": "raw"} | dict(known)
        line = [str(x) for pair in given.items() for x in pair]
        code = cli.main(["label", "tiny", *line, *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def rows(folder):
    return {
        row["question"]: row for row in list(workdir.rows(folder / "raw.jsonl"))[1:]
    }


def by_question(path):
    found = {question: [] for question in TABLE}
    for row in workdir.rows(path):
        found[row["question"]].append(row["labels"])
    return found


def test_the_labels_of_a_table_by_hand(model, run, tmp_path):
    code, text, _ = run()
    assert code == 0
    found = rows(tmp_path / "a")
    told = {
        question: [(one["sample"], one["found"]) for one in row["solutions"]]
        for question, row in found.items()
    }
    assert told == FOUND
    assert {
        q: (row["drawn"], row["ended"], row["prefixes"]) for q, row in found.items()
    } == {
        "2+2": (3, 3, 2),
        "3+3": (3, 2, 2),
        "4+4": (3, 2, 0),
        "5+5": (3, 3, 1),
    }
    assert by_question(tmp_path / "a" / "hard.jsonl") == HARD
    soft = by_question(tmp_path / "a" / "soft.jsonl")
    assert soft["2+2"] == [[1 / 2, 1], [1 / 2, 0, 0]] and soft["3+3"][0] == [0, 1, 1]
    found = json.loads((tmp_path / "a" / "summary.json").read_text())
    counts = {"questions": 4, "drawn": 12, "ended": 10, "solutions": 5, "steps": 11}
    counts |= {"labelled": 11, "prefixes": 5, "completions": 10, "violations": 2}
    assert found.items() >= counts.items() and found["left_out"] == 0
    assert found["right"]["value"] == 3 / 5 and found["good"]["value"] == 7 / 11
    words = " ".join(text.split())
    assert "solutions that are right 60.0%" in words
    assert "5 of them different; 11 steps, 11 labelled by 10 completions" in words
    assert not any(x != "\n" and not x.isprintable() for x in text)


def test_each_prefix_is_asked_once_with_what_is_left_for_all_its_completions(
    model, run
):
    """Of a solution's 24 tokens `a` and its newline took two."""
    run("--batch-size", 4)
    solved, completed = model.asked
    assert sorted(text for text, *_ in solved) == list(TABLE)
    assert all(budgets is None for *_, budgets in solved)
    asked = {text: budgets for text, _, budgets in completed}
    assert asked == {
        "2+2a\n": [22, 22],
        "2+2a\nb\n": [20, 20],
        "3+3c\n": [22, 22],
        "3+3c\nd\n": [20, 20],
        "5+5e\n": [22, 22],
    }
    numbers = [number for _, number, _ in completed]
    places = {number: text for text, number, _ in solved}
    # Of question i, sample g and step j: (3 i + g) · 24 + j
    first = {text: 3 * 24 * number for number, text in places.items()}
    assert dict(zip(asked, numbers, strict=True)) == {
        "2+2a\n": first["2+2"],
        "2+2a\nb\n": first["2+2"] + 24 + 1,
        "3+3c\n": first["3+3"],
        "3+3c\nd\n": first["3+3"] + 1,
        "5+5e\n": first["5+5"],
    }


def test_a_prefix_is_no_question_that_is_too_long_and_no_answer_that_is_too_short():
    """What a run says of both is said of whole solutions."""
    sampling = config.Sampling(max_prompt=8, min_new=4, max_new=9, top_k=3)
    chosen = config.Config(sampling=sampling)
    run = stage.Run(chosen, None, None, None, None, None)
    found = labeller._completing(run).settings
    plain = dataclasses.replace(sampling, max_prompt=None, min_new=0)
    assert found == dataclasses.replace(chosen, sampling=plain)


def test_held_out_questions_are_not_asked_and_others_in_the_order_of_the_seed(
    model, run, tmp_path
):
    for seed in (0, 1):
        assert run("--seed", seed, out=str(seed))[0] == 0
        asked = list(rows(tmp_path / str(seed)))
        order = problem.order(seed, 0, 4)
        assert asked == [list(TABLE)[i] for i in order]
    assert run("--questions", 3, out="few")[0] == 0
    assert list(rows(tmp_path / "few")) == list(rows(tmp_path / "0"))[:3]


def test_killed_and_started_again_it_asks_only_what_is_missing(model, run, tmp_path):
    assert run(out="whole")[0] == 0
    calls = model.asked
    model.asked = []

    def fail():
        if len(model.asked) == len(calls):  # the completions of the second batch
            raise RuntimeError("a device is lost")

    model.before = fail
    code, _, error = run()
    assert code == 1 and "RuntimeError: a device is lost" in error
    raw = tmp_path / "a" / "raw.jsonl"
    kept = raw.read_text().splitlines(keepends=True)
    assert len(kept) == 3 and not (tmp_path / "a" / "hard.jsonl").exists()
    for whole_rows, half in ((2, ""), (3, ""), (3, '{"number": 2, "ques')):
        raw.write_text("".join(kept[:whole_rows]) + half)
        model.asked, model.before = [], lambda: None
        assert run()[0] == 0
        assert model.asked == (calls if whole_rows == 2 else calls[len(calls) // 2 :])
        for name in FILES:
            ours, theirs = (tmp_path / x / name for x in ("a", "whole"))
            assert ours.read_bytes() == theirs.read_bytes()
        for name in FILES[1:]:
            (tmp_path / "a" / name).unlink()
    model.asked = []
    assert run()[0] == 0 and not model.asked  # what is done is not asked again


def test_asked_to_stop_it_keeps_what_is_done_and_goes_on_later(model, run, tmp_path):
    model.before = lambda: os.kill(os.getpid(), signal.SIGTERM)
    code, _, error = run()
    assert code == 33 and error == (
        "stopped after question 2, and saved: the same command goes on\n"
    )
    assert len(rows(tmp_path / "a")) == 2
    assert run()[0] == 0 and by_question(tmp_path / "a" / "hard.jsonl") == HARD


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--completions", 1], "completions was 2, is 1"),
        (["--solutions", 2], "solutions was 3, is 2"),
        (["--max-new", 30], "sampling.max_new was 24, is 30"),
        (["--temperature", 0.5], "sampling.temperature was 0.7, is 0.5"),
        (["--seed", 5], "asked was "),
        (["--completer", "tiny"], "completer was None, is "),
        (["--batch-size", 4], "batch_size was 2, is 4"),
        (["--rows", 64], "rows was 256, is 64"),
    ],
)
def test_other_settings_are_not_mixed_into_a_file(model, run, words, message):
    run()
    code, _, error = run(*words)
    assert code == 2 and message in error and "Give another --out" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--solutions", 0], "--solutions is 0; it must be at least one"),
        (["--completions", 0], "--completions is 0; it must be at least one"),
        (["--questions", 0], "--questions is 0; it must be at least one"),
        (["--rows", 2], "--rows is 2; it must hold all 3 answers"),
        (["--temperature", 0], "sampling.temperature is 0"),
        (["--batch-size", 0], "evaluation.batch_size is 0"),
        (
            ["--max-new", 500, "--solutions", 2**21, "--rows", 2**21],
            "there are numbers",
        ),
        (["--shots", 9], "holds nothing to ask"),
        (["--completer", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_labelled_is_refused(model, run, words, message):
    code, _, error = run(*words)
    assert code == 2 and message in error and len(error.splitlines()) == 1
    assert not model.asked


def test_results_without_their_rows_are_not_written_over(model, run, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "hard.jsonl").write_text("precious")
    code, _, error = run()
    assert code == 2 and "Give another --out" in error and not model.asked
    assert (tmp_path / "a" / "hard.jsonl").read_text() == "precious"


def test_two_do_not_write_to_one_folder(model, run, tmp_path):
    with workdir.locked(tmp_path / "a"):
        code, _, error = run()
    assert code == 2 and "is being written by process" in error
    assert "give another --out" in error and not model.asked


def test_a_completion_that_could_not_be_graded_does_not_count(
    model, run, tmp_path, monkeypatch
):
    """None says that the checker cannot tell."""

    def correct(question, completion, answer):
        return None if completion.endswith("5") else float(completion.endswith(answer))

    monkeypatch.setitem(rules.RULES, "correct", correct)
    assert run()[0] == 0
    found = by_question(tmp_path / "a" / "hard.jsonl")
    # Behind `a` there is 4 alone; `#### 5` is not known as a whole either.
    assert found["2+2"] == [[1, 1], [1, 0, None]]
    soft = by_question(tmp_path / "a" / "soft.jsonl")
    assert soft["2+2"] == [[1, 1], [1, 0, None]]
    assert rows(tmp_path / "a")["2+2"]["solutions"][0]["found"][0] == [1, 1]


def test_a_checker_that_can_tell_of_few_or_fails_stops_it(model, run, monkeypatch):
    """Or what is labelled would be what it happens to understand."""
    monkeypatch.setitem(rules.RULES, "correct", lambda *given: None)
    code, _, error = run()
    assert code == 2 and "6 of 6 samples could not be scored" in error
    assert "rewards.most_unscored is 0.5" in error
    assert run("--most-unscored", 1)[0] == 0

    def fails(question, completion, answer):
        raise OSError("gone")

    monkeypatch.setitem(rules.RULES, "correct", fails)
    code, _, error = run("--most-unscored", 1, out="b")
    assert code == 2 and "6 of 6 rewards failed; rewards.most_faults is 0.1" in error
    assert run("--most-unscored", 1, "--most-faults", 1, out="b")[0] == 0


def test_where_there_is_no_room_for_a_completion_a_step_has_no_label(
    model, run, tmp_path, monkeypatch
):
    """Another completer has 6 positions: three are the question's, two those of `a` and
    its newline."""
    find = runs.find

    def short(chosen, *given):
        found = find(Model(), *given)
        if chosen.name == "short":
            spec = dataclasses.replace(found.base.spec, max_length=6)
            found = found._replace(base=found.base._replace(spec=spec))
        return found

    monkeypatch.setattr(runs, "find", short)
    assert run("--completer", "short")[0] == 0
    found = by_question(tmp_path / "a" / "hard.jsonl")
    assert found["2+2"] == [[1, 1], [1, None, 0]]
    completed = [one for call in model.asked for one in call if one[2]]
    assert {budgets[0] for *_, budgets in completed} == {1}
    assert rows(tmp_path / "a")["2+2"]["prefixes"] == 1


class Odd(Bytes):
    """Whose ids are others."""

    def encode(self, text):
        return [i + 1 for i in super().encode(text)]

    def decode(self, ids):
        return super().decode([i - 1 for i in ids if i != END])


def test_another_completer_reads_prefixes_with_its_own_tokens(
    model, run, tmp_path, monkeypatch
):
    find = runs.find

    def other(chosen, *given):
        found = find(Model(), *given)
        base = found.base._replace(tokenizer=Odd())
        return found._replace(base=base) if chosen.name == "odd" else found

    monkeypatch.setattr(runs, "find", other)
    model.texts[2] = Odd()
    assert run("--completer", "odd")[0] == 0
    assert by_question(tmp_path / "a" / "hard.jsonl") == HARD
    header = next(iter(workdir.rows(tmp_path / "a" / "raw.jsonl")))
    assert header["completer"] == {"model": "odd", "weights": None}


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_stage_reward_reads_what_is_written(model, run, tmp_path, kind):
    """All of it, and its steps stand where they stood in the solution."""
    run()
    path = tmp_path / "a" / f"{kind}.jsonl"
    found = labelled.read(str(path), "train", "steps")
    assert not found.left_out and len(found.all) == 5
    told = by_question(path)
    for one in found.all:
        assert list(one.labels) in told[one.question]
    chosen = config.Config(
        stages=("reward",),
        data=config.Data(name=str(path), held_out=0.3),
        reward=config.Reward(labels="steps"),
    )
    base = load.find(chosen.model)
    known = labels.make(chosen, base.spec, base.tokenizer)
    assert len(known.train) + len(known.held_out) == 5 and not known.left_out
    items = [labels.item(labels.reader(chosen, base.tokenizer), x) for x in found.all]
    assert items[1].labels[0] == list(found.all[1].labels)
    assert len(items[1].rows[0].ends) == len(found.all[1].steps)


@pytest.mark.parametrize("name", ["chains", "series"])
def test_of_chains_the_truth_is_told(name, model, run, tmp_path):
    """One solution is right, one slips in its first line, and one in its last."""
    stream = [arithmetic.MAKE[name](0, i, 2) for i in range(2000)]
    table = {}
    for one in stream:
        lines = one.demonstration.split("\n")
        slip = ["1 + 1 = 3", *lines[1:-1], "#### 0"]
        late = [*lines[:-1], "#### 0"]
        behind = {f"{lines[0]}\n": [lines[-1], "?"], "1 + 1 = 3\n": ["?", "?"]}
        behind |= {"\n".join(lines[:2]) + "\n": [lines[-1]] * 2}
        behind |= {"\n".join(slip[:2]) + "\n": [lines[-1], "?"]}
        solutions = ["\n".join(x) for x in (lines, slip, late)]
        table[one.question] = Told(one.answer, solutions, behind)
    model.table = table
    more = {"--data": name, "--max-new": 60, "--questions": 4}
    code, text, _ = run(known=more)
    assert code == 0
    found = json.loads((tmp_path / "a" / "summary.json").read_text())
    truth = found["truth"]
    # Of three solutions of three steps all labels but one: `slip` is mended behind its
    # first line. Before the last, 4 true steps and 2 false ones of each question.
    assert truth["all"]["agreement"]["of"] == 4 * 9
    assert truth["all"]["agreement"]["value"] == 8 / 9
    assert truth["before_last"]["good_of_true"]["value"] == 1
    assert truth["before_last"]["good_of_false"]["value"] == 1 / 2
    # True ones are 1/2, 1, 1/2, 1 and false ones 0 and 1/2: of 8 pairs 7, ties as half.
    assert truth["before_last"]["auc"]["value"] == 7 / 8
    assert found["violations"] == 4 and "that are the truth 88.9%" in " ".join(
        text.split()
    )


def test_of_generated_problems_there_are_as_many_as_one_asks_for():
    words = ["tiny", "--data", "series-3-4", "--questions", "3000"]
    given = line.parse("label", labelling.Options, words)
    chosen = labelling._chosen(given)
    assert len(chosen.solver.problems) == 3000
    signs = {sum(map(p.question.count, "+-")) for p in chosen.solver.problems}
    assert signs == {3, 4}


def test_several_processes_share_questions(model, run, tmp_path, monkeypatch):
    """The first of two asks every second one, and has the other's rows told."""
    assert run(out="whole")[0] == 0
    whole, listed = rows(tmp_path / "whole"), crossing.listed
    others = []

    def tell(given):
        numbers = {row["number"] for row in given}
        batch = {n for n in whole_numbers if n // 2 in {x // 2 for x in numbers}}
        others.append(numbers)
        return listed(given) + [by_number[n] for n in batch - numbers]

    by_number = {row["number"]: row for row in whole.values()}
    whole_numbers = set(by_number)
    monkeypatch.setattr(crossing, "place", lambda: (0, 2))
    monkeypatch.setattr(crossing, "listed", tell)
    model.asked = []
    assert run()[0] == 0
    assert others == [set(), {0}, {2}]
    for name in FILES:
        ours, theirs = (tmp_path / x / name for x in ("a", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()


# With a model that draws ----------------------------------------------------------------
# Of 257 ids that are equally likely, a tenth end an answer, and a quarter a line.
SPOKEN = """
from grpo_jax.text.tokenizer import Bytes
Bytes.stop_ids = tuple(range(230, 257))
Bytes.decode = lambda self, ids: "".join(
    "" if i >= 230 else "\\n" if i % 4 == 0 else chr(97 + i % 3) for i in ids
)
"""
DRAWN = {"--solutions": 4, "--completions": 3, "--questions": 6, "--max-new": 8}
DRAWN |= {"--temperature": 1.0, "--data": "sums", "--rows": 16}


@pytest.fixture
def drawing(monkeypatch):
    """A model like `tiny`, and smaller."""
    find, small = runs.find, build(config.Config, TINY).model
    monkeypatch.setattr(runs, "find", lambda chosen, *given: find(small, *given))
    for name in ("decode", "stop_ids"):
        monkeypatch.setattr(Bytes, name, getattr(Bytes, name))  # put back afterwards
    exec(SPOKEN)


def test_what_is_drawn_depends_on_no_batch(drawing, run, tmp_path):
    found = []
    for size, decoded in ((2, 8), (6, 64)):
        known = DRAWN | {"--batch-size": size, "--rows": decoded}
        assert run(known=known, out=str(size))[0] == 0
        found.append(rows(tmp_path / str(size)))
    assert found[0] == found[1]
    kept = [one for row in found[0].values() for one in row["solutions"]]
    assert len(kept) > 6 and sum(len(one["steps"]) for one in kept) > 12


PROGRAM = SPOKEN + "\nimport sys\nfrom grpo_jax import cli\nsys.exit(cli.main())\n"


def started(folder, cache):
    words = [str(x) for pair in (DRAWN | {"--batch-size": 1}).items() for x in pair]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "label", "tiny", *words, "--out", str(folder)],
        env=os.environ | chaos.cached(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_for_good_it_comes_out_the_same(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    program = started(whole, tmp_path)
    said = program.communicate(timeout=300)[0]
    assert program.returncode == 0, said
    for lines in (2, 4):
        program, raw = started(folder, tmp_path), folder / "raw.jsonl"
        deadline = time.monotonic() + 300
        while not raw.exists() or raw.read_text().count("\n") < lines:
            assert program.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        program.kill()
        assert program.communicate() and program.returncode == -signal.SIGKILL
    program = started(folder, tmp_path)
    said = program.communicate(timeout=300)[0]
    assert program.returncode == 0, said
    for name in FILES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_processes_of_a_job_label_together(tmp_path):
    """And find the same; of them the first alone writes and speaks."""
    words = ["label", "tiny"]
    words += [str(x) for pair in (DRAWN | {"--batch-size": 4}).items() for x in pair]
    found = []
    for of in (1, 2):
        line = [*words, "--out", str(tmp_path / str(of))]
        job = test_processes_of_runs.program(line, of, tmp_path, PROGRAM)
        said = test_processes_of_runs.done(job)
        assert "6 questions, 24 solutions drawn" in said[0]
        assert "questions" not in "".join(said[1:])
        found.append([(tmp_path / str(of) / name).read_bytes() for name in FILES])
    assert found[0] == found[1]
