"""Stages that learn from texts: which texts, in which order, however often killed."""

import concurrent.futures
import dataclasses
import json
import threading
import time

import jax
import numpy as np
import pytest

from grpo_jax import (
    config,
    crossing,
    learner,
    offline,
    prng,
    programs,
    rollout,
    sharding,
    stage,
    stages,
    task,
)
from grpo_jax.data import problem
from grpo_jax.data.problem import Problem
from grpo_jax.losses import statistics
from grpo_jax.models.settings import Model
from grpo_jax.pool import Answers
from grpo_jax.rewards.grading import Grader
from grpo_jax.section import Refused
from tests.models import examples

SPEC = dataclasses.replace(examples.SPECS["llama"], vocab=14, layers=1, max_length=32)
END = 13


class Digits:
    """Where 12 is one token, and 1 2 are two tokens of the same text."""

    size, start_ids, stop_ids, has_template = 14, (), (END,), False
    texts = (*"0123456789+=", "12", "")

    def encode(self, text):
        cut = text.replace("12", "x")
        return [12 if c == "x" else self.texts.index(c) for c in cut]

    def decode(self, ids):
        return "".join(self.texts[i] for i in ids)

    def chat(self, messages):
        raise NotImplementedError

    def save(self, folder):
        raise NotImplementedError


PROBLEMS = [
    Problem(f"{a}+{b}=", str(a + b), str(a + b))
    for a in range(5, 9)
    for b in range(4, 9)
]
SAMPLES = 8


def marked(question, completion, answer):
    """A completion with a + in it cannot be judged."""
    return None if "+" in completion else float(completion.lstrip("0") == answer)


def run_of(name, problems=PROBLEMS, reward=marked, **options):
    options = {"steps": 9, "batch_size": 4, "learning_rate": 0.03} | options
    if name != "sft":
        options = {"questions": 11, "samples": SAMPLES} | options
    kinds = {"sft": config.SFT, "rft": config.RFT, "dpo": config.DPO}
    chosen = config.Config(
        stages=(name,),
        model=Model(),
        rewards=config.Rewarding(functions=("marked",)),
        sampling=config.Sampling(max_new=16, temperature=1.0),
        training=config.Training(batch_size=4),
        **{name: kinds[name](**options)},
    )
    known = task.Task(list(problems), [], [], chosen.data, Digits())
    grader = Grader(chosen.rewards, "exact", {"marked": reward})
    mesh = sharding.mesh(1, 1, 1, jax.local_devices()[:1])
    return stage.Run(chosen, SPEC, known, grader, mesh, prng.root(chosen.seed))


class Stub:
    """Samples without a model: the same for a question whenever it is asked."""

    def __init__(self):
        self.asked = []

    def answers(self, sampler, params, questions, key, watch, meanwhile):
        for question in reversed(questions):
            self.asked.append(question.number)
            yield self.group(question)

    def group(self, question):
        a, _, b, _ = question.tokens
        right = [int(c) for c in str(a + b)]
        rows = [
            [8, 8, END],  # wrong
            [*right, END],
            [*right, 5],  # not ended, or it would be wrong
            [*right, END],  # right again
            [0, *right, END],  # right in another way
            [10, END],  # cannot be judged
            [8, 9, END],  # wrong, once more
            [0, 0, 8, END],  # and in a third way: no right one is left for it
        ]
        if question.number % 5 == 4:
            rows[1:5] = [[8, 8, END]] * 4  # nothing is right
        length = np.array([len(row) for row in rows])
        tokens = np.array([row + [0] * (16 - len(row)) for row in rows])
        logp = np.zeros(tokens.shape, np.float32)
        ended = np.array([row[-1] == END for row in rows])
        return Answers(question.number, tokens, length, logp, logp, ended)


@pytest.fixture
def stub(monkeypatch):
    stub = Stub()
    monkeypatch.setattr(rollout, "answers", stub.answers)
    monkeypatch.setattr(stage, "published", lambda *_: {})
    return stub


def prepared(folder, name="rft", host=None, **options):
    found = stages.KINDS[name](run_of(name, **options), 0)
    found.prepare(stage.State(None, host or {}), folder, lambda: None)
    return found


