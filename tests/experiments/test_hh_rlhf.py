"""The experiment with preferences: its arms, and the paper's own numbers."""

import json

import pytest

from grpo_jax import experiment, iterative, workdir

module = experiment.load("experiments/hh_rlhf.py")


def test_a_judge_and_a_policy_with_group_size_8():
    chosen = module.get_config()
    judge = iterative.of_judge(chosen, chosen.model, iterative.of_verdicts(chosen))
    policy = iterative.of_policy(chosen, 0, chosen.model, "runs/judge")
    assert judge.stages == ("reward",) and judge.data.name == policy.data.name
    algorithm = policy.algorithm
    assert (algorithm.group_size, algorithm.beta) == (8, 0.01)
    assert algorithm.clip_low == algorithm.clip_high == 0.2
    assert policy.sampling.temperature == 0.7


def test_arms_are_told_both_rewards_and_differ_in_what_counts(tmp_path):
    made = [module.arm(module.get_config(), name, tmp_path) for name in module.ARMS]
    advantages = [one.algorithm.advantage for one in made]
    assert [x.reward_weights for x in advantages] == [(1.0, 0.0), (), ()]
    assert [x.normalise_each for x in advantages] == [False, False, True]
    for one in made:
        assert one.rewards.functions == ("model", "brief")
        assert one.reward_model.name == str(tmp_path)
        assert one.data.held_out > 0.9 > module.get_config().data.held_out
    assert set(module.REWARDS) == {"brief"}


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    """Where, what it trained, what it said; arm i rises from i + 1 to i + 10."""
    trained = []

    def train(settings, folder, rewards=None):
        trained.append((folder.name, settings.stages, rewards))
        rows = [
            {"step": step, **dict.fromkeys(module.SHOWN, int(folder.name[-1]) + step)}
            for step in range(1, 11)
            if folder.name != "judge"
        ]
        folder.mkdir()
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / workdir.METRICS).write_text(lines)

    monkeypatch.setattr(iterative, "train", train)
    monkeypatch.setenv("COLUMNS", "200")
    module.run(module.get_config(), tmp_path)
    return tmp_path, trained, capsys.readouterr().out


def test_one_judge_judges_all_arms(made):
    folder, trained, said = made
    assert trained[0] == ("judge", ("reward",), None)
    expected = [(f"arm-{i}", ("online",), module.REWARDS) for i in range(3)]
    assert trained[1:] == expected
    assert (folder / "figures" / "learning.png").stat().st_size > 10_000
    assert "3 → 8" in said and "4 → 9" in said and "5 → 10" in said
