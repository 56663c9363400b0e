"""Points of a sweep: run once, in order of need, whatever is killed."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from grpo_jax import config, experiment, sweep
from grpo_jax.section import Refused
from grpo_jax.sweep import Made, Point

# Stands for a command of the package: it writes down that it ran, and waits.
FAKE = """
import os, pathlib, signal, sys, time
words = sys.argv[1:]
at = lambda name: words[words.index(name) + 1]
out = pathlib.Path(at("--workdir"))
out.mkdir(parents=True, exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(33))
with (out / "ran").open("a") as file:
    file.write(f"{words[1]} {len(os.sched_getaffinity(0))}\\n")
(out / "tuned").write_text(os.environ["GLIBC_TUNABLES"])
(out / "pid").write_text(str(os.getpid()))
print("said", words[1])
if "--seconds" in words:
    deadline = time.monotonic() + float(at("--seconds"))
    while time.monotonic() < deadline and not (out.parent / "go").exists():
        time.sleep(0.02)
if "--code" in words:
    print("it went wrong")
    if not (out / "again").exists() or at("--until") == "never":
        (out / "again").touch()
        sys.exit(int(at("--code")))
if "--needs" in words:
    assert (pathlib.Path(at("--needs")) / "ran").exists()
(out / "ended").touch()
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`python -m grpo_jax` is FAKE."""
    package = tmp_path / "fake" / "grpo_jax"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setattr(sweep, "PAUSE", 0.02)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


def point(**settings):
    return Point("train", "file.py", settings)


def identities(points, root):
    return {name: str(sweep.words(one, name, root)) for name, one in points.items()}


def run(points, root, **options):
    known = identities(points, root)
    return sweep.Sweep(points, root, known, **options).run(sweep.Board())


def ran(root, name):
    path = root / name / "ran"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_words_say_what_a_point_is(tmp_path):
    one = Point(
        "train",
        "file.py",
        {"a.long_name": (1, 2), "b": None, "c": Made("x/y"), "d": Made("z", "w.json")},
    )
    assert sweep.words(one, "p/q", pathlib.Path("r")) == [
        *("train", "file.py", "--workdir", "r/p/q", "--a.long-name", "1", "2"),
        *("--b", "None", "--c", "r/x/y", "--d", "r/z/w.json"),
    ]
    two = Point("label", Made("x"), {"questions": 4})
    assert sweep.words(two, "e", pathlib.Path("r")) == [
        *("label", "r/x", "--out", "r/e", "--questions", "4")
    ]
    three = Point("evaluate", "m", {"k": 2})
    assert sweep.words(three, "e", pathlib.Path("r")) == [
        *("evaluate", "m", "--out", "r/e/evaluation.json", "--k", "2")
    ]
    assert one.needs == {"x/y", "z"}
    assert two.needs == {"x"}


@pytest.mark.parametrize(
    "settings",
    [
        {"stages": ("sft", "online"), "training.mesh": (1, 1, 1), "seed": 3},
        {"algorithm.beta": 1e-05, "training.packed": False, "evaluation.every": None},
        {"sampling.stop_strings": ("\n", "a b")},
        {"algorithm.advantage.reward_weights": (-1.0, 0.5), "data.name": "a b"},
    ],
)
def test_the_command_line_reads_settings_back(settings, tmp_path):
    file = tmp_path / "file.py"
    file.write_text("from grpo_jax import config\nget_config = config.Config\n")
    words = sweep.words(Point("train", str(file), settings), "x", tmp_path)
    order = experiment.parse(experiment.load(str(file)), words[2:])
    assert order.config == experiment.changed(config.Config(), settings)
    assert order.workdir == tmp_path / "x"


def test_points_run_once_and_after_what_they_need(fake):
    points = {
        "b": point(needs=Made("deep/a")),
        "deep/a": point(seconds=0.2),
        "c": point(),
    }
    assert run(points, fake, jobs=2) == ({}, [], False)
    assert [ran(fake, name) for name in points] == [1, 1, 1]
    assert "said file.py" in (fake / "points/deep/a.log").read_text()
    assert run(points, fake) == ({}, [], False)
    assert [ran(fake, name) for name in points] == [1, 1, 1]
    words = sweep.words(points["b"], "b", fake)
    assert sweep.done("b", fake, str(words)).words == words
    assert sweep.done("b", fake, "another") is None
    shutil.rmtree(fake / "c")  # what is gone is not done
    assert run(points, fake) == ({}, [], False)
    assert [ran(fake, name) for name in points] == [1, 1, 1]


def test_a_point_of_another_identity_is_not_done(fake):
    """Whether its command goes on in the same folder is for that to say."""
    run({"a": point(steps=1), "b": point()}, fake)
    run({"a": point(steps=2), "b": point()}, fake)
    assert (ran(fake, "a"), ran(fake, "b")) == (2, 1)


@pytest.mark.parametrize("own", [None, "glibc.malloc.arena_max=2"])
def test_memory_is_kept_unless_the_user_says_how(own, fake, monkeypatch):
    if own:
        monkeypatch.setenv("GLIBC_TUNABLES", own)
    run({"a": point()}, fake)
    told = (fake / "a" / "tuned").read_text()
    assert told == own if own else "mmap_max=0" in told


def test_jobs_share_the_cores(fake):
    run({"a": point()}, fake, jobs=1)
    run({"b": point()}, fake, jobs=2)
    cores = len(os.sched_getaffinity(0))
    all_of = int((fake / "a/ran").read_text().split()[1])
    share = int((fake / "b/ran").read_text().split()[1])
    assert all_of == cores
    assert share == max(1, -(-cores // 2))


def test_a_failure_is_tried_again_and_told_and_the_others_go_on(fake, capsys):
    points = {
        "mends": point(code=1, until="then"),
        "stays": point(code=1, until="never"),
        "needs": point(needs=Made("stays")),
        "refused": point(code=2, until="never"),
        "well": point(),
    }
    failed, left, is_stopped = run(points, fake, tries=2)
    assert failed == {"stays": (1, "it went wrong"), "refused": (2, "it went wrong")}
    assert (left, is_stopped) == (["needs"], False)
    assert [ran(fake, x) for x in points] == [2, 2, 0, 1, 1]
    assert "stays failed with code 1: it went wrong" in capsys.readouterr().out


def test_the_time_left_is_told(fake, capsys):
    run({"a": point(seconds=0.1), "b": point()}, fake)
    out = capsys.readouterr().out
    assert "2 points, 2 to run" in out
    assert "1 of 2: a done in 0 s; about 0 minutes left" in out
    assert "2 of 2: b done" in out


DRIVER = """
import os, pathlib, sys
from grpo_jax import sweep
from grpo_jax.sweep import Point
points = {name: Point("train", "file.py", {"seconds": 60}) for name in "abc"}
os.environ["PYTHONPATH"] = sys.argv[2]  # where children find the other package
root = pathlib.Path(sys.argv[1])
found = sweep.Sweep(points, root, dict(zip("abc", "abc")), jobs=2).run(sweep.Board())
print(found)
"""


def driver(fake):
    """Another process that runs a, b and c, of which each would take a minute."""
    own = str(pathlib.Path(sweep.__file__).parents[1])
    command = [sys.executable, "-c", DRIVER, str(fake), os.environ["PYTHONPATH"]]
    started = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": own}, stdout=subprocess.PIPE, text=True
    )
    until(lambda: ran(fake, "a") and ran(fake, "b"))
    return started


def until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_driver_loses_nothing_and_nothing_runs_twice_at_once(fake):
    first = driver(fake)
    first.kill()
    assert "done" not in first.communicate()[0]
    second = driver(fake)  # finds a and b at work, and does c
    until(lambda: ran(fake, "c"))
    assert [ran(fake, x) for x in "abc"] == [1, 1, 1]
    (fake / "go").touch()
    out, _ = second.communicate(timeout=60)
    assert "Outcome(failed={}, left=[], is_stopped=False)" in out
    assert [ran(fake, x) for x in "abc"] == [2, 2, 1]  # to learn that they are done
    assert all((fake / x / "ended").exists() for x in "abc")


def test_a_killed_point_is_run_again(fake):
    started = driver(fake)
    os.kill(int((fake / "a/pid").read_text()), signal.SIGKILL)
    until(lambda: ran(fake, "a") == 2)
    (fake / "go").touch()
    out, _ = started.communicate(timeout=60)
    assert "failed={}" in out


def test_a_driver_that_is_stopped_stops_its_points(fake):
    started = driver(fake)
    started.send_signal(signal.SIGTERM)
    out, _ = started.communicate(timeout=60)
    assert "Outcome(failed={}, left=['a', 'b', 'c'], is_stopped=True)" in out
    for name in "ab":
        with pytest.raises(ProcessLookupError):
            os.kill(int((fake / name / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("points", "rule"),
    [
        ({"a": Point("sample", "x")}, "a 'sample'; there are train, label"),
        ({"a": point(needs=Made("b"))}, "needs b, which is none"),
        ({"a": point(x=Made("b")), "b": point(x=Made("a"))}, "in a ring: a, b"),
    ],
)
def test_what_cannot_be_carried_through_is_refused(points, rule, tmp_path):
    with pytest.raises(Refused, match=rule):
        sweep.Sweep(points, tmp_path, {})


@pytest.mark.parametrize("name", ["jobs", "tries"])
def test_numbers_below_one_are_refused(name, tmp_path):
    with pytest.raises(Refused, match=f"--{name} is 0"):
        sweep.Sweep({}, tmp_path, {}, **{name: 0})


def test_what_is_written_is_plain(fake):
    run({"a": point(beta=0.5)}, fake)
    found = json.loads((fake / "points/a.json").read_text())
    assert found["words"][-2:] == ["--beta", "0.5"]
    assert found["seconds"] >= 0
    assert re.fullmatch("[0-9a-f]{16}-[0-9a-f]{16}", found["code"])


def test_code_that_is_edited_while_a_point_runs_is_told_with_what_it_was(fake):
    """The experiment's own, too."""
    file = pathlib.Path("file.py")
    file.write_text("a = 1")
    points = {"a": point(seconds=60)}
    driver = sweep.Sweep(points, fake, identities(points, fake))

    class Board(sweep.Board):
        def show(self, sweep):
            if (fake / "a" / "ran").exists():
                file.write_text("a = 2")
                (fake / "go").touch()

    driver.run(Board())
    code = json.loads((fake / "points/a.json").read_text())["code"]
    before, after = code.split(" to ")
    assert before[:16] == after[:16] and before[16:] != after[16:]


def test_a_point_that_wrote_nothing_has_failed(fake):
    main = pathlib.Path("fake/grpo_jax/__main__.py")
    main.write_text("print('nothing to do')")
    found = run({"a": point()}, fake, tries=2)
    assert found.failed["a"].code == 0 and not (fake / "points/a.json").exists()


def test_nothing_outlives_a_driver_that_fails(fake):
    points = {"a": point(), "b": point(seconds=60)}

    def ended(name):
        until(lambda: ran(fake, "b"))
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        run(points, fake, jobs=2, ended=ended)
    with pytest.raises(ProcessLookupError):
        os.kill(int((fake / "b/pid").read_text()), 0)
