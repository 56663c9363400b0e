"""What figures share, by hand: curves, claims, what is written."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from grpo_jax import contrast, figures, workdir
from grpo_jax.figures import Claim
from grpo_jax.section import Refused


def written(folder, values):
    """A run with an accuracy at some of its steps."""
    for step, value in enumerate(values):
        row = {"step": step} | ({} if value is None else {"eval/accuracy": value})
        workdir.append(folder / workdir.METRICS, row)
    return folder


def test_curves_are_of_the_steps_that_all_seeds_have(tmp_path):
    folders = [
        written(tmp_path / "a", [0.0, None, 0.2, 0.4]),
        written(tmp_path / "b", [0.1, 0.9, 0.3]),
    ]
    runs = [figures.kept(folder, ["eval/accuracy"]) for folder in folders]
    assert runs[0]["eval/accuracy"] == {"step": [0, 2, 3], "value": [0.0, 0.2, 0.4]}
    found = figures.curves(runs, "eval/accuracy")
    np.testing.assert_array_equal(found.step, [0, 2])
    np.testing.assert_array_equal(found.value, [[0.0, 0.2], [0.1, 0.3]])
    np.testing.assert_allclose(figures.ends(found, 2), [0.1, 0.2])
    np.testing.assert_allclose(figures.ends(found, 1), [0.2, 0.3])
    with pytest.raises(Refused, match="2 points have no last 3"):
        figures.ends(found, 3)
    other = written(tmp_path / "c", [None, 0.5])
    runs.append(figures.kept(other, ["eval/accuracy"]))
    with pytest.raises(Refused, match="3 runs have no eval/accuracy at a common step"):
        figures.curves(runs, "eval/accuracy")
    with pytest.raises(Refused, match="has no row with kl"):
        figures.kept(other, ["eval/accuracy", "kl"])


def test_each_seed_is_drawn_and_their_mean_is_named():
    axes = Figure().subplots()
    found = figures.Curves(np.array([0, 5]), np.array([[0.0, 1.0], [0.5, 0.5]]))
    figures.draw(axes, found, "an arm", figures.LOOKS[1])
    *seeds, mean = axes.get_lines()
    assert [line.get_label() for line in seeds] == ["_child0", "_child1"]
    np.testing.assert_array_equal(mean.get_ydata(), [0.25, 0.75])
    assert mean.get_label() == "an arm" and mean.get_color() == "#d55e00"


def test_looks_differ_in_their_dashes():
    dashes = [str(look["linestyle"]) for look in figures.LOOKS]
    assert len(set(dashes)) == len(dashes)


def test_claims_are_judged_by_seeds_and_corrected_for_how_many_they_are():
    base = np.array([0.5, 0.6, 0.4, 0.5, 0.55, 0.51, 0.52, 0.53])
    less = [0.1, 0.11, 0.09, 0.1, 0.1, 0.1, 0.1, 0.1]
    ends = {"a": base, "b": base - less, "c": base[::-1]}
    claims = [Claim("a", "b", 0.02), Claim("b", "a"), Claim("a", "c")]
    found = figures.verdicts(claims, ends)
    assert [one.said for one in found] == ["yes", "the other way", "not told apart"]
    assert found[0].found == contrast.paired(ends["a"], ends["b"])
    # 8 seeds of one sign: 2/256; twice among three claims: 3 × .0078
    assert [one.found.p for one in found[:2]] == [0.0078125] * 2
    assert [one.holm for one in found[:2]] == pytest.approx([0.0234375] * 2)
    few = {name: x[:5] for name, x in ends.items()}  # 2/32: no seed could say more
    (one,) = figures.verdicts(claims[:1], few)
    assert one.found.low > 0 and one.holm == 0.0625 and one.said == "not told apart"
    rows = figures.as_json(found)
    assert rows[0]["claim"] == "a − b" and rows[0]["paper"] == 0.02
    assert rows[0]["mean"] == pytest.approx(0.1) and rows[0]["seeds"] == 8
    assert str(found[0]).startswith("a − b: +0.1 (+0.1 to ")
    shown = figures.table(found, "points")
    assert list(shown.columns[0].cells) == ["a − b", "b − a", "a − c"]
    assert list(shown.columns[1].cells) == ["+0.02", "", ""]


def test_results_say_what_they_are_made_of(tmp_path):
    records = {
        name: {"seconds": seconds, "code": f"code of {name}"}
        for name, seconds in (("a", 1800.0), ("b", 5400.0))
    }
    out = tmp_path / "out"
    figure = Figure()
    curves = figures.Curves(np.array([0, 5]), np.array([[0.0, 1 / 3]]))
    given = {"curve": np.array([0.12345678, 1.0]), "n": 3, "of": {"a": curves}}
    for told in ("first", "second"):
        figures.write("plot", figure, given, told, records, out)
    figures.write("other", figure, {}, "more", records, out)
    found = json.loads((out / "plot.json").read_text())
    assert found["curve"] == [0.123457, 1.0] and found["n"] == 3
    assert found["of"]["a"] == {"step": [0, 5], "value": [[0.0, 0.333333]]}
    assert found["by"]["hours_at_least"] == 2 and found["by"]["runs"] == 2
    assert found["by"]["code"] == ["code of a", "code of b"]
    assert found["by"]["command"] == "python -m grpo_jax reproduce plot"
    assert (out / "plot.png").stat().st_size > 1000
    assert (out / "README.md").read_text().splitlines() == [
        *("# Results", "", "| figure | what came out |", "|---|---|"),
        "| [other](other.png) | more |",
        "| [plot](plot.png) | second |",
    ]


def test_what_the_paper_claims_stands_beside_what_came_out(tmp_path):
    base = np.array([0.5, 0.6, 0.4, 0.5, 0.55, 0.51, 0.52, 0.53])
    claims = [Claim("a", "b", 1.5), Claim("b", "a")]
    judged = figures.verdicts(claims, {"a": base + 0.25, "b": base})
    numbers = {"verdicts": {"in-domain, paper": figures.as_json(judged)}}
    figures.write("plot", Figure(), numbers, "told", {}, tmp_path)
    *_, head, line, row = (tmp_path / "README.md").read_text().splitlines()
    assert head.count("|") == line.count("|") == row.count("|") == 7
    assert row == (
        "| plot, in-domain | a − b | +1.50 | +0.25 (+0.25 to +0.25) | 0.016 | yes |"
    )


def test_what_is_no_number_is_null():
    x = {"a": np.array([1.0, np.nan]), "b": (float("inf"), None, np.float32(2))}
    assert figures._plain(x) == {"a": [1.0, None], "b": [None, None, 2]}
