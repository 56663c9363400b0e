"""Process supervision by a reward model of steps: real steps of a tiny policy.

The model is one of random weights: what it says means nothing, and is as good as
anything to be learned from.
"""

import shutil

import jax
import numpy as np
import pytest

from grpo_jax import config, display, iterative, sharding, workdir
from grpo_jax.rewards import neural
from grpo_jax.section import Refused
from tests import runs, test_process_run, test_processes_of_runs
from tests.rewards import test_neural

STEPS = 20
PROCESS = runs.SMALL | {
    "algorithm.advantage.supervision": "process",
    "algorithm.beta": 0.0,
    "algorithm.group_size": 8,
    "data.name": "chains",
    "model.tiny.max_length": 96,
    "training.steps": STEPS,
    "sampling.max_new": 16,
    "sampling.temperature": 1.0,
    "optimizer.learning_rate": 0.02,
    "keep.samples": 1,
    "evaluation.questions": 4,
}
# Taught just enough to end lines and texts now and then.
TAUGHT = {"stages": ("sft", "online"), "sft.steps": 40, "sft.batch_size": 8}
TAUGHT |= {"sft.learning_rate": 0.03}


def settings(folder, changed):
    by_model = {"rewards.steps": "model", "reward_model.name": str(folder)}
    return runs.build(config.Config, PROCESS | by_model | changed)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """The folder of a reward model of steps."""
    folder = tmp_path_factory.mktemp("judge") / "run"
    test_neural.written(folder, test_neural.run_of("steps"))
    return folder


@pytest.fixture(scope="module")
def made(judge, tmp_path_factory):
    """A run that it rewards."""
    return runs.train(
        settings(judge, TAUGHT), tmp_path_factory.mktemp("made"), model=None
    )


def given(result):
    """Each sample that was learned from, with its steps' texts and their rewards."""
    for table in test_process_run.tables(result).values():
        for row in table:
            texts, rewards = ([x[k] for x in row["steps"]] for k in ("text", "reward"))
            yield row["question"], texts, rewards


def test_the_tables_and_the_rows_hold_what_the_model_says(judge, made):
    mesh = sharding.mesh(1, 1, 1, jax.devices()[:1])
    model = neural.load(config.RewardModel(name=str(judge)), mesh, print)
    every = list(given(made))
    assert len(every) == STEPS * 4 * 8
    asked = [one for one in every if len(one[1]) > 1][:20]
    assert len(asked) == 20
    questions, cut, said = zip(*asked, strict=True)
    found, faults = neural.steps(model, questions, [[x] for x in cut])
    assert faults == []
    for rewards, ours in zip(said, found[:, 0], strict=True):
        np.testing.assert_allclose(rewards, ours[: len(rewards)], 1e-4, 1e-5)
        assert np.isnan(ours[len(rewards) :]).all()
    for row, table in zip(
        test_process_run.online(made),
        test_process_run.tables(made).values(),
        strict=True,
    ):
        rewards = [step["reward"] for one in table for step in one["steps"]]
        assert row["steps/reward"] == pytest.approx(np.mean(rewards))
        assert row["reward_mean"] == pytest.approx(np.mean(rewards), rel=1e-5)
        assert row["samples/faults"] == 0 == row["samples/unscored"]
        # The data's own checker measures, and no more.
        right = [one["rewards"]["correct"] for one in table]
        assert row["reward/correct"] == row["samples/right"] == np.mean(right)
        assert [one["right"] for one in table] == [x > 0 for x in right]
        mean = [np.mean([step["reward"] for step in one["steps"]]) for one in table]
        np.testing.assert_allclose([one["reward"] for one in table], mean, 1e-12)


def test_a_policy_learns_what_the_model_rewards(made):
    reward = [row["steps/reward"] for row in test_process_run.online(made)]
    spread = np.std([x for _, _, some in given(made) for x in some])
    assert np.mean(reward[-5:]) - np.mean(reward[:5]) > spread / 2


def test_it_is_learned_from_as_if_a_rule_had_said_the_same(judge, made, tmp_path):
    """The same rows and the same parameters: nothing else of a run depends on it."""
    known = {(question, *texts): rewards for question, texts, rewards in given(made)}
    by_hand = lambda question, steps, answer: known[(question, *steps)]  # noqa: E731
    chosen = runs.build(config.Config, PROCESS | TAUGHT | {"rewards.steps": "by_hand"})
    own = {"step_rewards": {"by_hand": by_hand}, "model": None}
    other = runs.train(chosen, tmp_path, **own)
    ours, theirs = (runs.rows(result.folder) for result in (made, other))
    for row, same in zip(ours, theirs, strict=True):
        assert {k: row[k] for k in same} == same
    jax.tree.map(np.testing.assert_array_equal, made.model.params, other.model.params)


def test_no_other_judge_goes_on_with_it(judge, tmp_path):
    other = tmp_path / "judge"
    shutil.copytree(judge, other)
    sums = {"data.name": "sums", "training.steps": 2}
    with runs.stubbed() as calls:
        runs.train(settings(other, sums), tmp_path / "run")
        assert [call[0] for call in calls].count("learn") == 2
        shutil.rmtree(other)
        test_neural.written(other, test_neural.run_of("steps"), seed=7)
        more = settings(other, sums | {"training.steps": 3})
        with pytest.raises(Refused, match=r"judged_by was .\w+., is .\w+."):
            runs.train(more, tmp_path / "run")


def test_it_judges_each_round_where_the_reference_alone_is_renewed(judge, tmp_path):
    more = {"data.name": "sums", "training.steps": 1, "algorithm.beta": 0.1}
    more |= {"iterative.rounds": 1, "iterative.renews": "reference"}
    with runs.stubbed() as calls:
        screen = display.Screen(is_quiet=True)
        found = iterative.train(settings(judge, more), tmp_path, screen=screen)
    assert [call[0] for call in calls].count("learn") == 2
    _, *online = test_process_run.online(found)
    assert len(online) == 2 and all(np.isfinite(x["steps/reward"]) for x in online)
    assert not list(tmp_path.glob("judge-*"))


def test_a_model_that_is_none_of_steps_is_refused_before_anything_runs(tmp_path):
    test_neural.written(tmp_path / "judge", test_neural.run_of("correct"))
    with pytest.raises(Refused, match=r"scores whole completions, and rewards.steps"):
        runs.train(settings(tmp_path / "judge", {}), tmp_path / "run", model=None)
    assert not (tmp_path / "run" / workdir.CONFIG).exists()


@pytest.mark.slow
def test_processes_ask_it_as_often_as_each_other(judge, tmp_path):
    """Whatever each has to ask; and it says the same to one process as to two."""
    several = test_processes_of_runs
    more = {"algorithm.advantage.supervision": "process", "rewards.steps": "model"}
    more |= {"reward-model.name": judge, "reward-model.batch-size": 1}
    more |= {"training.steps": 3, "groups.mixed": True}
    for of in (1, 2):
        folder = tmp_path / str(of) / "run"
        folder.parent.mkdir()
        several.done(several.start(folder, of, **more))
    one, two = (several.tables(tmp_path / str(of) / "run") for of in (1, 2))
    assert one.keys() == two.keys() and len(one) == 3
    for ours, theirs in zip(one.values(), two.values(), strict=True):
        assert [row[:2] for row in ours] == [row[:2] for row in theirs]
