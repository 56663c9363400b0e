"""The command `reproduce`: a figure from nothing, or from what there is of it.

    python -m grpo_jax reproduce figure5 --seeds 8 --jobs 2

A figure is experiments/deepseekmath/NAME.py, or another file's path, with

    SEEDS                      how many, if nobody says
    get_points(seeds, smoke)   the points of its sweep (see `sweep`); few and short ones
                               to see whether all works
    report(root, points, out)  draws what the points made, and writes its numbers
"""

import os
import pathlib
import sys
from typing import NamedTuple

from grpo_jax import experiment, line, sweep, workdir
from grpo_jax.section import Refused

FIGURES = pathlib.Path("experiments/deepseekmath")


class Options(NamedTuple):
    """Recreates a figure: makes the runs that are missing, then draws.

    Killed or stopped at any instant, the same command goes on. Figures in one workdir
    share what they have in common.
    """

    figure: line.Text  # figure5, ...: a file of experiments/deepseekmath, or a path
    seeds: int | None = None  # of each arm; None: the figure's own number
    jobs: int = len(os.sched_getaffinity(0))  # points at once, on cores of their own
    tries: int = 2  # of a point that fails
    smoke: bool = False  # everything once, small: whether it works, not what is true
    workdir: pathlib.Path = pathlib.Path("runs/deepseekmath")  # of all points
    out: pathlib.Path | None = None  # None: results beside the figure's file


def main(words: list[str]) -> int:
    given = line.parse("reproduce", Options, words)
    file = pathlib.Path(given.figure)
    if file.suffix != ".py":
        file = FIGURES / f"{given.figure}.py"
    module = experiment.load(str(file))
    if not hasattr(module, "get_points"):
        raise Refused(f"{file} has no get_points(), which figures have. Train it.")
    seeds = module.SEEDS if given.seeds is None else given.seeds
    if seeds < 1:
        raise Refused(f"--seeds is {seeds}; an arm has one at least. Try 1.")
    root, out = given.workdir, given.out or file.parent / "results"
    if given.smoke:
        root, out = root / "smoke", given.out or root / "smoke" / "results"
    points = module.get_points(seeds, given.smoke)
    with workdir.locked(root / file.stem):
        board = sweep.Board()
        outcome = sweep.Sweep(points, root, given.jobs, given.tries).run(board)
        if outcome.is_stopped:
            print("stopped, and saved: the same command goes on", file=sys.stderr)
            return sweep.STOPPED
        if outcome.failed:
            _tell(outcome, root)
            return 1
        module.report(root, points, out)
    return 0


def _tell(outcome: sweep.Outcome, root: pathlib.Path):
    """What failed, and where more about it stands."""
    for name, (code, said) in outcome.failed.items():
        log = sweep.beside(name, root, "log")
        print(f"{name} ended with code {code}: {said} ({log})", file=sys.stderr)
    if outcome.left:
        print(
            f"not begun, for want of those: {', '.join(outcome.left)}", file=sys.stderr
        )
