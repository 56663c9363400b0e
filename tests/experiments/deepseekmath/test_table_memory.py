"""The memory of arms: what is measured here, and what the table says of it."""

import json
import os
import subprocess
import sys

import pytest

from grpo_jax import cli, config, experiment, reproduce, sweep
from grpo_jax.bench import sampling
from tests.models import examples

table = experiment.load("experiments/deepseekmath/table_memory.py")
resident = table.resident


@pytest.mark.parametrize("arm", ["PPO, shared trunk", "LoRA GRPO"])
def test_every_arm_runs_a_whole_step_here(arm, monkeypatch, tmp_path):
    """A head and adapters are no parameters to sample with."""
    monkeypatch.setattr(sampling, "SPEC", examples.SPECS["qwen2"])
    given = table.ARMS[arm] | {"sampling.max_new": 8, "sampling.min_new": 8}
    preset = given.pop("preset", None)
    plain = experiment.preset(resident.get_config(), preset)
    chosen = experiment.changed(plain, given)
    resident.check(chosen)
    resident.run(chosen, tmp_path)
    found = table.keep(tmp_path)["found"]
    assert found["before"] > 0 and 0 < found["between"] < found["peak"]
    assert found["held"]["reference"] > 0 or "LoRA" in arm


def test_what_is_measured_here_is_one_model(tmp_path, capsys):
    folder = tmp_path / "run"
    words = ["--workdir", str(folder), "--model.name", "gpt-9"]
    assert cli.main(["train", table.FILES["resident"], *words]) == 2
    said = capsys.readouterr().err
    assert "model.name is 'gpt-9'; llama-50m is what" in said and not folder.exists()


def test_what_was_free_does_not_count(monkeypatch):
    """Even where the C library is told to keep it, as in a sweep."""
    grown = """
import ctypes, importlib.util, sys
spec = importlib.util.spec_from_file_location("resident", sys.argv[1])
resident = importlib.util.module_from_spec(spec)
spec.loader.exec_module(resident)
import numpy as np
some = [np.ones(2**17) for _ in range(400)]
most = resident.of_process("VmHWM")
del some
resident.forget()
print(most - resident.of_process("VmHWM"))
"""
    words = [sys.executable, "-c", grown, table.FILES["resident"]]
    done = subprocess.run(words, capture_output=True, env=sweep.TUNED | os.environ)
    assert float(done.stdout) > 0.3, done.stderr


def test_every_arm_learns_from_as_many_rows():
    """A preset has a group size of its own."""
    found = {}
    for name, point in table.get_points(1, smoke=False).items():
        module = experiment.load(point.subject)
        given = reproduce.settings(module, point)
        given = {k: x for k, x in given.items() if k not in reproduce.OTHERS}
        chosen = config.of(config.nested(given))
        rows = chosen.training.batch_size * chosen.algorithm.group_size
        found.setdefault((point.command, rows), []).append(name)
    assert found.keys() == {("plan", 16 * 64), ("train", 4 * 8)}


def test_a_smoke_run_needs_no_compiler_for_other_machines():
    for _, point in table.get_points(1, smoke=True).items():
        assert point.settings.get("topology", "cpu") == "cpu"


def records(smoke=True):
    """As a sweep would keep them: state 16 and 28, copy 4, and 20 on top of both."""
    parts = {"parameters": 4.0, "moments": 8.0, "reference": 4.0}
    nothing = {"critic": 0.0, "its moments": 0.0, "copy": 4.0}
    of = {
        "GRPO": parts | nothing,
        "PPO": parts | nothing | {"critic": 4.0, "its moments": 8.0},
        "LoRA GRPO": nothing | {"parameters": 3.0, "moments": 1.0, "reference": 0.0},
    }
    found = {}
    for place in table.places(1, smoke):
        one = {"held": of[place.arm], "gradients": 4.0, "room": 90.0}
        if place.kind == "sampling":
            one["adds"] = {"decode": 3.0}
        elif place.kind == "learning":
            one["adds"] = {"update": 20.0}
            one["adds"] |= {"critic": 19.0} if place.arm == "PPO" else {}
        else:
            one |= {"before": 1.0, "compiling": 60.0, "peak": 31.0}
            one["peak"] += 12.0 if place.arm == "PPO" else 0.0
        found[str(place)] = one
    same = {"seconds": 1.0, "code": "abc"}
    return {name: {"found": one} | same for name, one in found.items()}


def test_savings_by_hand():
    found = {
        (x["kind"], x["arm"], x["against"]): x
        for x in table.saved(table.rows(records(), 1))
    }
    ours = found["learning", "GRPO", "PPO"]
    expected = {
        "state": 12 / 28,
        "updated": 12 / 32,
        "all_held": 12 / 32,
        "peak": 12 / 48,
    }
    assert {k: ours[k] / 100 for k in expected} == pytest.approx(expected)
    measured = found["resident", "GRPO", "PPO"]
    assert measured["peak"] / 100 == pytest.approx(12 / 42)
    assert found["learning", "LoRA GRPO", "GRPO"]["state"] == pytest.approx(75)
    assert ("learning", "GRPO", "PPO, shared trunk") not in found  # it was not compiled


def test_the_most_is_that_of_the_program_that_adds_most():
    rows = {
        x.place.arm: x for x in table.rows(records(), 1) if x.place.kind == "learning"
    }
    ppo = rows["PPO"]
    assert ppo.adds == {"update": 20.0, "critic": 19.0, "decode": 3.0}
    assert ppo.most == "update" and ppo.peak == 28 + 20
    assert ppo.stack["gradients"] == 4.0 and ppo.stack["all else"] == 16.0
    assert sum(ppo.stack.values()) == pytest.approx(ppo.peak)
    assert ppo.stack["copy"] == 0
    sampling = ppo._replace(adds=ppo.adds | {"decode": 17.0})
    assert sampling.most == "decode" and sampling.peak == 28 + 4 + 17
    assert sampling.stack["gradients"] == 0 and sampling.stack["all else"] == 17.0
    assert sum(sampling.stack.values()) == pytest.approx(sampling.peak)


def test_what_it_writes(tmp_path):
    table.report(records(), 1, tmp_path)
    said = json.loads((tmp_path / "table_memory.json").read_text())
    assert {"told", "by", "GiB", "saved, %"} == said.keys()
    picture = (tmp_path / "table_memory.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    readme = (tmp_path / "README.md").read_text()
    assert "GRPO saves 43 to 43% of PPO's state" in readme
    assert "25 to 25% at the peak; 29 to 29% of resident memory" in readme


def test_each_part_of_the_picture_has_a_look_of_its_own():
    """In grey as well: no two have both the same lightness and the same hatch."""
    seen = set()
    for look in table.LOOKS.values():
        r, g, b = (int(look["color"][i : i + 2], 16) for i in (1, 3, 5))
        grey = round((0.299 * r + 0.587 * g + 0.114 * b) / 255, 1)
        assert (grey, look.get("hatch")) not in seen
        seen.add((grey, look.get("hatch")))
    parts = table.rows(records(), 1)[0].stack
    assert parts.keys() == table.LOOKS.keys()
