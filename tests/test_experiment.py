"""Experiment files and the words that change them."""

import json
import pathlib

import pytest

from grpo_jax import cli, config, experiment, presets
from grpo_jax.section import Refused

QUICKSTART = "experiments/quickstart.py"


def parse(*words):
    return experiment.parse(experiment.load(QUICKSTART), list(words)).config


def refused(capsys, *words):
    """The message on standard error of a command line that ends with exit code 2."""
    try:
        code = cli.main(["train", QUICKSTART, *words])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    boxed = capsys.readouterr().err
    return " ".join(line.strip("│╭╮╰╯─ ") for line in boxed.splitlines())


@pytest.mark.parametrize(
    "word",
    ["--algorithm.group-size", "--algorithm.group_size", "--algorithm.group-size="],
)
def test_hyphen_underscore_and_equals_are_the_same(word):
    words = [word + "32"] if word.endswith("=") else [word, "32"]
    assert parse(*words).algorithm.group_size == 32


def test_nested_settings_are_dotted():
    made = parse("--algorithm.kl.estimator", "k2", "--algorithm.advantage.ddof", "1")
    assert made.algorithm.kl.estimator == "k2" and made.algorithm.advantage.ddof == 1


def test_tuples_none_and_booleans_from_the_line():
    made = parse(
        *("--algorithm.advantage.reward-weights", "1.0", "0.5"),
        *("--algorithm.log-ratio-limit", "None"),
        *("--algorithm.advantage.normalise-each", "True"),
    )
    assert made.algorithm.advantage.reward_weights == (1.0, 0.5)
    assert made.algorithm.log_ratio_limit is None
    assert made.algorithm.advantage.normalise_each


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--algorithm.group-sise", "4"], "--algorithm.group-size"),
        (["--beta", "0.1"], "--algorithm.beta"),
        (["--seed", "1e3"], "invalid literal for int"),
        (["--algorithm.surrogate", "ppo"], "invalid choice 'ppo'"),
        (["--algorithm.beta", "nan"], "algorithm.beta is nan; it must be a finite"),
        (
            ["--optimizer.learning-rate", "-1"],
            "optimizer.learning_rate is -1.0; it must",
        ),
        (["--algorithm.group-size", "1"], "algorithm.group_size is 1; the advantage"),
        (["--seed", "-1"], "seed is -1; it must lie in"),
        (["--preset", "grpp"], "preset is 'grpp'; it must be one of grpo"),
        (["extra"], "extra"),
    ],
)
def test_a_bad_word_ends_with_exit_code_2_and_says_why(
    capsys, words, message, tmp_path
):
    error = refused(capsys, "--workdir", str(tmp_path / "new"), *words)
    assert message in error
    assert not (tmp_path / "new").exists()


def test_a_preset_replaces_the_files_algorithm_and_words_win():
    made = parse("--preset", "dr_grpo", "--algorithm.beta", "0.2")
    assert made.algorithm == presets.algorithm("dr_grpo", beta=0.2)
    assert made.optimizer == parse().optimizer


def test_help_names_every_setting_with_its_meaning(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for path in experiment.flat(config.Config()):
        assert "--" + path.replace("_", "-") in text
    assert "samples per question" in text and "--preset" in text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "has no function get_config"),
        ("def get_config(): pass", "returns NoneType"),
        ("def get_config(): return 3", "returns int"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path, source, message):
    file = tmp_path / "odd.py"
    file.write_text(source)
    with pytest.raises(Refused, match=message):
        experiment.parse(experiment.load(str(file)), [])


def test_a_missing_file_and_a_missing_word_are_refused(capsys):
    assert cli.main(["train", "nowhere.py"]) == 2
    assert "no experiment file nowhere.py" in capsys.readouterr().err
    assert cli.main(["train"]) == 2
    assert cli.main(["trian"]) == 2
    assert "'trian' is not a command" in capsys.readouterr().err


def test_an_experiments_name_cannot_shadow_another_module(tmp_path):
    file = tmp_path / "json.py"
    file.write_text("def get_config(): pass\ndef run(s, w): pass")
    assert experiment.load(str(file)).__name__ == "grpo_experiment_json"
    assert json.loads("1") == 1


def test_describe_lists_what_differs_from_the_defaults():
    assert experiment.describe(config.Config()) == "  every setting is at its default"
    text = experiment.describe(config.Config(seed=3))
    assert text == "  seed = 3"


@pytest.mark.parametrize(
    "path", sorted(pathlib.Path("experiments").rglob("*.py")), ids=str
)
def test_every_experiment_gives_a_configuration(path):
    assert isinstance(experiment.load(str(path)).get_config(), config.Config)


def test_commands_that_only_print(capsys):
    assert cli.main([]) == 0 and cli.main(["methods"]) == 0
    text = capsys.readouterr().out
    assert "train FILE" in text and "Online RFT" in text and "dr_grpo" in text
    assert cli.main(["bench", "extra"]) == 2