def asked_of(run, count=11):
    """The problems that are asked, with the tokens of question and answer."""
    for number in range(count):
        one = run.task.problem(run.settings.seed, number)
        tokens = [int(c) for c in one.answer]
        yield number, run.task.question(one), tokens


def test_rft_learns_the_different_right_answers_that_ended(tmp_path, stub):
    """As they were drawn: 1 2 stays two tokens, though the text is one."""
    found = prepared(tmp_path)
    expected = []
    for number, question, right in asked_of(found.run):
        if number % 5 != 4:
            expected += [(question, [*right, END]), (question, [0, *right, END])]
    assert found.items == expected and len(expected) == 18
    assert [1, 2, END] in [text.answer for text in found.items]
    assert sorted(stub.asked) == list(range(11))


def test_dpo_learns_pairs_of_which_each_answer_is_in_one(tmp_path, stub):
    found = prepared(tmp_path, "dpo")
    expected = []
    for number, question, right in asked_of(found.run):
        if number % 5 != 4:
            expected.append((question, [*right, END], [8, 8, END]))
            expected.append((question, [0, *right, END], [8, 9, END]))
    assert found.items == expected


def test_no_question_is_asked_twice(tmp_path, stub):
    prepared(tmp_path, problems=PROBLEMS[:7])
    assert sorted(stub.asked) == list(range(7))


def test_the_file_says_what_was_learned(tmp_path, stub):
    prepared(tmp_path, "dpo")
    row = json.loads((tmp_path / "dpo-0.jsonl").read_text().splitlines()[0])
    assert row["number"] == 0 and row["question"] in [p.question for p in PROBLEMS]
    (right, _), (padded, _) = row["answers"]
    assert padded == f"0{right}" and row["answers"][1][1] == "89"


@pytest.mark.parametrize("name", ["rft", "dpo"])
def test_killed_anywhere_it_goes_on_to_the_same_file(name, tmp_path, stub):
    whole = prepared(tmp_path, name)
    path = tmp_path / f"{name}-0.jsonl"
    text = path.read_bytes()
    ends = [i + 1 for i, c in enumerate(text) if c == ord("\n")]
    assert len(ends) == 11
    for cut in {0, *ends, *(end + 9 for end in ends[:-1]), len(text) - 1}:
        stub.asked.clear()
        path.write_bytes(text[:cut])
        again = prepared(tmp_path, name)
        assert path.read_bytes() == text and again.items == whole.items
        there = sum(end <= cut for end in ends)
        # Questions are asked four at once, and draws of one group go together.
        first = 11 if there == 11 else there // 4 * 4
        assert sorted(stub.asked) == list(range(first, 11))


def test_what_the_policy_said_before_is_not_asked_of_another(tmp_path, stub):
    found = prepared(tmp_path)
    path = tmp_path / "rft-0.jsonl"
    begun = {"items": len(found.items)}
    stub.asked.clear()
    assert prepared(tmp_path, host=begun).items == found.items
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Refused, match=r"rft-0.jsonl has 10 of 11 questions\. .* back"):
        prepared(tmp_path, host=begun)
    assert not stub.asked


@pytest.mark.parametrize("name", ["rft", "dpo"])
def test_nothing_to_learn_is_refused(name, tmp_path, stub):
    with pytest.raises(Refused, match=f"{name}: of 11 questions with 8 samples each"):
        prepared(tmp_path, name, reward=lambda *_: 0.0)


def test_rewards_that_fail_stop_it(tmp_path, stub):
    def broken(question, completion, answer):
        raise OSError("no judge")

    with pytest.raises(Refused, match=r"32 of 32 rewards failed; .* no judge"):
        prepared(tmp_path, reward=broken)


