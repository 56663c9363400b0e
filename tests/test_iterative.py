"""Rounds of a policy and its judge: who begins with whom, and what a kill leaves."""

import dataclasses
import shutil
import signal

import jax
import numpy as np
import pytest

from grpo_jax import (
    config,
    display,
    iterative,
    own_answers,
    run,
    runs,
    stopping,
    task,
    workdir,
)
from grpo_jax.data import labelled
from grpo_jax.models import load
from grpo_jax.section import Refused
from tests import runs as small

SMALL = small.TINY | {
    "data.size": 1,
    "data.count": 80,
    "data.held_out": 0.2,
    "sampling.max_new": 8,
    "sampling.temperature": 1.0,
    "algorithm.group_size": 4,
    "algorithm.beta": 0.1,
    "training.steps": 2,
    "training.batch_size": 4,
    "stages": ("sft", "online"),
    "sft.steps": 2,
    "sft.batch_size": 8,
    "reward.steps": 2,
    "reward.batch_size": 4,
    "reward.learning_rate": 0.01,
    "rewards.functions": ("last", "model"),
    "iterative.rounds": 1,
    "iterative.questions": 6,
    "iterative.samples": 3,
    "optimizer.learning_rate": 0.01,
    "evaluation.questions": 4,
}


def settings(**changed):
    return small.build(config.Config, SMALL | changed)


def train(chosen, folder):
    return iterative.train(chosen, folder, screen=display.Screen(is_quiet=True))


def left(folder):
    """What stays of all runs, but for how long they took."""
    paths = sorted(folder.rglob(workdir.METRICS))
    rows = {str(p.relative_to(folder)): small.rows(p.parent) for p in paths}
    names = ["answers.jsonl", *(p.name for p in folder.glob("mix-*"))]
    return rows, {name: (folder / name).read_text() for name in names}


def same(x, y):
    return all(map(np.array_equal, *map(jax.tree.leaves, (x, y))))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "rounds"
    return folder, train(settings(), folder)


def test_each_run_goes_on_from_the_one_before(made):
    folder, result = made

    def of(name):
        return workdir.begun(folder / name)

    def model(name):
        return of(name)["config"]["model"]["name"]

    def judge(name):
        return of(name)["config"]["reward_model"]["name"]

    at = {x: str(folder / x) for x in ("start", "judge-0", "judge-1", "policy-0")}
    assert model("start") == "tiny" and model("policy-0") == at["start"]
    assert model("judge-0") == at["start"] and model("judge-1") == at["judge-0"]
    assert judge("policy-0") == at["judge-0"] and judge("policy-1") == at["judge-1"]
    assert of("policy-0")["judged_by"] != of("policy-1")["judged_by"]
    assert of("policy-1")["forked_from"] == at["policy-0"]
    assert result.folder == folder / "policy-1"
    rows = small.rows(folder / "policy-1")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[:3] == small.rows(folder / "policy-0")
    assert [row.get("questions", 0) for row in rows] == [0, 4, 8, 12, 16]
    assert (folder / "figures" / "rounds.png").stat().st_size > 1000


def test_the_reference_is_the_policy_where_a_round_begins(made):
    kl = [row.get("kl") for row in small.rows(made[0] / "policy-1")]
    assert kl[1] == kl[3] == 0 and kl[2] > 0 and kl[4] > 0


@pytest.mark.slow
def test_nothing_renewed_is_one_run(made, tmp_path):
    """As if it had not been cut: its optimizer, its questions and its draws go on."""
    train(settings(**{"iterative.renews": "none"}), tmp_path / "rounds")
    judge = tmp_path / "rounds" / "judge-0"
    assert not (tmp_path / "rounds" / "judge-1").exists()
    kl = [row.get("kl") for row in small.rows(tmp_path / "rounds" / "policy-1")]
    assert kl[1] == 0 and kl[3] > 0
    begun = [workdir.begun(tmp_path / "rounds" / f"policy-{i}") for i in (0, 1)]
    assert begun[0]["judged_by"] == begun[1]["judged_by"]
    few = {k: x for k, x in SMALL.items() if not k.startswith(("iterative", "sft"))}
    few = {k: x for k, x in few.items() if not k.startswith(("reward.", "model.tiny"))}
    few |= {"stages": ("online",), "reward_model.name": str(judge)}
    few |= {"model.name": str(tmp_path / "rounds" / "start"), "training.steps": 4}
    whole = small.build(config.Config, few)
    run.train(whole, tmp_path / "whole", screen=display.Screen(is_quiet=True))
    rows = small.rows(tmp_path / "whole")
    cut = small.rows(tmp_path / "rounds" / "policy-1")
    examined = {k for k in cut[2] if k.startswith("eval/")}
    assert [{k: x for k, x in row.items() if k not in examined} for row in cut] == [
        {k: x for k, x in row.items() if k not in examined} for row in rows
    ]


