"""What is drawn of a run."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from grpo_jax import plots
from grpo_jax.text import diversity


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The lines of each pair of axes, by their labels, and what the legend lists."""

    def draw(rows):
        figures, save = [], Figure.savefig

        def keep(self, *given, **options):
            figures.append(self)
            save(self, *given, **options)

        monkeypatch.setattr(Figure, "savefig", keep)
        path = plots.learning(rows, tmp_path / "a" / "figure.png")
        assert path.stat().st_size > 1000
        monkeypatch.undo()
        (figure,) = figures
        lines = [
            {line.get_label(): line for line in axes.get_lines()}
            for axes in figure.axes
        ]
        legend = figure.axes[0].get_legend()
        return lines, legend and [text.get_text() for text in legend.get_texts()]

    return draw


def rows(**more):
    return [
        {"step": i, "stage": "online", "reward_mean": 10.0 + i}
        | {name.replace("_", "/"): x for name, x in more.items()}
        for i in range(5)
    ]


def test_a_models_reward_has_its_own_axis_and_what_is_right_the_shares(drawn):
    """A logit has no scale of its own, and a share has."""
    made = rows(samples_right=0.25, samples_parted=0.0)
    made[3]["samples/parted"] = made[4]["samples/parted"] = 1.0
    (shares, rewards), legend = drawn(made)
    right = shares["right, of the samples in training"]
    np.testing.assert_array_equal(right.get_ydata(), [0.25] * 5)
    np.testing.assert_array_equal(
        shares["reward rises, right falls"].get_xdata(), [3, 4]
    )
    np.testing.assert_array_equal(
        rewards["reward in training"].get_ydata(), 10.0 + np.arange(5)
    )
    assert right.axes.get_ylim()[1] == 1.02
    assert rewards["reward in training"].axes.get_ylim()[1] > 14
    assert set(legend) == {
        "right, of the samples in training",
        "reward rises, right falls",
        "reward in training",
    }


def test_without_a_reward_model_there_is_one_axis(drawn):
    (lines,), legend = drawn(rows())
    assert legend == ["reward in training"] and "reward in training" in lines


def test_kl_and_how_alike_groups_are_have_a_panel_where_rows_have_them(drawn):
    """Of a share the scale is known, of KL it is not."""
    shares = dict(zip(diversity.NAMES, (0.5, 0.25, 1.0), strict=True))
    made = [one | {"kl": 2.0 * one["step"]} | shares for one in rows()]
    made[2] |= {"kl": None, "diversity/agreement": None}
    (above, below, right), legend = drawn(made)
    assert legend == ["reward in training"] and list(above) == ["_child0", *legend]
    of_kl = right["KL to the reference"]
    np.testing.assert_array_equal(
        of_kl.get_xydata(), [[i, 2 * i] for i in (0, 1, 3, 4)]
    )
    named = {name: line for name, line in below.items() if name[0] != "_"}
    for line, share in zip(named.values(), shares.values(), strict=True):
        assert set(line.get_ydata()) == {share}
    assert (
        of_kl.axes.get_xlabel() == "" and below["_child0"].axes.get_xlabel() == "step"
    )
    listed = of_kl.figure.legends[0].get_texts()
    assert {text.get_text() for text in listed} == {"KL to the reference", *named}


def test_kl_alone_and_groups_alone_have_the_panel_for_themselves(drawn):
    (_, below), _ = drawn(rows(kl=1.0))
    assert list(below) == ["_child0", "KL to the reference"]
    (_, below), _ = drawn(rows(diversity_distinct=0.5))
    assert below["_child0"].axes.get_ylim() == (-0.02, 1.02)


def test_each_set_that_is_examined_has_its_curve(drawn):
    made = rows()
    for i, one in enumerate(made[::4]):
        for name, share in (("", 0.5), ("chains-6/", 0.25)):
            for end, off in (("", 0.0), ("_low", -0.1), ("_high", 0.1)):
                one[f"eval/{name}accuracy{end}"] = share + off + i / 10
    _, legend = drawn(made)
    assert legend == [
        "reward in training",
        "accuracy, held-out questions (95%)",
        "accuracy, chains-6 (95%)",
    ]


def test_a_run_without_numbers_is_drawn(drawn):
    (lines,), legend = drawn([{"step": 0, "stage": "sft"}])
    assert not lines and legend is None


def test_series_leave_out_what_a_row_lacks():
    rows = [{"step": 0, "x": 1.0}, {"step": 1}, {"step": 2, "x": 3.0}]
    step, value = plots.series(rows, "x")
    np.testing.assert_array_equal(step, [0, 2])
    np.testing.assert_array_equal(value, [1, 3])
