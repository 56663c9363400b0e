"""The experiment with programs: a step of it, with a model that says what it is told."""

import dataclasses
import json

from grpo_jax import config, experiment
from grpo_jax.data import sets
from grpo_jax.models.settings import Model, Tiny
from tests import runs


def says(question, number, sample):
    """Every second sample returns what it should."""
    right = int(question.split("def f")[1].split("(")[0])
    return f"    return {right + sample % 2}", True


def test_programs_are_rewarded_and_examined(tmp_path, monkeypatch):
    monkeypatch.setenv(sets.FOLDER, str(tmp_path))
    rows = [
        {
            "prompt": f"def f{i}():\n",
            "test": f"def check(f): assert f() == {i}",
            "entry_point": f"f{i}",
        }
        for i in range(20)
    ]
    (tmp_path / "humaneval").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "humaneval" / "test.jsonl").write_text(text)
    chosen = experiment.load("experiments/code.py").get_config()
    changed = {
        "data": dataclasses.replace(
            chosen.data, wrapping="paper"
        ),  # bytes have no chat
        "model": Model(tiny=Tiny(layers=1, width=16, heads=2, kv_heads=1, ffw=16)),
        "algorithm": config.Algorithm(group_size=4),
        "sampling": config.Sampling(max_new=16),
        "optimizer": config.Optimizer(),
        "training": config.Training(steps=1, batch_size=4),
        "evaluation": config.Evaluation(questions=4, samples=2),
    }
    with runs.stubbed(says) as calls:
        runs.train(dataclasses.replace(chosen, **changed), tmp_path / "run")
    first, last = runs.rows(tmp_path / "run")
    assert last["reward/code"] == 0.5 and last["unscored/code"] == 0
    assert [call[2] for call in calls if call[0] == "learn"] == [
        [[[1.0], [0.0], [1.0], [0.0]]] * 4
    ]
    assert first["eval/accuracy"] == first["eval/pass@2"] == 1
    assert first["eval/pass@1"] == 0.5 and "eval/maj@1" not in first
