"""A folder has one writer and one set of settings, and its rows survive a kill."""

import os
import subprocess
import sys

import pytest

from grpo_jax import workdir
from grpo_jax.section import Refused

BEGUN = {"config": {"seed": 1, "training": {"steps": 5, "sizes": (1, 2)}}, "code": "a"}


def settings(**training):
    new = {"config": {"seed": 1, "training": BEGUN["config"]["training"] | training}}
    return new | {"code": "b"}


def test_settings_are_written_once_and_compared_then(tmp_path):
    assert workdir.settle(tmp_path, BEGUN, ()) == {}
    assert workdir.settle(tmp_path, settings(), ["code"]) == {"code": ("a", "b")}
    assert workdir.begun(tmp_path)["code"] == "b"
    changed = workdir.settle(tmp_path, settings(steps=9), ["training.steps"])
    assert changed == {"training.steps": (5, 9)}
    assert workdir.settle(tmp_path, settings(steps=9), ()) == {}
    with pytest.raises(Refused, match="code was 'b', is 'a'"):
        workdir.settle(tmp_path, settings(steps=9) | {"code": "a"}, ())


def test_other_settings_are_refused_with_both_values(tmp_path):
    workdir.settle(tmp_path, BEGUN, ())
    with pytest.raises(
        Refused, match=r"training.sizes was \[1, 2\], is \[1\]; .*new_one"
    ):
        new = settings(sizes=(1,), steps=9) | {}
        new["config"]["training"]["zz_new_one"] = 3
        workdir.settle(tmp_path, new, ["training.steps", "code"])


def test_rows_are_kept_until_a_step_and_half_a_row_is_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in range(4):
        workdir.append(path, {"step": step, "loss": step / 3})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in workdir.rows(path)] == [0, 1, 2, 3]
    workdir.keep_until(path, 2)
    assert [row["loss"] for row in workdir.rows(path)] == [0, 1 / 3, 2 / 3]
    workdir.append(path, {"step": 3})
    assert [row["step"] for row in workdir.rows(path)] == [0, 1, 2, 3]


def test_a_broken_row_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step"\n{"step": 2}\n')
    with pytest.raises(Refused, match=r"metrics.jsonl, line 2 is not JSON"):
        workdir.keep_until(path, 5)
    assert path.read_text().count("\n") == 3


HOLD = """
import pathlib, sys, time
from grpo_jax import workdir
with workdir.locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "locked\n"
        message = f"by process {first.pid}. Wait for it"
        with pytest.raises(Refused, match=message), workdir.locked(tmp_path / "run"):
            pass
        first.kill()
    with workdir.locked(tmp_path / "run"):
        assert (tmp_path / "run" / "lock").read_text() == f"{os.getpid()}\n"


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, message in (
        (tmp_path / "file", "is .*, a file"),
        (tmp_path / "file" / "below", "cannot be written"),
    ):
        with pytest.raises(Refused, match=message), workdir.locked(folder):
            pass


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    workdir.replace(path, "old")

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        workdir.replace(path, "new")
    assert path.read_text() == "old"
