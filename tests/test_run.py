"""A run's rows, checkpoints and tables survive whatever happens to it.

The stages here only count: what they learn is the sum of the numbers of their steps.
"""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import (
    beginning,
    checkpoint,
    config,
    crossing,
    display,
    learner,
    run,
    stopping,
    task,
    train_step,
    workdir,
)
from grpo_jax.losses import statistics
from grpo_jax.section import Refused
from grpo_jax.stage import Found, State


class Counter:
    """Adds the number of each step to a parameter, and counts steps on the host."""

    fails: ClassVar[dict[int, BaseException]] = {}  # step → what happens in it

    def __init__(self, run_, first):
        self.settings, self.first = run_.settings, first
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shape = jax.ShapeDtypeStruct((3,), jnp.float32, sharding=here)
        state = train_step.State({"x": shape}, {"moment": shape})
        plain = dataclasses.replace(run_.settings, algorithm=config.Algorithm(beta=0.0))
        trained = learner.Trained(print, print, state)
        self.learner = learner.make(run_.spec, plain, 1, run_.mesh)
        self.learner = self.learner._replace(policy=trained)

    def begin(self, params, key):
        x = params.get("x", jnp.zeros(3))
        return State(learner.State(train_step.State({"x": x}, {"moment": x})), {"n": 0})

    def prepare(self, state, folder, meanwhile):
        pass

    def step(self, state, number, meanwhile):
        meanwhile()
        if number in self.fails:
            raise self.fails.pop(number)
        (policy, *_), host = state
        x, moment = policy.params["x"], policy.optimizer["moment"]
        x, moment = jax.jit(lambda x, m, n: (x + n, m + x))(
            x, moment, crossing.up(np.float32(number + 1))
        )
        host = {"n": host["n"] + 1}
        learned = learner.State(train_step.State({"x": x}, {"moment": moment}))
        measured = {"x": statistics.Sum(x.sum())}

        def table():
            row = {"question": "1+1", "completion": "2", "answer": "2"}
            return [row | {"advantage": 0.5, "number": number}]

        return State(learned, host), Found(measured, {"n": host["n"]}, {}, table)


def count_only(patch):
    patch.setattr(run, "KINDS", {"sft": Counter, "online": Counter})
    patch.setattr(run._Driver, "_params", lambda self: {})
    patch.setattr(run.learner, "policy", lambda _, state: state.policy.params)
    patch.setattr(Counter, "fails", {})


@pytest.fixture
def counting(monkeypatch):
    count_only(monkeypatch)


def settings(**options):
    keep = {"every": 2, "latest": 2, "samples": 3} | options.pop("keep", {})
    steps = options.pop("steps", 5)
    return config.Config(
        stages=("sft", "online"),
        sft=config.SFT(steps=4),
        training=config.Training(steps=steps, mesh=(1, 4, 1)),
        data=config.Data(count=20, held_out=0.0),
        sampling=config.Sampling(max_new=4),
        keep=config.Keep(**keep),
        **options,
    )


class Told(display.Screen):
    def __init__(self):
        super().__init__(is_quiet=True)
        self.said = 0.0
        self.lines = []

    def tell(self, text):
        self.lines.append(text)


def train(folder, screen=None, **options):
    kept = {k: options.pop(k) for k in ("fork_from",) if k in options}
    return run.train(settings(**options), folder, screen=screen or Told(), **kept)


def left(folder):
    rows = [
        {k: x for k, x in row.items() if not k.startswith(("time/", "perf/"))}
        for row in workdir.rows(folder / "metrics.jsonl")
    ]
    tables = {p.name: p.read_text() for p in (folder / "samples").glob("*.jsonl")}
    return rows, tables


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        count_only(patch)
        found = train(folder)
    return folder, *left(folder), np.asarray(found.model.params["x"])


@pytest.fixture
def whole(counting, example, tmp_path):
    """What that run left, and a copy of its folder."""
    folder, *expected = example
    shutil.copytree(folder, tmp_path / "whole")
    return tuple(expected)


def need_same(whole, folder, found):
    assert left(folder) == whole[:2]
    np.testing.assert_array_equal(found.model.params["x"], whole[2])


