"""The optimum: it learns, to where theory says, and repeats itself."""

import dataclasses
import json

import numpy as np
import pytest

from grpo_jax import cli, config, experiment, presets

optimum = experiment.load("experiments/optimum.py")


def closed_form(p, group_size, beta):
    """The slope of E[loss] at π(right) = p for z-scored 0/1 rewards and k3.

    With k of G right and q = k/G, the centred z-scores give (1/G) Σ Â ∇log π =
    √(q(1−q)) (∇log p − ∇log(1−p)); k is binomial. k3 pulls along the forward KL from
    the uniform reference: β ∇ (1/V log p + (1 − 1/V) log(1 − p)).
    """
    k = np.arange(group_size + 1)
    binomial = np.array([1.0])
    for _ in range(group_size):
        binomial = np.convolve(binomial, [1 - p, p])
    q = k / group_size
    signal = (binomial * np.sqrt(q * (1 - q))).sum() * (1 / p + 1 / (1 - p))
    share = 1 / optimum.VOCABULARY
    return signal + beta * (share / p - (1 - share) / (1 - p))


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("group_size", [2, 16])
def test_the_optimum_is_the_root_of_the_closed_form(beta, group_size, float64):
    advantage = config.Advantage(eps=0.0)
    algorithm = config.Algorithm(group_size=group_size, beta=beta, advantage=advantage)
    best = optimum.optimum(algorithm)
    assert closed_form(best - 1e-4, group_size, beta) > 0
    assert closed_form(best + 1e-4, group_size, beta) < 0


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 1), ({"loss_mean": "over_constant", "loss_constant": 4}, 1 / 4)],
)
def test_an_entropy_bonus_moves_the_optimum_by_its_slope(options, scale, float64):
    advantage, coef = config.Advantage(eps=0.0), 0.3
    algorithm = config.Algorithm(
        group_size=16, beta=0.4, advantage=advantage, entropy_coef=coef, **options
    )
    best = optimum.optimum(algorithm)
    # H = −p log p − (1−p) log((1−p)/9), and dH/dp = log((1−p) / 9p)
    slope = np.log((1 - best) / (9 * best))
    near = closed_form(best, 16, 0.4) * scale + coef * slope
    np.testing.assert_allclose(near, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "ppo"], "the rewards carry no value"),
        (["--algorithm.advantage.group-by", "lvl"], "group_by is 'lvl'"),
        (["--algorithm.advantage.reward-weights", "1", "2"], "has 2 values; there are"),
    ],
)
def test_what_it_cannot_run_is_refused_before_anything_is_written(
    words, message, tmp_path, capsys
):
    workdir = tmp_path / "run"
    words = ["train", "experiments/optimum.py", "--workdir", str(workdir), *words]
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err and not workdir.exists()


def test_the_controller_steers_beta_wherever_the_kl_is_placed():
    for placed in ("loss", "reward"):
        kl = config.KL(placed=placed, estimator="k1", target=0.01, horizon=100.0)
        settings = dataclasses.replace(
            optimum.get_config(),
            algorithm=config.Algorithm(group_size=16, beta=0.4, kl=kl),
            optimizer=config.Optimizer(learning_rate=0.1),
            training=config.Training(steps=30),
        )
        rows = [row for _, row in optimum.train(settings)]
        assert rows[-1]["beta"] > 0.4 and rows[-1]["kl"] > 0.01


def test_the_optimum_is_unknown_where_the_batch_decides():
    assert optimum.optimum(presets.algorithm("kl_cov")) is None
    assert optimum.optimum(presets.algorithm("lite_ppo")) is None
    assert optimum.optimum(config.Algorithm(kl=config.KL(target=0.1))) is None


def test_it_learns_to_its_optimum():
    settings = optimum.get_config()
    training = dataclasses.replace(settings.training, steps=400)
    settings = dataclasses.replace(settings, training=training)
    history = np.array([right for right, _ in optimum.train(settings)])
    assert history[0].mean() < 0.2
    # Over ten seeds the mean of the last hundred steps is within 0.006 of the optimum.
    assert abs(history[-100:].mean() - optimum.optimum(settings.algorithm)) < 0.015


def test_the_command_writes_settings_metrics_and_figure(tmp_path, capsys):
    words = ["--workdir", str(tmp_path / "run"), "--training.steps", "3"]
    assert cli.main(["train", "experiments/optimum.py", *words]) == 0
    text = capsys.readouterr().out
    assert "training.steps = 3" in text and "optimum" in text and "7 + 2" in text
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert {"kl", "clip/any", "reward_mean", "diversity/agreement"} <= set(rows[0])
    picture = (tmp_path / "run" / "figures" / "learning.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "preset", ["rloo", "remax", "grpo_process", "reinforce_pp", "gmpo"]
)
def test_other_methods_raise_the_right_answers_too(preset):
    algorithm = presets.algorithm(preset, group_size=8)
    settings = dataclasses.replace(
        optimum.get_config(),
        algorithm=algorithm,
        optimizer=config.Optimizer(learning_rate=0.1),
        training=config.Training(steps=30),
    )
    history = [right.mean() for right, _ in optimum.train(settings)]
    assert history[-1] > 0.5 > 0.2 > history[0]