def test_what_a_judge_learns_is_what_the_policy_said_and_the_checker_holds_of_it(made):
    folder, chosen = made[0], settings()
    rows = list(workdir.rows(folder / "answers.jsonl"))
    assert [(row["round"], row["number"]) for row in rows] == [
        (i // 6, i) for i in range(12)
    ]
    found = load.find(chosen.model)
    known = task.make(chosen, found.spec, found.tokenizer)
    for row in rows:
        number = row["number"]
        assert row["question"] == known.problem(1 << 32, number).question
        assert len(row["completions"]) == len(set(row["completions"])) <= 3
    held_out = {problem.question for problem in known.held_out}
    assert not held_out & {row["question"] for row in rows}
    for number in (0, 1):
        path = str(folder / f"mix-{number}.jsonl")
        mix = labelled.read(path, "train", "correct").all
        fresh = {row["question"] for row in rows if row["round"] == number}
        assert fresh <= {one.question for one in mix}
        begun = workdir.begun(folder / f"judge-{number}")["config"]
        assert begun["data"]["name"] == path
        assert begun["data"]["held_out"] == pytest.approx(0.2 + 0.8 * 0.2)


class Died(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 8, 15, 22])
def test_wherever_it_dies_it_ends_as_if_it_had_not(at, made, tmp_path, monkeypatch):
    """At every seventh of its appended rows, and again three behind that."""
    folder, count, append = tmp_path / "rounds", [0], workdir.append

    def fatal(path, row):
        count[0] += 1
        if count[0] in (at, at + 3):
            with path.open("a") as file:
                file.write(workdir.line(row)[:9])
            raise Died
        append(path, row)

    monkeypatch.setattr(workdir, "append", fatal)
    for _ in range(3):
        try:
            found = train(settings(), folder)
            break
        except Died:
            assert count[0] in (at, at + 3)
    assert same(found.model.params, made[1].model.params)
    assert left(folder) == left(made[0])


@pytest.mark.slow
def test_it_is_stopped_within_runs_between_them_and_while_a_policy_is_asked(
    made, tmp_path, monkeypatch
):
    """Where a run has no step to finish any more, the next one is not begun."""
    folder, asked = tmp_path / "rounds", own_answers._asked

    def signalled(*given, **options):
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:  # the figure of `start` is its last
        patch.setattr(run.plots, "learning", signalled)
        with pytest.raises(stopping.Stopped, match="round 0"):
            train(settings(), folder)
    assert not (folder / "judge-0").exists()

    def stops(inquiry, params, numbers):
        for row in asked(inquiry, params, numbers):
            if row["number"] == 5:  # of 6, at 4 at once
                signal.raise_signal(signal.SIGTERM)
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(own_answers, "_asked", stops)
        with pytest.raises(stopping.Stopped, match="round 0"):
            train(settings(), folder)
    assert len(list(workdir.rows(folder / "answers.jsonl"))) == 6
    assert not (folder / "judge-0").exists()
    found = train(settings(), folder)
    assert same(found.model.params, made[1].model.params)
    assert left(folder) == left(made[0])


@pytest.mark.slow
def test_more_rounds_go_on_and_other_settings_are_refused(made, tmp_path):
    train(settings(), tmp_path)
    with pytest.raises(Refused, match=r"iterative\.questions was 6, is 5"):
        train(settings(**{"iterative.questions": 5}), tmp_path)
    found = train(settings(**{"iterative.rounds": 2}), tmp_path)
    assert found.folder == tmp_path / "policy-2"
    rows = small.rows(tmp_path / "policy-2")
    assert rows[:5] == small.rows(made[0] / "policy-1")
    assert len(list(workdir.rows(tmp_path / "answers.jsonl"))) == 18


@pytest.mark.slow
def test_a_judge_that_is_given_judges_the_first_round(made, tmp_path):
    judge = str(made[0] / "judge-0")
    train(settings(**{"reward_model.name": judge}), tmp_path)
    assert not (tmp_path / "judge-0").exists()
    first = workdir.begun(tmp_path / "judge-1")["config"]
    assert first["model"]["name"] == judge
    assert (
        workdir.begun(tmp_path / "policy-0")["config"]["reward_model"]["name"] == judge
    )
    rows = list(workdir.rows(tmp_path / "answers.jsonl"))
    assert {row["round"] for row in rows} == {1}


