"""A figure from nothing: its points, its drawing, and what is said if that fails."""

import pathlib

import pytest

from grpo_jax import cli

FIGURE = """
from grpo_jax import config
from grpo_jax.sweep import Point

SEEDS = 2
get_config = config.Config


def get_points(seeds, smoke):
    steps = 1 if smoke else 2
    return {
        f"figure/{arm}-{seed}": Point("train", FILE, {"seed": seed, "steps": steps})
        for arm in ARMS
        for seed in range(seeds)
    }


def report(root, points, out):
    out.mkdir(parents=True)
    (out / "told").write_text(" ".join([str(root), *points]))
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


def test_a_figure_is_named_and_its_points_are_run_and_drawn(figure):
    path = figure("a", "b")
    assert cli.main(["reproduce", "plot"]) == 0
    root = pathlib.Path("runs/deepseekmath")
    names = [f"figure/{arm}-{seed}" for arm in "ab" for seed in (0, 1)]
    told = (path.parent / "results" / "told").read_text()
    assert told == " ".join([str(root), *names])
    for name in names:
        said = (root / name / "words").read_text()
        assert said.startswith(f"train {path} --workdir {root / name} --seed")
        assert said.endswith("--steps 2")


def test_smoke_is_small_and_apart(figure):
    path = figure("a")
    assert cli.main(["reproduce", str(path), "--smoke", "--seeds", "1"]) == 0
    root = pathlib.Path("runs/deepseekmath/smoke")
    assert (root / "results" / "told").read_text() == f"{root} figure/a-0"
    assert (root / "figure/a-0/words").read_text().endswith("--steps 1")
    assert not (path.parent / "results").exists()


def test_where_points_and_results_go_is_for_the_user_to_say(figure):
    figure("a")
    words = ["--workdir", "w", "--out", "o", "--jobs", "1", "--seeds", "1"]
    assert cli.main(["reproduce", "plot", *words]) == 0
    assert pathlib.Path("o/told").read_text() == "w figure/a-0"


def test_nothing_is_drawn_of_a_sweep_that_failed(figure, capsys):
    path = figure("a", "bad")
    assert cli.main(["reproduce", "plot", "--seeds", "1", "--tries", "1"]) == 1
    said = capsys.readouterr().err
    log = "runs/deepseekmath/points/figure/bad-0.log"
    assert f"figure/bad-0 ended with code 1: it broke ({log})" in said
    assert not (path.parent / "results").exists()


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
