"""A run's figure, drawn from its metrics."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from grpo_jax import hacking


def learning(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> pathlib.Path:
    """Accuracy on held-out questions with its interval, and the reward in training.

    A reward model's has a scale of its own, on the right; beside it stands what is
    right of the same samples, and where the two parted.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    of_reward = axes
    if len(_of(rows, hacking.RIGHT)[0]):
        of_reward = axes.twinx()
        of_reward.set_ylabel("reward", color="C0")
        _smoothed(axes, rows, hacking.RIGHT, "C2", "right, of the samples in training")
        step, is_parted = _of(rows, hacking.PARTED)
        step = step[is_parted > 0]
        if len(step):
            label = "reward rises, right falls"
            axes.plot(step, np.zeros(len(step)), "|", color="C1", label=label)
    _smoothed(of_reward, rows, hacking.REWARD, "C0", "reward in training")
    step, share = _of(rows, "eval/accuracy")
    if len(step):
        _, low = _of(rows, "eval/accuracy_low")
        _, high = _of(rows, "eval/accuracy_high")
        bars = np.stack([share - low, high - share])
        axes.errorbar(
            step,
            share,
            np.maximum(bars, 0),
            color="C3",
            marker="o",
            capsize=3,
            label="accuracy, held-out questions (95%)",
        )
    _mark_stages(axes, rows)
    axes.set(xlabel="step", ylim=(min(0, *axes.get_ylim()), 1.02))
    known = {id(one): one for one in (axes, of_reward)}.values()
    handles = [x for one in known for x in one.get_legend_handles_labels()[0]]
    if handles:
        axes.legend(handles=handles, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _smoothed(axes, rows: Sequence[dict], key: str, colour: str, label: str):
    step, value = _of(rows, key)
    if len(step):
        axes.plot(step, value, color=colour, alpha=0.25, linewidth=0.7)
        width = max(1, len(step) // 40)
        smooth = np.convolve(value, np.ones(width) / width, "valid")
        middle = step[(width - 1) // 2 :][: len(smooth)]
        axes.plot(middle, smooth, color=colour, label=label)


def _of(rows: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
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
