"""Runs of two processes: stopped, killed, and gone on with by another number of them.

Each process is a program of its own, as in a real job.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from grpo_jax import checkpoint, cli, config, processes, sharding, workdir
from grpo_jax import runs as runs_
from grpo_jax.examination import rows_of
from grpo_jax.models.settings import Model
from grpo_jax.section import Refused
from tests import chaos, runs

# The command, with a heartbeat that a test can wait for.
PROGRAM = """
import sys
from grpo_jax import cli, processes
processes.HEARTBEAT = 5
sys.exit(cli.main())
"""
FEWER = {
    "sft.steps": 2,
    "sft.batch-size": 4,
    "training.batch-size": 4,
    "algorithm.group-size": 4,
    "algorithm.beta": 0.1,
    "optimizer.schedule": "constant",
    "optimizer.final-rate": 0.0,
    "optimizer.warmup": 0,
    "evaluation.questions": 8,
    "evaluation.every": "None",
    "model.tiny.width": 16,
    "model.tiny.ffw": 16,
    "data.count": 100,
    "keep.samples": 1,
    "keep.every": 1000,
}


def start(folder, of=1, **more):
    """A run of so many processes."""
    options = FEWER | {"training.steps": 6} | more
    words = [word for k, x in options.items() for word in (f"--{k}", *str(x).split())]
    words = ["train", "experiments/quickstart.py", "--workdir", str(folder), *words]
    return program(words, of, folder.parent.parent)


def program(words, of, cache, code=PROGRAM):
    """A command in so many processes, with four devices together."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
    environment = os.environ | chaos.cached(cache)
    environment |= {"JAX_NUM_CPU_DEVICES": str(4 // of)}
    started = []
    for i in range(of):
        job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(of)}
        job["JAX_PROCESS_ID"] = str(i)
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *words],
                env=environment | (job if of > 1 else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def ended(started):
    said = [one.communicate(timeout=600)[0] for one in started]
    return [one.returncode for one in started], said


def done(started):
    codes, said = ended(started)
    assert set(codes) == {0}, "\n".join(said)
    return said


def wait_for(folder, step, started):
    """Until that row is on disk."""
    while not any(row["step"] >= step for row in runs.rows(folder)):
        assert all(one.poll() is None for one in started), ended(started)[1]
        time.sleep(0.05)


def kept(folder):
    return checkpoint.whole(folder / "checkpoints")


def tables(folder):
    """What was asked and answered, by step."""
    files = sorted((folder / workdir.SAMPLES).glob("*.jsonl"))
    names = "question", "completion", "rewards", "advantage"
    return {
        file.name: [[row[k] for k in names] for row in workdir.rows(file)]
        for file in files
    }


def parameters(folder):
    """Of the last checkpoint, as anyone may read them."""
    found, mesh = runs_.find(Model(name=str(folder))), sharding.mesh(1, 4, 1)
    key, step = jax.random.key(0), kept(folder)[-1]
    params = runs_.read(found, "float32", key, mesh, step=step).params
    return jax.tree.leaves(jax.device_get(params))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of one process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done(start(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("before, after", [(1, 2), (2, 1), (2, 2)])
def test_a_run_goes_on_with_another_number_of_processes(before, after, whole, tmp_path):
    """And on another mesh: the same is asked, drawn and learned."""
    folder = tmp_path / "run"
    mesh = {2: "2 1 2", 1: "1 4 1"}
    first = done(
        start(folder, before, **{"training.steps": 3, "training.mesh": mesh[before]})
    )
    assert all(
        "problems to train on" not in one for one in first[1:]
    )  # the first speaks alone
    assert kept(folder)[-1] == 5
    (said, *_) = done(start(folder, after, **{"training.mesh": mesh[after]}))
    assert "training.steps was 3, and is 6 from here on" in said
    assert ("training.mesh was" in said) == (before != after)
    assert tables(folder) == tables(whole)
    for ours, theirs in zip(runs.rows(folder), runs.rows(whole), strict=True):
        known = {k: x for k, x in theirs.items() if isinstance(x, int | float)}
        found = {k: ours.pop(k) for k in known}
        assert found == pytest.approx(known, rel=1e-3, abs=1e-5)
        # What was the last step before there were more was examined.
        more = {k: ours.pop(k) for k in ours.keys() - theirs.keys()}
        assert all(k.startswith("eval/") for k in more)
        assert not more or theirs["step"] == 5
        assert ours.items() <= theirs.items()  # names, and what is no number
    ours, theirs = parameters(folder), parameters(whole)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, 1e-3, 1e-5)


@pytest.mark.slow
def test_processes_share_an_examination(whole, tmp_path):
    """And find the same; of them the first alone writes and speaks."""
    found = []
    for of in (1, 2):
        out = tmp_path / f"{of}.json"
        words = ["evaluate", str(whole), "--k", "2", "--out", str(out)]
        said = done(program([*words, "--batch-size", "3"], of, tmp_path))
        assert "questions of sums" in said[0] and "questions" not in "".join(said[1:])
        found.append((json.loads(out.read_text()), list(workdir.rows(rows_of(out)))))
    assert found[0] == found[1] and len(found[0][1]) > 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asking_one_process_stops_both_at_one_step(number, tmp_path):
    folder = tmp_path / "run"
    started = start(folder, 2, **{"training.steps": 100000})
    wait_for(folder, 4, started)
    started[1].send_signal(number)
    codes, said = ended(started)
    assert codes == [33, 33], "\n".join(said)
    (last,) = {one.split("stopped after step ")[1].split(",")[0] for one in said}
    assert kept(folder)[-1] == int(last) == list(runs.rows(folder))[-1]["step"]


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_takes_the_other_with_it(dies, tmp_path):
    folder = tmp_path / "run"
    more = {"training.steps": 100000, "keep.every": 4}
    started = start(folder, 2, **more)
    wait_for(folder, 6, started)
    began = time.monotonic()
    started[dies].kill()
    codes, said = ended(started)
    assert time.monotonic() - began < 60
    assert codes[dies] == -signal.SIGKILL and codes[1 - dies] not in (0, 33), said
    assert "task" in said[1 - dies] or "coordination" in said[1 - dies], said
    # Nothing was lost but what came after the last checkpoint.
    step = kept(folder)[-1]
    again = start(folder, 2, **more)
    wait_for(folder, step + 3, again)
    again[0].terminate()
    codes, said = ended(again)
    assert codes == [33, 33], "\n".join(said)
    found = [row["step"] for row in runs.rows(folder)]
    assert found == list(range(len(found)))


@pytest.mark.slow
def test_a_process_that_fails_alone_does_not_leave_the_other_waiting(tmp_path):
    folder = tmp_path / "run"
    started = start(folder, 2, **{"training.steps": 100000})
    wait_for(folder, 4, started)
    (folder / workdir.METRICS).unlink()
    (folder / workdir.METRICS).mkdir()  # of the first process alone
    began = time.monotonic()
    codes, said = ended(started)
    assert time.monotonic() - began < 60
    assert codes[0] != 0 and codes[1] not in (0, 33), "\n".join(said)
    assert "IsADirectoryError" in said[0]


@pytest.mark.parametrize(
    "given, wrong",
    [
        ({"JAX_COORDINATOR_ADDRESS": "here:1"}, "each needs JAX_COORDINATOR"),
        ({"JAX_PROCESS_ID": "0"}, "here is JAX_PROCESS_ID=0"),
        (
            {"JAX_COORDINATOR_ADDRESS": "here:1", "JAX_NUM_PROCESSES": "two"}
            | {"JAX_PROCESS_ID": "0"},
            "JAX_NUM_PROCESSES=two",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "here:1", "JAX_NUM_PROCESSES": "2"}
            | {"JAX_PROCESS_ID": "2"},
            "it is below 2",
        ),
    ],
)
def test_half_told_is_refused(given, wrong, tmp_path):
    command = [sys.executable, "-m", "grpo_jax", "train", "experiments/quickstart.py"]
    found = subprocess.run(
        [*command, "--workdir", str(tmp_path / "run")],
        env=os.environ | given,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2 and wrong in found.stderr
    assert not (tmp_path / "run").exists()


def test_a_gpu_is_made_deterministic_before_it_is_used_or_not_at_all(monkeypatch):
    processes.need_deterministic()  # this is no GPU
    monkeypatch.setenv("XLA_FLAGS", "--one=1")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(Refused, match="Set it before"):
        processes.need_deterministic()
    processes.make_deterministic()
    assert os.environ["XLA_FLAGS"] == "--one=1 --xla_gpu_deterministic_ops=true"
    processes.make_deterministic()
    processes.need_deterministic()


def test_the_command_makes_it_so(monkeypatch):
    chosen = config.Training(deterministic=True)
    monkeypatch.delenv("XLA_FLAGS")
    assert cli._met(config.Training()) and "XLA_FLAGS" not in os.environ
    assert cli._met(chosen)
    assert os.environ["XLA_FLAGS"] == processes.FLAG
