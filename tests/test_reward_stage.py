"""The stage that makes a reward model: what it learns from, and how it is examined."""

import json

import jax
import numpy as np
import pytest

from grpo_jax import (
    accuracy,
    config,
    crossing,
    display,
    judging,
    reward_stage,
    run,
    workdir,
)
from grpo_jax.data import problem
from grpo_jax.data.verdicts import Solution
from tests import runs

SMALL = runs.TINY | {
    "stages": ("reward",),
    "data.size": 1,
    "data.count": 60,
    "data.held_out": 0.3,
    "reward.steps": 4,
    "reward.batch_size": 8,
    "reward.learning_rate": 0.01,
    "evaluation.every": 2,
}
QUIET = display.Screen(is_quiet=True)


AREA = "auc", "auc_low", "auc_high"


def settings(**changed):
    return runs.build(config.Config, SMALL | changed)


def trained(folder, chosen):
    return run.train(chosen, folder, screen=QUIET)


@pytest.mark.parametrize(
    ("changed", "numbers"),
    [
        ({"reward.labels": "preferences"}, {"margin", "score"}),
        ({"reward.labels": "correct", "model.lora.rank": 2}, {"label", "score", *AREA}),
        (
            {
                "reward.labels": "steps",
                "reward.head": "tokens",
                "data.name": "chains",
                "model.tiny.max_length": 160,
            },
            {"label", "score", *AREA},
        ),
    ],
)
def test_a_run_makes_a_reward_model_and_examines_it(changed, numbers, tmp_path):
    found = trained(tmp_path, settings(**changed))
    rows = list(workdir.rows(tmp_path / workdir.METRICS))
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    examined = [row for row in rows if "eval/accuracy" in row]
    assert [row["step"] for row in examined] == [0, 2, 4]
    for name in ("loss", "calibration_error", "calibration_error_low"):
        assert all(np.isfinite(row[f"eval/{name}"]) for row in examined)
    for name in numbers:
        assert (f"eval/{name}" if name in AREA else name) in rows[-1]
    assert ("head" in found.model.params) == (changed.get("reward.head") is None)


def test_every_item_is_learned_once_before_any_a_second_time(monkeypatch):
    """Processes share them, and lay out what is theirs."""
    chosen, seen = settings(), []
    known = reward_stage.labels.make(
        chosen, runs.model(chosen.model).spec, runs.Bytes()
    )
    mesh = run.sharding.mesh(1, 1, 1, jax.devices()[:1])
    given = chosen, runs.model(chosen.model).spec, known, None, mesh, None
    stage = reward_stage.Reward(run.stage.Run(*given), 0)
    stage.lay, stage.learn = seen.append, lambda *given: (None, {})
    for process in range(2):
        monkeypatch.setattr(crossing, "place", lambda: (process, 2))  # noqa: B023
        stage.step(run.State(None, {}), 3, lambda: None)
    rows = [problem.row(0, i, len(known.train)) for i in range(24, 32)]
    items = [known.train[i] for i in rows]
    assert seen == [items[::2], items[1::2]]


def test_numbers_of_pairs():
    """Gaps of 2, −1 and 0: one of three is right; σ(2) .881, σ(1) .731, σ(0) .5."""
    score = np.array([[3.0, 1], [0, 1], [2, 2]])
    found = reward_stage.summary_of_pairs(score, np.array([4, 9, 1]))
    np.testing.assert_allclose(found["eval/accuracy"], 1 / 3)
    loss = np.mean([np.log(1 + np.exp(x)) for x in (-2.0, 1.0, 0.0)])
    np.testing.assert_allclose(found["eval/loss"], loss)
    error = ((1 - 0.880797) + 0.731059 + 0.5) / 3
    np.testing.assert_allclose(found["eval/calibration_error"], error, 1e-5)


def test_numbers_of_labels():
    logit, label = np.array([2.0, 1.0, -1.0]), np.array([1.0, 0.0, 0.25])
    found = reward_stage.summary_of_labels(logit, label, np.array([7, 7, 3]))
    np.testing.assert_allclose(found["eval/accuracy"], 2 / 3)
    np.testing.assert_allclose(found["eval/good"], 1 / 3)
    loss = np.log(1 + np.exp(-2)) + np.log(1 + np.exp(1))
    loss += 0.25 * np.log(1 + np.exp(1)) + 0.75 * np.log(1 + np.exp(-1))
    np.testing.assert_allclose(found["eval/loss"], loss / 3)
    # Nothing spreads, and good labels are of one question alone.
    names = [f"eval/{name}" for name in AREA]
    np.testing.assert_allclose([found[x] for x in names], accuracy.wilson(1, 1))


def test_labels_are_compared_where_there_are_some_and_know_their_question():
    solutions = [
        Solution("a", ("1", "2", "3"), (1.0, None, 0.0)),
        Solution("b", ("1",), (0.5,)),
        Solution("a", ("4",), (0.0,)),
    ]
    said = [[[0.5, 0.1, 0.2]], [[3.0]], [[-1.0]]]
    logit, label, question = reward_stage._known(solutions, said)
    assert logit.tolist() == [0.5, 0.2, 3, -1] and label.tolist() == [1, 0, 0.5, 0]
    assert (question == question[0]).tolist() == [True, True, False, True]


def test_labels_of_one_question_are_taken_for_alike():
    """As in accuracy: with 3 and 1 of one question, and 2 and 2 of another, n = 3.5."""
    logit, label = np.array([3.0, 1, 2, 2]), np.array([1.0, 0, 1, 0])
    found = reward_stage.summary_of_labels(logit, label, np.array([0, 0, 4, 4]))
    expected = accuracy.auc_clustered(logit, label > 0.5, np.array([1, 1, 0, 0]))
    assert [found[f"eval/{name}"] for name in AREA] == list(expected)
    share = accuracy.clustered(np.array([1, 1]), np.array([2, 2]))
    names = "eval/accuracy", "eval/accuracy_low", "eval/accuracy_high"
    assert [found[name] for name in names] == list(share)
    alone = reward_stage.summary_of_labels(logit, label, np.arange(4))
    assert alone["eval/auc_low"] > found["eval/auc_low"]
    assert alone["eval/accuracy_low"] > found["eval/accuracy_low"]
    error = accuracy.calibration_clustered(
        judging.probability(logit), label > 0.5, np.array([0, 0, 4, 4])
    )
    names = [f"eval/calibration_error{x}" for x in ("", "_low", "_high")]
    assert [found[name] for name in names] == list(error)


def test_preferences_of_one_question_are_taken_for_alike():
    """All of one are right, none of the other: as two answers, not as eight."""
    score = np.array([[1.0, 0]] * 4 + [[0.0, 1]] * 4)
    found = reward_stage.summary_of_pairs(score, np.array([3] * 4 + [8] * 4))
    expected = accuracy.wilson(1, 2)
    np.testing.assert_allclose(found["eval/accuracy_low"], expected.low)


def test_a_run_that_is_gone_on_with_ends_as_one_that_was_not_stopped(tmp_path):
    """Bit for bit, its rows too."""
    whole = trained(tmp_path / "whole", settings())
    trained(tmp_path / "parts", settings(**{"reward.steps": 2}))
    again = trained(tmp_path / "parts", settings())
    same = jax.tree.map(np.array_equal, whole.model.params, again.model.params)
    assert jax.tree.all(same)
    rows = [runs.rows(tmp_path / name) for name in ("whole", "parts")]
    assert json.dumps(rows[0]) == json.dumps(rows[1])
