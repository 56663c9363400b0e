"""The experiment with reward models of steps and of outcomes."""

import json

import pytest

from grpo_jax import config, experiment, iterative, workdir
from grpo_jax.models.settings import Model

module = experiment.load("experiments/judges.py")


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    """What is trained where, and what is said; a second row says 0.1 more."""
    trained = {}

    def train(settings, folder):
        trained[folder.name] = settings
        folder.mkdir()
        told = {f"eval/{key}{end}" for key in module.SHOWN for end in ENDS}
        first = 0.5 if folder.name == "steps" else 0.7
        rows = [{"step": i, **dict.fromkeys(told, first + i / 10)} for i in (0, 1)]
        lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 2}])
        (folder / workdir.METRICS).write_text(lines)

    monkeypatch.setattr(iterative, "train", train)
    monkeypatch.setenv("COLUMNS", "200")

    def made(settings):
        module.run(settings, tmp_path)
        return tmp_path, trained, capsys.readouterr().out

    return made


ENDS = ("", "_low", "_high")


def test_both_begin_with_one_start_and_differ_in_what_they_are_told(made):
    folder, trained, said = made(module.get_config())
    assert list(trained) == ["start", "steps", "correct"]
    start = trained["start"]
    assert start.stages == ("sft",) and start.data.wrong == 0
    steps, correct = (experiment.flat(trained[k]) for k in ("steps", "correct"))
    changed = {k for k, x in steps.items() if x != correct[k]}
    assert changed == {"reward.labels"}
    assert steps["model.name"] == str(folder / "start")
    assert (folder / "figures" / "judges.png").stat().st_size > 10_000
    lines = [line for line in said.splitlines() if "0.600 (0.600-0.600)" in line]
    assert len(lines) == 1 and "of steps" in lines[0]
    assert "0.800 (0.800-0.800)" in said


def test_another_model_begins_as_it_is(made):
    chosen = config.Config(stages=("reward",), model=Model(name="smollm2-135m"))
    _, trained, _ = made(chosen)
    assert list(trained) == ["steps", "correct"]
    assert {one.model.name for one in trained.values()} == {"smollm2-135m"}


def test_its_start_and_its_judges_read_chains_of_one_kind():
    chosen = module.get_config()
    start = module.start(chosen)
    assert start.data.name == chosen.data.name == "chains"
    assert start.data.size == chosen.data.size and start.model == chosen.model