PREFERRING = {
    "stages": ("reward", "online"),
    "reward.labels": "preferences",
    "rewards.functions": ("model",),
    "data.held_out": 0.3,
}


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [0, 1])
def test_a_judge_of_preferences_comes_first(rounds, tmp_path, capsys):
    """Of a file that says of no answer that it is right: so nothing is examined, nor is
    that advised, and the judge is that of all rounds."""
    rows = [
        {"question": f"{i}+{i}=", "chosen": str(i), "rejected": str(-i - 1)}
        for i in range(30)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(map(workdir.line, rows)))
    few = {k: x for k, x in SMALL.items() if not k.startswith(("iterative", "sft"))}
    few = {k: x for k, x in few.items() if k not in ("data.size", "data.count")}
    few |= PREFERRING | {"data.name": str(path)}
    if rounds:
        few |= {"iterative.rounds": rounds, "iterative.renews": "reference"}
    found = train(small.build(config.Config, few), tmp_path / "runs")
    policies = [f"policy-{number}" for number in range(rounds + 1)]
    made = sorted(p.name for p in (tmp_path / "runs").iterdir() if p.is_dir())
    assert made == ["figures", "judge-0", *policies]
    judged = small.rows(tmp_path / "runs" / "judge-0")
    assert [row["step"] for row in judged if "eval/accuracy" in row] == [0, 2]
    learned = small.rows(tmp_path / "runs" / policies[-1])
    assert not any("eval/accuracy" in row for row in learned)
    assert all(np.isfinite(row["reward/model"]) for row in learned[1:])
    assert [row["kl"] == 0 for row in learned[1:]] == [True, False] * (rounds + 1)
    assert found.metrics["step"] == 2 * (rounds + 1)
    said = capsys.readouterr().out
    assert "figure: " in said and "evaluate" not in said


def test_what_cannot_be_is_refused_with_a_remedy(made, tmp_path):
    with pytest.raises(Refused, match=r"fork_from is given, and these settings"):
        iterative.train(settings(), tmp_path, fork_from=made[0])
    with pytest.raises(Refused, match=r"takes several runs\. Call grpo_jax\.train"):
        run.train(settings(), tmp_path)
    named = dataclasses.replace(
        settings().model, name=str(made[0]), tiny=config.Model().tiny
    )
    with pytest.raises(
        Refused, match=r"holds several runs\. Name one of them, like .*policy-0"
    ):
        runs.find(named)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rewards.functions": ("modle", "model")}, "functions names modle"),
        ({"algorithm.advantage.reward_weights": (1.0,)}, "Give a weight for each"),
    ],
)
def test_what_a_later_run_would_refuse_is_refused_first(changed, message, tmp_path):
    with pytest.raises(Refused, match=message):
        train(settings(**changed), tmp_path)
    assert not (tmp_path / "start").exists()
    assert workdir.begun(tmp_path) is None  # and mended settings are taken there


def test_rounds_need_somebody_who_knows_what_is_right(tmp_path):
    row = {"question": "1+1=", "chosen": "2", "rejected": "3"}
    path = tmp_path / "a.jsonl"
    path.write_text(workdir.line(row))
    few = {k: x for k, x in SMALL.items() if not k.startswith(("sft", "data"))}
    few |= {"stages": ("online",), "rewards.functions": ("model",)}
    few |= {"data.name": str(path), "data.held_out": 0.0}
    with pytest.raises(Refused, match="nobody says which are right"):
        train(small.build(config.Config, few), tmp_path / "runs")


def test_a_judge_goes_on_learning_as_it_did(made, tmp_path):
    other = {"reward_model.name": str(made[0] / "judge-0"), "reward.head": "tokens"}
    with pytest.raises(Refused, match=r"reward\.head was 'scalar', is 'tokens'"):
        train(settings(**other), tmp_path)


def test_what_a_judge_was_taught_is_history():
    """Of data that say which answers are right, as if in a round of their own."""
    few = {k: x for k, x in SMALL.items() if not k.startswith("sft")}
    few["stages"] = ("reward", "online")
    chosen = small.build(config.Config, few)
    judge = iterative.of_judge(chosen, chosen.model, iterative.of_verdicts(chosen))
    rows = iterative._verdicts(judge)
    known = small.model(chosen.model)
    trained_on = iterative.labels.make(judge, known.spec, known.tokenizer).train
    told = {(one.question, *one.steps, *one.labels) for one in trained_on}
    assert {
        (row["question"], *row["completions"], *map(float, row["is_correct"]))
        for row in rows
    } == told
    assert {row["round"] for row in rows} == {-1} and len(told) > 40


def test_a_fork_that_lost_its_checkpoint_does_not_begin_anew(made, tmp_path):
    folder = tmp_path / "rounds"
    shutil.copytree(made[0], folder)
    shutil.rmtree(folder / "policy-1" / "checkpoints")
    begun = workdir.begun(folder / "policy-1")
    assert begun["forked_at"] == 2
    chosen, screen = config.of(begun["config"]), display.Screen(is_quiet=True)
    given = {"fork_from": made[0] / "policy-0", "screen": screen}
    with pytest.raises(Refused, match=r"went on from step 2 of .* none of its check"):
        run.train(chosen, folder / "policy-1", **given)
    assert len(small.rows(folder / "policy-1")) == 5


def test_one_run_is_as_it_was(tmp_path):
    with small.stubbed() as calls:
        chosen = small.build(config.Config, small.SMALL)
        given = {"model": small.model(chosen.model)}
        screen = display.Screen(is_quiet=True)
        found = iterative.train(chosen, tmp_path, screen=screen, **given)
    assert found.folder == tmp_path
    assert [call[0] for call in calls].count("learn") == 2
