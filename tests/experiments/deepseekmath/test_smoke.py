"""Each figure from nothing, small: its runs, what is kept of them, its drawing."""

import json

import pytest

from grpo_jax import cli
from tests.experiments.deepseekmath.test_points import FIGURES

QUICK = "corrections", "sweep_group_beta"
SLOW = [path.stem for path in FIGURES if path.stem not in QUICK]


@pytest.mark.parametrize(
    "name", [*QUICK, *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW]]
)
def test_a_figure_is_made_of_runs_that_are_made_for_it(name, tmp_path, monkeypatch):
    # Its runs compile more than they compute, whatever CI's other tests are told.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    words = ["reproduce", name, "--smoke", "--workdir", str(tmp_path)]
    assert cli.main(words) == 0
    results = tmp_path / "smoke" / "results"
    numbers = json.loads((results / f"{name}.json").read_text())
    assert numbers["by"]["command"].endswith(f"reproduce {name}")
    assert numbers["by"]["runs"] == len(
        (results / f"{name}.points.jsonl").read_text().splitlines()
    )
    assert (results / f"{name}.png").stat().st_size > 10_000
    assert f"| [{name}]({name}.png) |" in (results / "README.md").read_text()
