"""The points of all figures are commands that the package takes."""

import pathlib

import pytest

from grpo_jax import config, evaluation, experiment, labelling, line, reproduce, sweep

FIGURES = [
    path
    for path in sorted(reproduce.FIGURES.glob("*.py"))
    if "get_points" in path.read_text()
]
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
        order = experiment.parse(experiment.load(point.subject), words[2:])
        assert isinstance(order.config, config.Config)
        assert order.workdir == ROOT / name
        seen.setdefault(str((order.config, order.fork_from)), []).append(name)
    assert not [names for names in seen.values() if len(names) > 1]  # no two alike
