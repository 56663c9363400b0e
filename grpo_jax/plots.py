"""Figures: of a run, drawn from its metrics; of labelled steps."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from grpo_jax import hacking

SHARES = {  # of a group's samples, how different they are: see `diversity`
    "diversity/distinct": ("C4", "distinct completions"),
    "diversity/bigrams": ("C8", "distinct bigrams"),
    "diversity/agreement": ("C9", "pairs with the same answer"),
}


OF_SETS = "C3", "C6", "C5", "0.3"  # colours of what a run is examined on


def learning(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> pathlib.Path:
    """Accuracy on held-out questions with its interval, and the reward in training;
    below, where rows have them, the KL and how different the samples of a group are."""
    has_more = any(len(series(rows, key)[0]) for key in ("kl", *SHARES))
    figure = Figure(figsize=(7, 6 if has_more else 4), layout="constrained")
    ratios = (2, 1) if has_more else (1,)
    shape = {"squeeze": False, "sharex": True, "height_ratios": ratios}
    panels = figure.subplots(len(ratios), **shape)[:, 0]
    _learned(panels[0], rows)
    if has_more:
        _drift(panels[1], rows)
    panels[-1].set_xlabel("step")
    return written(figure, path)


def rounds(
    rows: Sequence[dict[str, Any]],
    of_judges: Sequence[Sequence[dict[str, Any]]],  # by round; empty: not made anew
    steps: int,  # of a round
    path: pathlib.Path,
) -> pathlib.Path:
    """What a policy learned in each round, and how well its judge of then told right
    answers from wrong ones, to questions that no judge learned from."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    _learned(above, rows)
    for number, found in enumerate(of_judges):
        for key in ("eval/auc", "eval/accuracy"):  # of preferences there is no area
            _, share = series(found, key)
            if len(share):
                at = np.array([number * steps, (number + 1) * steps])
                below.plot(at, np.full(2, share[-1]), color="C1", linewidth=2)
                below.set_ylabel("judge: " + {"eval/auc": "ROC AUC"}.get(key, "right"))
                break
    for axes in (above, below):
        for number in range(1, len(of_judges)):
            axes.axvline(number * steps, color="0.6", linestyle=":")
    below.set(xlabel="step", ylim=(0.45, 1.02))
    return written(figure, path)


def _learned(axes, rows: Sequence[dict]):
    """A reward model's reward has a scale of its own, on the right; beside it stands
    what is right of the same samples, and where the two parted."""
    of_reward = axes
    if len(series(rows, hacking.RIGHT)[0]):
        of_reward = axes.twinx()
        of_reward.set_ylabel("reward", color="C0")
        _smoothed(axes, rows, hacking.RIGHT, "C2", "right, of the samples in training")
        step, is_parted = series(rows, hacking.PARTED)
        step = step[is_parted > 0]
        if len(step):
            label = "reward rises, right falls"
            axes.plot(step, np.zeros(len(step)), "|", color="C1", label=label)
    _smoothed(of_reward, rows, hacking.REWARD, "C0", "reward in training")
    _accuracy(axes, rows)
    _mark_stages(axes, rows)
    axes.set(ylim=(min(0, *axes.get_ylim()), 1.02))
    if handles := _handles(axes, of_reward):
        axes.legend(handles=handles)  # where it hides least


def _drift(axes, rows: Sequence[dict]):
    """KL has a scale of its own, on the right, where there are shares."""
    of_kl = axes
    shares = {key: look for key, look in SHARES.items() if len(series(rows, key)[0])}
    for key, look in shares.items():
        _smoothed(axes, rows, key, *look)
    if shares:
        axes.set(ylim=(-0.02, 1.02), ylabel="within a group")
    if len(series(rows, "kl")[0]):
        of_kl = axes.twinx() if shares else axes
        of_kl.set_ylabel("KL", color="C1")
        _smoothed(of_kl, rows, "kl", "C1", "KL to the reference")
    handles = _handles(axes, of_kl)
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)


def _handles(*several) -> list:
    known = {id(one): one for one in several}.values()
    return [x for one in known for x in one.get_legend_handles_labels()[0]]


def written(figure: Figure, path: pathlib.Path) -> pathlib.Path:
    """Where it is on disk from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"new.{path.name}")  # the suffix says what is written
    figure.savefig(new, dpi=150)
    return new.replace(path)


def _accuracy(axes, rows: Sequence[dict]):
    """Of what was held out, and of other sets."""
    found = {key: 0 for row in rows for key in row if key.endswith("/accuracy")}
    for number, key in enumerate(found):
        name = key[len("eval/") : -len("/accuracy")] or "held-out questions"
        step, share = series(rows, key)
        _, low = series(rows, f"{key}_low")
        _, high = series(rows, f"{key}_high")
        look = {"color": OF_SETS[number % len(OF_SETS)], "marker": "osD^v"[number % 5]}
        bars = np.maximum(np.stack([share - low, high - share]), 0)
        label = f"accuracy, {name} (95%)"
        axes.errorbar(step, share, bars, capsize=3, label=label, **look)


def labels(found: dict[str, Any], path: pathlib.Path) -> pathlib.Path:
    """Of labelled steps (see shepherd.summary): how many are good, the first, the
    second, ...; and how many have which soft label."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = [row for row in found["by_place"] if row["of"]]
    if places:
        place, share, low, high, soft = (
            np.array([row[name] for row in places])
            for name in ("place", "value", "low", "high", "soft")
        )
        bars = np.maximum(np.stack([share - low, high - share]), 0)
        look = {"color": "C3", "marker": "o", "capsize": 3}
        left.errorbar(place, share, bars, label="good, hard labels (95%)", **look)
        left.plot(place, soft, color="C0", marker=".", label="mean soft label")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.legend(loc="best")
    left.set(xlabel="place of the step", ylabel="share", ylim=(-0.02, 1.02))
    counts = found["soft"]
    most = len(counts) - 1
    right.bar(np.arange(most + 1) / most, counts, 0.8 / most, color="C0")
    right.set(xlabel="soft label, before the last step", ylabel="steps")
    return written(figure, path)


def _smoothed(axes, rows: Sequence[dict], key: str, colour: str, label: str):
    step, value = series(rows, key)
    if len(step):
        axes.plot(step, value, color=colour, alpha=0.25, linewidth=0.7)
        width = max(1, len(step) // 40)
        smooth = np.convolve(value, np.ones(width) / width, "valid")
        middle = step[(width - 1) // 2 :][: len(smooth)]
        axes.plot(middle, smooth, color=colour, label=label)


def series(rows: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps whose rows have it, and what they have."""
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    step, value = zip(*found, strict=True) if found else ((), ())
    return np.array(step), np.array(value)


def _mark_stages(axes, rows: Sequence[dict]):
    for before, row in itertools.pairwise(rows):
        if before["stage"] != row["stage"]:
            axes.axvline(before["step"], color="0.6", linestyle=":")
            axes.annotate(
                row["stage"], (before["step"], 1), xytext=(3, -10), fontsize=8,
                textcoords="offset points", color="0.4",
            )  # fmt: skip