def test_a_run_goes_through_its_stages_with_one_count_of_steps(counting, tmp_path):
    found = train(tmp_path / "a")
    np.testing.assert_array_equal(found.model.params["x"], np.full(3, 45.0))
    rows, tables = left(tmp_path / "a")
    assert [row["step"] for row in rows] == list(range(10))
    assert [row["stage"] for row in rows] == ["sft"] * 5 + ["online"] * 5
    assert [row.get("n") for row in rows] == [None, 1, 2, 3, 4, 1, 2, 3, 4, 5]
    assert sorted(tables) == [f"{n:06}.jsonl" for n in (3, 4, 6, 9)]
    assert (tmp_path / "a" / "figures" / "learning.png").stat().st_size > 1000
    assert list((tmp_path / "a" / "tensorboard").glob("events*"))
    described = json.loads((tmp_path / "a" / "config.json").read_text())
    assert described["config"]["seed"] == 0 and described["versions"]["jax"]


def test_a_finished_run_says_so_and_does_nothing(whole, tmp_path):
    folder = tmp_path / "whole"
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != workdir.LOCK]
    before = {p: p.stat().st_mtime_ns for p in paths}
    assert folder / "metrics.jsonl" in before and len(before) > 10
    screen = Told()
    need_same(whole, folder, train(folder, screen))
    assert any("finished" in line for line in screen.lines)
    assert {p: p.stat().st_mtime_ns for p in paths} == before


@pytest.mark.parametrize("step", [0, 3, 4, 8])  # 4: the first of the second stage
@pytest.mark.parametrize(
    "error", [Refused("no reward"), RuntimeError("XLA"), stopping.GivenUp()]
)
def test_a_step_that_fails_costs_nothing_but_itself(step, error, whole, tmp_path):
    """What is before it is saved, so that it is the first one tried again."""
    folder = tmp_path / "run"
    Counter.fails[step] = error
    stops = stopping.Stopped if isinstance(error, stopping.GivenUp) else type(error)
    with pytest.raises(stops):
        train(folder)
    done = [row["step"] for row in workdir.rows(folder / "metrics.jsonl")]
    assert done == list(range(step + 1))
    if step:
        assert max(checkpoint.whole(folder / "checkpoints")) == step
    need_same(whole, folder, train(folder))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, pathlib.Path.unlink])
def test_a_damaged_checkpoint_is_not_used_and_it_is_told(damage, whole, tmp_path):
    folder = tmp_path / "run"
    Counter.fails[7] = RuntimeError("stop here")
    with pytest.raises(RuntimeError):
        train(folder)
    assert checkpoint.whole(folder / "checkpoints") == [6, 7]
    files = [p for p in (folder / "checkpoints" / "7").rglob("*") if p.is_file()]
    biggest = max(files, key=lambda path: path.stat().st_size)
    damage(biggest)
    screen = Told()
    found = train(folder, screen)
    name = biggest.relative_to(folder / "checkpoints" / "7")
    assert any(f"checkpoint 7 is not used: {name}" in line for line in screen.lines)
    need_same(whole, folder, found)


def test_any_file_of_a_checkpoint_may_be_damaged(counting, tmp_path):
    train(tmp_path / "a")
    at = tmp_path / "a" / "checkpoints"
    files = [p for p in (at / "9").rglob("*") if p.is_file() and p.stat().st_size]
    for path in files:
        data = path.read_bytes()
        for damage in (flip, cut, pathlib.Path.unlink):
            damage(path)
            assert checkpoint.whole(at) == [8]
            path.write_bytes(data)
    assert len(files) > 5 and checkpoint.whole(at) == [8, 9]


def test_without_any_whole_checkpoint_it_begins_again(whole, tmp_path):
    folder = tmp_path / "run"
    Counter.fails[3] = RuntimeError("stop here")
    with pytest.raises(RuntimeError):
        train(folder)
    for path in (folder / "digests").glob("*"):
        path.unlink()
    screen = Told()
    need_same(whole, folder, train(folder, screen))
    assert sum("it was not completed" in line for line in screen.lines) == 2


def test_a_full_disk_ends_the_run_and_nothing_that_was_saved_is_lost(
    whole, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    write, calls = workdir.append, []

    def full(path, row):
        calls.append(row)
        if len(calls) == 8:
            with path.open("a") as file:
                file.write('{"step": 7, "st')
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, row)

    monkeypatch.setattr(workdir, "append", full)
    with pytest.raises(OSError, match="No space left"):
        train(folder)
    monkeypatch.setattr(workdir, "append", write)
    assert checkpoint.whole(folder / "checkpoints") == [4, 6]
    need_same(whole, folder, train(folder))


