"""What figures say of several seeds: of rows by hand, and of those that are kept."""

import json

import numpy as np
import pytest

from grpo_jax import experiment, figures, reproduce, workdir
from tests.experiments.deepseekmath.test_points import KEPT

FOLDER = reproduce.FIGURES
DRAWN = [path for path in KEPT if (path.parent / f"{path.name[:-13]}.json").exists()]


def figure(name):
    return experiment.load(str(FOLDER / f"{name}.py"))


def of_all(module, row):
    """A record of each of a figure's points, by arm and seed."""
    found = {}
    for seed in range(3):
        for arm in module.ARMS:
            name = module.miniature.place(module.NAME, arm, seed)
            found[name] = {"seconds": 60.0, "code": "abc"} | row(arm, seed)
    return found


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.name.partition(".")[0])
def test_numbers_that_are_kept_are_those_of_the_rows(path, tmp_path):
    name = path.name.partition(".")[0]
    module = figure(name)
    records = {row["name"]: row for row in workdir.rows(path)}
    module.report(records, module.SEEDS, tmp_path)
    ours, kept = (
        json.loads((folder / f"{name}.json").read_text())
        for folder in (tmp_path, path.parent)
    )
    for one in (ours, kept):
        one["by"].pop("drawn_with")
    assert ours == kept
    line = f"| [{name}]({name}.png) | {kept['told']} |"
    assert line in (path.parent / "README.md").read_text()


def test_corrections_are_held_against_what_they_change(tmp_path, capsys):
    """All gain 2 points and a little of each seed over what they are held against."""
    module = figure("corrections")

    def of(arm):
        return 70.0 if arm == module.PLAIN else of(module.AGAINST[arm]) + 2.0

    def row(arm, seed):
        value = of(arm) + seed + 0.1 * seed * (arm != module.PLAIN)
        accuracy = dict.fromkeys(module.ACCURACY, value)
        return accuracy | {"kl": None if arm == "no KL" else 0.1, "samples/tokens": 9.0}

    assert module.AGAINST["μ = 2, no clip"] == "μ = 2"
    assert module.AGAINST["no clip"] == module.AGAIN
    module.report(of_all(module, row), 3, tmp_path)
    found = json.loads((tmp_path / "corrections.json").read_text())
    plain = [arm for arm, other in module.AGAINST.items() if other == module.PLAIN]
    for arm, gain in found["gains"].items():
        one = gain[module.INSIDE]
        assert one["mean"] == pytest.approx(2.1 if arm in plain else 2.0)
        assert one["low"] <= one["mean"] <= one["high"]
    assert found["told"].startswith("20 of 20 intervals leave out 0: no KL +2.1 (")
    assert "(+2.0 to +2.0)" in capsys.readouterr().out


def test_effects_of_group_and_beta_by_hand(tmp_path):
    """Accuracy is 40 + 3 log2 G − 10 (β = 0.4), and a point for each seed."""
    module, records = figure("sweep_group_beta"), {}
    for name, point in module.get_points(3, smoke=False).items():
        G, beta = (point.settings[f"algorithm.{x}"] for x in ("group_size", "beta"))
        seed = point.settings["seed"]
        inside = 0.4 + 0.03 * np.log2(G) - 0.1 * (beta == 0.4) + 0.01 * seed
        found = dict.fromkeys(module.MAPS, 0.2) | {module.INSIDE: inside}
        records[name] = {"seconds": 60.0, "code": "abc"} | found
    module.report(records, 3, tmp_path)
    said = json.loads((tmp_path / "sweep_group_beta.json").read_text())
    effects = [one["mean"] for one in said["effects"].values()]
    assert effects == pytest.approx([3.0, -10.0])
    grid = np.array(said["equal samples"][module.INSIDE])
    assert grid.shape == (6, 6, 3)
    np.testing.assert_allclose(grid[0, :, 0], [43, 46, 49, 52, 55, 58])
    assert said["equal questions"][module.INSIDE]["8"] == pytest.approx([49, 50, 51])


def test_rounds_are_compared_after_the_later_branch():
    module = figure("figure6")
    ours = figures.Curves(np.array([20, 30, 40]), np.array([[9.0, 4.0, 6.0]]))
    theirs = figures.Curves(np.array([10, 20, 30, 40]), np.array([[8.0, 9, 1, 2]]))
    assert [x.tolist() for x in module.means(ours, theirs)] == [[5.0], [1.5]]
    assert [x.tolist() for x in module.means(theirs, ours)] == [[1.5], [5.0]]
