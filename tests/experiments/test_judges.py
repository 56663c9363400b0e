"""The experiment with reward models of steps and of outcomes."""

import json

import pytest

from grpo_jax import config, experiment, iterative, workdir
from grpo_jax.models.settings import Model

module = experiment.load("experiments/judges.py")

ENDS = ("", "_low", "_high")


@pytest.fixture
def trained(monkeypatch):
    """What is trained where; a second row says 0.1 more than the first."""
    trained = {}

    def train(settings, folder):
        trained[folder.name] = settings
        folder.mkdir(parents=True)
        told = {f"eval/{key}{end}" for key in module.SHOWN for end in ENDS}
        told.add("eval/good")
        first = 0.5 if folder.name == "steps" else 0.7
        rows = [{"step": i, **dict.fromkeys(told, first + i / 10)} for i in (0, 1)]
        lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 2}])
        (folder / workdir.METRICS).write_text(lines)

    monkeypatch.setattr(iterative, "train", train)
    monkeypatch.setenv("COLUMNS", "200")
    return trained


def test_both_begin_with_one_start_and_differ_in_what_they_are_told(
    trained, tmp_path, capsys
):
    module.run(module.get_config(), tmp_path)
    said = capsys.readouterr().out
    assert list(trained) == ["start", "steps", "correct"]
    start = trained["start"]
    assert start.stages == ("sft",) and start.data.wrong == 0
    steps, correct = (experiment.flat(trained[k]) for k in ("steps", "correct"))
    changed = {k for k, x in steps.items() if x != correct[k]}
    assert changed == {"reward.labels"}
    assert steps["model.name"] == str(tmp_path / "start")
    assert (tmp_path / "figures" / "judges.png").stat().st_size > 10_000
    lines = [line for line in said.splitlines() if "0.600 (0.600-0.600)" in line]
    assert len(lines) == 1 and "of steps" in lines[0]
    assert "0.800 (0.800-0.800)" in said


def test_another_model_begins_as_it_is(trained, tmp_path):
    chosen = config.Config(stages=("reward",), model=Model(name="smollm2-135m"))
    module.run(chosen, tmp_path)
    assert list(trained) == ["steps", "correct"]
    assert {one.model.name for one in trained.values()} == {"smollm2-135m"}


def test_its_start_and_its_judges_read_chains_of_one_kind():
    chosen = module.get_config()
    start = module.start(chosen)
    assert start.data.name == chosen.data.name == "chains"
    assert start.data.size == chosen.data.size and start.model == chosen.model


def test_of_what_people_judged_there_are_three(trained, tmp_path, capsys):
    """Made one after the other, of the model as it is; each of its own data."""
    people = experiment.load("experiments/judges_smollm2.py")
    people.run(people.get_config(), tmp_path)
    said = capsys.readouterr().out
    assert list(trained) == ["judge-0", "judge-1", "judge-2"]
    judges = list(trained.values())
    assert [one.reward.labels for one in judges] == ["steps", "steps", "correct"]
    assert judges[1].data == judges[2].data != judges[0].data
    assert {one.model for one in judges} == {people.get_config().model}
    lines = [line for line in said.splitlines() if "0.800 (0.800-0.800)" in line]
    assert len(lines) == 3 and all(map(str.__contains__, lines, people.JUDGES))
    assert (tmp_path / "figures" / "judges.png").stat().st_size > 10_000