class Processes:
    """Threads that tell each other what processes would."""

    def __init__(self, monkeypatch, count):
        self.own, self.count, self.said = threading.local(), count, {}
        self.barrier = threading.Barrier(count, timeout=60)
        monkeypatch.setattr(crossing, "place", lambda: (self.own.number, count))
        monkeypatch.setattr(crossing, "told", self.told)

    def told(self, text):
        self.said[self.own.number] = text
        self.barrier.wait()
        found = [self.said[i] for i in range(self.count)]
        self.barrier.wait()
        return found

    def each(self, function):
        def one(number):
            self.own.number = number
            return function(number)

        with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(one, range(self.count)))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_questions_and_learn_the_same(
    count, tmp_path, stub, monkeypatch
):
    """Only the first has a file. Of the last three questions each has one or two."""
    alone = prepared(tmp_path / "alone")
    stub.asked.clear()
    processes = Processes(monkeypatch, count)
    for _ in range(2):  # and again, when all is there
        found = processes.each(lambda i: prepared(tmp_path / str(i)).items)
        assert found == [alone.items] * count
    assert sorted(stub.asked) == list(range(11))
    file = (tmp_path / "0" / "rft-0.jsonl").read_bytes()
    assert file == (tmp_path / "alone" / "rft-0.jsonl").read_bytes()
    assert not (tmp_path / "1").exists()


def test_what_processes_tell_comes_back():
    assert crossing.told("é") == ["é"] and crossing.told("") == [""]


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_follow_the_order_of_the_data(processes, monkeypatch):
    """Step by step from the stage's own first, each process a share of every batch."""
    run, seen = run_of("sft"), []
    one = stages.SFT(run, 100)
    assert one.steps == 9 and one.items == PROBLEMS
    monkeypatch.setattr(one, "learn", lambda _, learned, laid: (learned + 1, {}))

    def lay(run, given, loss_mean):
        seen.append(given)

    monkeypatch.setattr(offline, "lay_texts", lay)
    for number in (100, 101, 105, 108):
        seen.clear()
        for process in range(processes):
            monkeypatch.setattr(crossing, "place", lambda: (process, processes))  # noqa: B023
            state, found = one.step(stage.State(number, {}), number, lambda: None)
            assert state == (number + 1, {"items": 20})
            assert 0 <= time.perf_counter() - found.since < 60
        rows = [problem.row(0, 4 * (number - 100) + i, 20) for i in range(4)]
        texts = [PROBLEMS[row] for row in rows]
        texts = [
            (run.task.question(p), [*Digits().encode(p.answer), END]) for p in texts
        ]
        assert seen == [texts[i::processes] for i in range(processes)]


def test_demonstrations_that_are_too_long_are_left_out():
    long = Problem("1+2=", "3", "0" * 27 + "3")  # 4 + 28 + 1
    fits = long._replace(demonstration="0" * 26 + "3")
    silent = long._replace(demonstration=None)
    run = run_of("sft", [long, silent, fits, *PROBLEMS])
    found = stages.SFT(run, 0)
    assert found.items == [fits, *PROBLEMS]
    (told,) = run.task.left_out
    assert (
        "the demonstration of '1+2=': 33 tokens with its question, at most 32" in told
    )
    rule = "data.name is 'sums'; {} of its problems have a demonstration, 0 .* 32 tok"
    for some, count in (([long, silent], 1), ([silent], 0)):
        with pytest.raises(Refused, match=rule.format(count) + ".*data.demonstration"):
            stages.SFT(run_of("sft", some), 0)


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_a_stage_learns(name, tmp_path):
    """A model of random numbers, asked and taught for real: nine steps of one batch."""
    run = run_of(
        name, batch_size=64, reward=lambda q, completion, a: float("3" in completion)
    )
    found = stages.KINDS[name](run, 0)
    params = programs.copy(examples.params_of(SPEC))
    state = found.begin(params, jax.random.key(1))
    found.prepare(state, tmp_path, lambda: None)
    assert len(found.items) > 4
    losses = []
    for number in range(found.steps):
        with jax.transfer_guard("disallow"):
            state, told = found.step(state, number, lambda: None)
        losses.append(float(statistics.values(told.measured)["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    again = stages.KINDS[name](run, 0)
    again.prepare(state, tmp_path, lambda: None)
    assert again.items == found.items
    learner.check_state(again.learner, state.learned)