def test_a_save_that_fails_is_told_by_the_next_one(whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    digests = checkpoint._digests

    def full(at):
        if at.name == "6":
            raise OSError(errno.ENOSPC, "No space left on device")
        return digests(at)

    monkeypatch.setattr(checkpoint, "_digests", full)
    with pytest.raises(OSError, match="No space left"):
        train(folder)
    monkeypatch.setattr(checkpoint, "_digests", digests)
    assert checkpoint.whole(folder / "checkpoints") == [4]
    need_same(whole, folder, train(folder))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_being_asked_to_stop_saves_the_step_under_way(number, whole, tmp_path):
    folder = tmp_path / "run"

    class Asked(Told):
        def show(self, row):
            if row["step"] == 5:
                os.kill(os.getpid(), number)

    with pytest.raises(stopping.Stopped):
        train(folder, Asked())
    assert max(checkpoint.whole(folder / "checkpoints")) == 6
    need_same(whole, folder, train(folder))


def test_ctrl_c_once_more_ends_at_once(whole, tmp_path):
    folder = tmp_path / "run"

    class Twice(Told):
        def show(self, row):
            if row["step"] == 5:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(folder, Twice())
    assert checkpoint.whole(folder / "checkpoints") == [2, 4]
    need_same(whole, folder, train(folder))


def test_a_clock_that_jumps_changes_nothing(whole, tmp_path, monkeypatch):
    now, day = time.time, 86400

    class Jumps(Told):
        def show(self, row):
            back = day * (row["step"] > 3)
            monkeypatch.setattr(time, "time", lambda: now() - back)

    need_same(whole, tmp_path / "run", train(tmp_path / "run", Jumps()))


def test_what_does_not_touch_an_update_may_change_and_is_told(counting, tmp_path):
    folder = tmp_path / "run"
    train(folder, steps=3)
    screen = Told()
    found = train(folder, screen, steps=5, keep={"every": 3})
    told = "\n".join(screen.lines)
    assert "training.steps was 3, and is 5" in told
    assert "keep.every was 2, and is 3" in told
    np.testing.assert_array_equal(found.model.params["x"], np.full(3, 45.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"seed was 0, is 1\. "),
        ({"optimizer": config.Optimizer(learning_rate=1.0)}, "optimizer.learning_rate"),
    ],
)
def test_what_touches_an_update_is_refused(change, message, whole, tmp_path):
    folder = tmp_path / "whole"
    with pytest.raises(Refused, match=message):
        train(folder, **change)
    need_same(whole, folder, train(folder))


