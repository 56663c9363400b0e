"""quick(...) makes the configuration that the same settings make in a file."""

import dataclasses

import jax
import pytest

import grpo_jax
from grpo_jax import config, presets, workdir
from grpo_jax.models import load, settings
from grpo_jax.section import Refused


def test_what_is_not_given_is_at_its_default(tmp_path):
    made = grpo_jax.quick(workdir=tmp_path).settings
    problems = 1779  # of data.count 2000 sums: different ones, and not held out
    steps = made.training.steps
    assert made == config.Config(training=config.Training(steps=steps))
    assert abs(steps * 8 - problems) < 200


def test_several_rewards_have_weights(tmp_path):
    rewards = {"last": None, "short": lambda question, completion, answer: 0.0}
    given = {"reward": rewards, "reward_weights": (1, 0.5), "workdir": tmp_path}
    made = grpo_jax.quick(**given, settings={"training.steps": 1})
    assert made.settings.rewards.functions == ("last", "short")
    assert made.settings.algorithm.advantage.reward_weights == (1.0, 0.5)


def test_a_run_is_a_model_here_too(tmp_path):
    """How many steps an epoch has is counted with its tokenizer."""
    begun = config.Config(model=settings.Model(name="tiny"))
    workdir.settle(tmp_path / "run", {"config": dataclasses.asdict(begun)}, ())
    made = grpo_jax.quick(model=str(tmp_path / "run"), workdir=tmp_path / "next")
    assert made.settings.training.steps == grpo_jax.quick().settings.training.steps


def test_what_is_given_stands_where_it_belongs(tmp_path, capsys):
    made = grpo_jax.quick(
        dataset="chains",
        reward="format",
        algorithm="rloo",
        num_epochs=0.5,
        batch_size=4,
        learning_rate=1e-4,
        group_size=6,
        beta=0.2,
        temperature=0.9,
        max_new=20,
        seed=3,
        workdir=tmp_path,
        settings={"evaluation.every": 7},
    ).settings
    assert made.algorithm == presets.algorithm("rloo", group_size=6, beta=0.2)
    assert made.data.name == "chains" and made.rewards.functions == ("format",)
    assert made.training.batch_size == 4 and made.optimizer.learning_rate == 1e-4
    assert made.sampling.temperature == 0.9 and made.sampling.max_new == 20
    assert made.seed == 3 and made.evaluation.every == 7
    assert "algorithm.group_size = 6" in capsys.readouterr().out
    clipped = grpo_jax.quick(cliprange=0.1, workdir=tmp_path).settings.algorithm
    assert (clipped.clip_low, clipped.clip_high) == (0.1, 0.1)


def test_a_function_is_a_reward_by_its_name(tmp_path):
    def short(question, completion, answer):
        return -len(completion)

    made = grpo_jax.quick(reward=short, workdir=tmp_path)
    assert made.settings.rewards.functions == ("short",)
    assert made.rewards == {"short": short}
    both = grpo_jax.quick(reward={"last": None, "short": short}, workdir=tmp_path)
    assert both.settings.rewards.functions == ("last", "short")
    assert both.rewards == {"short": short}


def test_offline_methods_are_stages(tmp_path):
    made = grpo_jax.quick(
        algorithm="dpo", beta=0.3, learning_rate=0.5, workdir=tmp_path
    ).settings
    assert made.stages == ("dpo",) and made.dpo.beta == 0.3
    assert made.dpo.learning_rate == 0.5 and made.algorithm == config.Algorithm()


def test_a_model_that_was_loaded_is_taken_as_it_is(tmp_path):
    model = load.load(settings.Model(), jax.random.key(0))
    made = grpo_jax.quick(model, workdir=tmp_path)
    assert made.model is model and made.settings.model == settings.Model()


def test_preferences_make_a_reward_model_first(tmp_path):
    """Without a reward of one's own; SFT needs none."""
    given = {"dataset": "Anthropic/hh-rlhf", "workdir": tmp_path}
    given |= {"settings": {"training.steps": 1}}
    made = grpo_jax.quick(**given).settings
    assert made.stages == ("reward", "online") and made.makes_several
    assert made.reward.labels == "preferences"
    assert made.rewards.functions == ("model",)
    assert grpo_jax.quick(reward="format", **given).settings.stages == ("online",)
    given["settings"] = {"sft.steps": 1}
    assert grpo_jax.quick(algorithm="sft", **given).settings.stages == ("sft",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithm": "grpq"}, "algorithm is 'grpq'; it must be one of"),
        ({"settings": {"training.step": 3}}, "training.step is no setting"),
        ({"group_size": 1}, "algorithm.group_size is 1"),
    ],
)
def test_what_cannot_be_is_refused(given, message, tmp_path):
    with pytest.raises(Refused, match=message):
        grpo_jax.quick(workdir=tmp_path, **given)


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'slow'"):
        _ = grpo_jax.slow
