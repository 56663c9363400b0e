"""A figure from nothing: its points, its drawing, and what is said if that fails."""

import json
import pathlib
import shutil

import pytest

from grpo_jax import cli, line, reproduce
from grpo_jax.sweep import Made, Point

FIGURE = """
import json

from grpo_jax import config
from grpo_jax.sweep import Made, Point

SEEDS = 2
OF_SHARED = {}
get_config = config.Config


def get_points(seeds, smoke):
    found = {"shared": Point("train", FILE, OF_SHARED), "idle": Point("train", FILE)}
    for arm in ARMS:
        for seed in range(seeds):
            given = {"seed": seed, "training.steps": 1 if smoke else 2}
            given |= {"model.name": Made("shared")}
            found[f"plot/{arm}-{seed}"] = Point("train", FILE, given)
    return found


def keep(folder):
    return {"length": len((folder / "words").read_text())}


def report(records, seeds, out):
    told = {name: row["length"] for name, row in records.items()}
    (out / "told").write_text(json.dumps([seeds, told]))
"""
CHILD = """
import pathlib, sys
words = sys.argv[1:]
out = pathlib.Path(words[words.index("--workdir") + 1])
out.mkdir(parents=True)
(out / "words").write_text(" ".join(words))
if "bad" in str(out):
    sys.exit("it broke")
"""


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """A figure's file, whose points are no real runs."""
    child = tmp_path / "fake" / "grpo_jax"
    child.mkdir(parents=True)
    (child / "__main__.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(child.parent))
    monkeypatch.chdir(tmp_path)

    def make(*arms):
        path = pathlib.Path("experiments/deepseekmath/plot.py")
        path.parent.mkdir(parents=True)
        path.write_text(f"FILE, ARMS = {str(path)!r}, {arms!r}\n{FIGURE}")
        return path

    return make


def told(path):
    return json.loads((path / "told").read_text())


ROOT = pathlib.Path("runs/deepseekmath")


def test_a_figure_is_named_and_its_points_are_run_and_drawn(figure):
    path = figure("a", "b")
    assert cli.main(["reproduce", "plot"]) == 0
    names = [f"plot/{arm}-{seed}" for arm in "ab" for seed in (0, 1)]
    said = {name: (ROOT / name / "words").read_text() for name in names}
    found = told(path.parent / "results")
    assert found == [2, {name: len(text) for name, text in said.items()}]
    for name, text in said.items():
        assert text.startswith(f"train {path} --workdir {ROOT / name} --seed")
        assert text.endswith(f"--training.steps 2 --model.name {ROOT / 'shared'}")
    assert (ROOT / "shared").exists() and not (ROOT / "idle").exists()


def test_what_is_kept_is_not_run_again(figure):
    """Nor what only that needed; new seeds are, and whose command is another."""
    path = figure("a")
    assert cli.main(["reproduce", "plot", "--seeds", "1"]) == 0
    kept = path.parent / "results" / "plot.points.jsonl"
    first = kept.read_text()
    row = json.loads(first)
    assert row["name"] == "plot/a-0" and row["words"][0] == "train"
    shutil.rmtree(ROOT)
    assert cli.main(["reproduce", "plot", "--seeds", "1"]) == 0
    assert not (ROOT / "shared").exists() and kept.read_text() == first
    assert cli.main(["reproduce", "plot", "--seeds", "2"]) == 0
    assert (ROOT / "shared").exists() and not (ROOT / "plot/a-0").exists()
    assert [json.loads(x)["name"][-1] for x in kept.read_text().splitlines()] == [
        "0",
        "1",
    ]
    assert list(told(path.parent / "results")[1]) == ["plot/a-0", "plot/a-1"]
    for change in CHANGES:  # in whatever a run depends on: settings, defaults, others
        text = path.read_text()
        assert change[0] in text
        path.write_text(text.replace(*change))
        shutil.rmtree(ROOT)
        before = kept.read_text().count("plot/a-0")
        assert cli.main(["reproduce", "plot", "--seeds", "1"]) == 0
        assert kept.read_text().count("plot/a-0") == before + 2  # name and words


CHANGES = [
    ("else 2", "else 3"),
    ("get_config = config.Config", "get_config = lambda: config.Config(seed=7)"),
    ("OF_SHARED = {}", 'OF_SHARED = {"seed": 5}'),
]


def test_half_a_row_is_no_row(figure):
    path = figure("a")
    assert cli.main(["reproduce", "plot"]) == 0
    kept = path.parent / "results" / "plot.points.jsonl"
    whole = kept.read_text()
    kept.write_text(whole[:-9])
    assert cli.main(["reproduce", "plot"]) == 0
    assert kept.read_text() == whole


OF_FILE = """
from grpo_jax import config, experiment

def get_config():
    return experiment.changed(config.Config(), {"model.name": %r})
"""


@pytest.mark.parametrize("command", ["train", "train, by its file", "label", "data"])
def test_what_is_named_is_part_of_what_a_run_is(command, tmp_path):
    """A model's folder, wherever it is named, and a file of data."""
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "weights"
    model, kind = str(tmp_path / "model"), command.partition(",")[0]
    subject, given = str(tmp_path / "file.py"), {}
    text = OF_FILE % (model if "by its file" in command else "tiny")
    (tmp_path / "file.py").write_text(text)
    if command == "train":
        given = {"model.name": model}
    elif command == "data":
        kind, given = "train", {"data.name": str(file)}
    elif command == "label":
        subject, given = model, {"data": "series"}
    points = {"a": Point(kind, subject, given)}
    file.write_text("1")
    before = reproduce.identities(points)
    assert reproduce.identities(points) == before
    file.write_text("2")
    assert reproduce.identities(points) != before


def test_defaults_of_a_command_are_part_of_what_it_is(monkeypatch):
    points, real = {"a": Point("label", "tiny", {"data": "series"})}, line.parse
    before = reproduce.identities(points)
    other = lambda *words: real(*words)._replace(solutions=16)  # noqa: E731
    monkeypatch.setattr(line, "parse", other)
    assert reproduce.identities(points) != before


def test_where_a_run_goes_on_from_is_part_of_what_it_is(tmp_path):
    text = "from grpo_jax import config\nget_config = config.Config\n"
    (tmp_path / "file.py").write_text(text)
    points = {name: Point("train", str(tmp_path / "file.py")) for name in "ab"}
    forked = {"fork_from": Made("a", "policy-0"), "training.steps": 7}
    points["b"] = points["b"]._replace(settings=forked)
    known = reproduce.identities(points)
    forked["fork_from"] = Made("a", "policy-1")
    assert reproduce.identities(points)["b"] != known["b"] != known["a"]


def test_a_row_that_a_kill_prevented_is_made_up_for(figure):
    path = figure("a")
    assert cli.main(["reproduce", "plot", "--seeds", "1"]) == 0
    kept = path.parent / "results" / "plot.points.jsonl"
    before = kept.read_text()
    kept.unlink()
    (ROOT / "plot/a-0/words").write_text("not run again")
    assert cli.main(["reproduce", "plot", "--seeds", "1"]) == 0
    found = json.loads(kept.read_text())
    assert found == json.loads(before) | {"length": len("not run again")}


def test_smoke_is_small_and_apart(figure):
    path = figure("a")
    assert cli.main(["reproduce", str(path), "--smoke"]) == 0
    root = ROOT / "smoke"
    assert list(told(root / "results")[1]) == ["plot/a-0"]
    assert "--training.steps 1" in (root / "plot/a-0/words").read_text()
    assert not (path.parent / "results").exists()


def test_where_points_and_results_go_is_for_the_user_to_say(figure):
    figure("a")
    words = ["--workdir", "w", "--out", "o", "--jobs", "1", "--seeds", "1"]
    assert cli.main(["reproduce", "plot", *words]) == 0
    assert pathlib.Path("w/plot/a-0/words").exists()
    assert list(told(pathlib.Path("o"))[1]) == ["plot/a-0"]


def test_nothing_is_drawn_of_a_sweep_that_failed(figure, capsys):
    path = figure("a", "bad")
    assert cli.main(["reproduce", "plot", "--seeds", "1", "--tries", "1"]) == 1
    said = capsys.readouterr().err
    log = "runs/deepseekmath/points/plot/bad-0.log"
    assert f"plot/bad-0 ended with code 1: it broke ({log})" in said
    assert not (path.parent / "results" / "told").exists()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (
            ["nothing"],
            "there is no experiment file experiments/deepseekmath/nothing.py",
        ),
        (["plot", "--seeds", "0"], "--seeds is 0"),
        (["plot", "--jobs", "0"], "--jobs is 0"),
        (["plain.py"], "plain.py has no get_points"),
    ],
)
def test_refused(figure, words, rule, capsys):
    figure("a")
    pathlib.Path("plain.py").write_text(
        "from grpo_jax import config\nget_config = config.Config\n"
    )
    assert cli.main(["reproduce", *words]) == 2
    assert rule in capsys.readouterr().err