def test_other_versions_are_told_and_written_down(counting, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(folder, steps=3)
    circumstances = beginning._circumstances()
    circumstances["versions"]["jax"] = "9.9"
    monkeypatch.setattr(beginning, "_circumstances", lambda: circumstances)
    screen = Told()
    train(folder, screen)
    told = "\n".join(screen.lines)
    assert "versions.jax was" in told and "is '9.9' from here on" in told
    assert "may differ, in last bits" in told
    assert workdir.begun(folder)["versions"]["jax"] == "9.9"


def test_other_problems_are_refused(counting, tmp_path, monkeypatch):
    """The same name and settings, and a row of the data was changed."""
    train(tmp_path, steps=3)
    make = task.make

    def other(*given):
        found = make(*given)
        first = found.train[0]._replace(answer="another")
        return found._replace(train=[first, *found.train[1:]])

    monkeypatch.setattr(task, "make", other)
    with pytest.raises(Refused, match=r"problems was '[0-9a-f]{16}', is '"):
        train(tmp_path)


def test_a_schedule_that_ends_with_the_run_fixes_its_length(counting, tmp_path):
    optimizer = config.Optimizer(schedule="cosine")
    train(tmp_path / "run", steps=3, optimizer=optimizer)
    with pytest.raises(Refused, match=r"training.steps was 3, is 5"):
        train(tmp_path / "run", steps=5, optimizer=optimizer)


def test_a_fork_goes_on_with_other_settings_elsewhere(whole, tmp_path):
    folder, other = tmp_path / "whole", tmp_path / "other"
    screen = Told()
    found = train(other, screen, seed=1, steps=7, fork_from=folder)
    assert any("goes on from step 9" in line for line in screen.lines)
    np.testing.assert_array_equal(found.model.params["x"], np.full(3, 66.0))
    rows, _ = left(other)
    assert rows[:10] == whole[0] and [row["step"] for row in rows[10:]] == [10, 11]
    need_same(whole, folder, train(folder))
    # The same command goes on with it, with or without the source; another is refused.
    given = {"seed": 1, "steps": 7}
    train(other, fork_from=folder, **given), train(other, **given)
    assert workdir.begun(other)["forked_from"] == str(folder)
    with pytest.raises(Refused, match=r"forked_from was .*whole', is .*other'"):
        train(other, fork_from=other, **given)


def test_a_fork_of_nothing_is_refused(counting, tmp_path):
    with pytest.raises(Refused, match="where no checkpoint is whole"):
        train(tmp_path / "run", fork_from=tmp_path / "nothing")


def test_a_folder_that_cannot_be_written_is_refused(counting):
    with pytest.raises(Refused, match="cannot be written"):
        train(pathlib.Path("/proc/grpo_jax"))


def test_a_folder_has_one_writer(counting, tmp_path):
    with workdir.locked(tmp_path / "run"):  # noqa: SIM117
        with pytest.raises(Refused, match="is being written by process"):
            train(tmp_path / "run")


def test_fewer_steps_than_there_are_is_refused(counting, tmp_path):
    train(tmp_path)
    with pytest.raises(Refused, match=r"at step 9, of a stage online .* online to 7"):
        train(tmp_path, steps=3)
    rows, _ = left(tmp_path)
    assert [row["step"] for row in rows] == list(range(10))
    assert train(tmp_path).metrics["step"] == 9


def test_a_fork_to_other_stages_is_refused_before_anything_is_written(
    counting, tmp_path
):
    train(tmp_path / "one")
    chosen = dataclasses.replace(settings(), stages=("online",), sft=config.SFT())
    with pytest.raises(Refused, match="of a stage online that began after step 4"):
        run.train(chosen, tmp_path / "two", screen=Told(), fork_from=tmp_path / "one")
    assert not (tmp_path / "two" / workdir.CONFIG).exists()


def test_a_fork_to_other_arrays_is_refused_before_anything_is_written(
    counting, tmp_path, monkeypatch
):
    train(tmp_path / "one")
    monkeypatch.setattr(
        run.learner, "abstract", lambda _: learner.State(train_step.State({}, {}))
    )
    with pytest.raises(Refused, match="holds 2 arrays that these do not have"):
        train(tmp_path / "two", fork_from=tmp_path / "one")
    assert not (tmp_path / "two" / workdir.CONFIG).exists()


@pytest.mark.parametrize("text", ["", '{"policy/a": "12', "[]"])
def test_damaged_digests_are_told_and_the_step_before_is_used(counting, tmp_path, text):
    train(tmp_path)
    (tmp_path / "digests" / "9.json").write_text(text)
    screen = Told()
    train(tmp_path, screen)
    assert any("checkpoint 9 is not used" in line for line in screen.lines)


def test_a_kill_before_the_digests_leaves_the_checkpoint_before(
    counting, tmp_path, monkeypatch
):
    def die(folder):
        raise KeyboardInterrupt

    train(tmp_path, steps=3)
    before = checkpoint.whole(tmp_path / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_digests", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert checkpoint.whole(tmp_path / "checkpoints")[-1:] >= before[-1:]
    with pytest.raises(Refused, match="one before it must be there"):
        config.Keep(latest=1)


def test_a_run_of_a_model_that_was_given_cannot_be_named(counting, tmp_path):
    from grpo_jax import runs as named
    from grpo_jax.models.settings import Model
    from tests import runs

    given = runs.model(settings().model)
    screen = Told()
    run.train(settings(), tmp_path, screen=screen, model=given)
    assert not any(line.startswith("next:") for line in screen.lines)
    with pytest.raises(Refused, match="a model that a program gave it"):
        named.find(Model(name=str(tmp_path)))


def test_going_on_warns_of_nothing(counting, tmp_path, caplog):
    train(tmp_path, steps=3)
    caplog.clear()
    train(tmp_path)
    assert [one.message for one in caplog.records if one.levelname != "INFO"] == []


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
from grpo_jax import cli
sys.exit(cli.main())
"""


def test_a_save_that_the_disk_does_not_take_is_told_in_a_line(tmp_path):
    """What Orbax itself writes, and not what we do: no traceback but with --debug."""
    few = {"sft.steps": 1, "sft.batch-size": 4, "training.steps": 1, "data.count": 60}
    few |= {"training.batch-size": 4, "algorithm.group-size": 4, "optimizer.warmup": 0}
    few |= {"evaluation.questions": 4, "model.tiny.width": 16, "model.tiny.ffw": 16}
    words = ["train", "experiments/quickstart.py", "--workdir", str(tmp_path)]
    words += [word for k, x in few.items() for word in (f"--{k}", str(x))]
    # Programs that it could not keep would be told as well.
    known = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    known |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    command = [sys.executable, "-c", LIMITED, *words]
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    (told,) = done.stderr.splitlines()
    assert done.returncode == 1 and told.startswith("failed: ")
    assert "File too large" in told and "the same command goes on" in told
    assert checkpoint.whole(tmp_path / "checkpoints") == []
