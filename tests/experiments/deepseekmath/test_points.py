"""The points of all figures are commands that the package takes."""

import pathlib

import pytest

from grpo_jax import (
    config,
    evaluation,
    experiment,
    labelling,
    line,
    planning,
    reproduce,
    sweep,
    workdir,
)

FIGURES = [
    path
    for path in sorted(reproduce.FIGURES.glob("*.py"))
    if "get_points" in path.read_text()
]
KEPT = sorted((reproduce.FIGURES / "results").glob("*.points.jsonl"))
ROOT = pathlib.Path("root")
OPTIONS = {"label": labelling.Options, "evaluate": evaluation.Options}


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_every_point_of_a_figure_is_a_command_with_settings_that_hold(path, smoke):
    module = experiment.load(str(path))
    points = module.get_points(2, smoke)
    sweep.check(points)
    seen = {}
    for name, point in points.items():
        words = sweep.words(point, name, ROOT)
        if point.command in OPTIONS:
            given = line.parse(point.command, OPTIONS[point.command], words[1:])
            assert given.out in (ROOT / name, ROOT / name / "evaluation.json")
            continue
        given = experiment.load(point.subject), words[2:]
        if point.command == "plan":
            order = experiment.parse(*given, "plan", planning.Order)
            assert order.out == ROOT / name / "plan.json"
            what = order.config, order.topology, order.programs
        else:
            order = experiment.parse(*given)
            assert order.workdir == ROOT / name
            what = order.config, order.fork_from
        assert isinstance(order.config, config.Config)
        seen.setdefault(str(what), []).append(name)
    assert not [names for names in seen.values() if len(names) > 1]  # no two alike


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name.partition(".")[0])
def test_rows_that_are_kept_are_of_points_that_there_are(path):
    """A setting whose default changes makes them others, and so does a new field: that
    is to be left out of what is told while it is at its default."""
    module = experiment.load(
        str(path.parent.parent / path.name.partition(".")[0]) + ".py"
    )
    known = reproduce.identities(module.get_points(module.SEEDS, smoke=False))
    rows = list(workdir.rows(path))
    assert rows and len({row["name"] for row in rows}) == len(rows)
    assert [
        row["name"] for row in rows if known.get(row["name"]) != row["identity"]
    ] == []
