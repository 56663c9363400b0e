"""The command `reproduce`: a figure from nothing, or from what there is of it.

    python -m grpo_jax reproduce figure5 --seeds 8 --jobs 2

A figure is experiments/deepseekmath/NAME.py, or another file's path, with

    SEEDS                        how many, if nobody says
    get_points(seeds, smoke)     the points of its sweep (see `sweep`), its own as
                                 NAME/...; few and short ones to see whether all works
    keep(folder)                 the numbers that the figure needs of one of its own
    report(records, seeds, out)  draws them, by the names of points, and writes

What is kept of a run is a row of OUT/NAME.points.jsonl from the moment it is done. A
point that has a row is not run again, and what only it needed is not made: so a figure
goes on from that file alone. A row is of this point if all that the run depends on was
the same, but for code, the package's and the experiment's, whose digest it tells.
"""

import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from grpo_jax import evaluation, experiment, labelling, line, sweep, workdir
from grpo_jax.section import Refused

FIGURES = pathlib.Path("experiments/deepseekmath")
OPTIONS = {"label": labelling.Options, "evaluate": evaluation.Options}
LONGEST = 250  # characters that the name of a file may have
OTHERS = "fork_from", "topology", "programs"  # what commands are told besides settings


class Options(NamedTuple):
    """Recreates a figure: makes the runs that are missing, then draws.

    Killed or stopped at any instant, the same command goes on. Figures in one workdir
    share what they have in common.
    """

    figure: line.Text  # figure5, ...: a file of experiments/deepseekmath, or a path
    seeds: int | None = None  # of each arm; None: the figure's own number, or one
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
    usual = 1 if given.smoke else module.SEEDS
    seeds = usual if given.seeds is None else given.seeds
    if seeds < 1:
        raise Refused(f"--seeds is {seeds}; an arm has one at least. Try 1.")
    root, out = given.workdir, given.out or file.parent / "results"
    if given.smoke:
        # what compiles fastest; points inherit it
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        root, out = root / "smoke", given.out or root / "smoke" / "results"
    points = module.get_points(seeds, given.smoke)
    known = identities(points)
    with workdir.locked(root / file.stem):
        records = Records(out / f"{file.stem}.points.jsonl", root, known, module.keep)
        left = sweep.needed(points, records.own - records.known.keys())
        sweeping = sweep.Sweep(left, root, known, given.jobs, given.tries, records.add)
        outcome = sweeping.run(sweep.Board())
        if outcome.is_stopped:
            print("stopped, and saved: the same command goes on", file=sys.stderr)
            return sweep.STOPPED
        if outcome.failed:
            _tell(outcome, root)
            return 1
        module.report(records.known, seeds, out)
    return 0


def identities(points: sweep.Points) -> dict[str, str]:
    """Of each point a digest of what it depends on: its words, all its settings, the
    files that those name, and what the points that it needs depend on."""
    sweep.check(points)
    found: dict[str, str] = {}
    modules: dict[str, ModuleType] = {}

    def of(name: str) -> str:
        if name not in found:
            point = points[name]
            told = sweep.words(point, name, pathlib.Path("ROOT"))
            if point.command in OPTIONS:
                kind = OPTIONS[point.command]
                given = line.parse(point.command, kind, told[1:])._asdict()
            else:
                file = str(point.subject)
                if file not in modules:
                    modules[file] = experiment.load(file)
                given = settings(modules[file], point)
            told.append(repr(given))
            told += [workdir.digest(x, "**/*") for x in sorted(named(given))]
            told += map(of, sorted(point.needs))
            found[name] = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        return found[name]

    return {name: of(name) for name in points}


def named(given: Mapping[str, Any]) -> set[pathlib.Path]:
    """The files and folders among settings."""
    found = set()
    for value in given.values():
        several = value if isinstance(value, tuple | list) else [value]
        texts = (str(x) for x in several if isinstance(x, str | pathlib.Path))
        found |= {pathlib.Path(x) for x in texts if x and len(x) < LONGEST}
    return {path for path in found if path.exists()}


def settings(module: ModuleType, point: sweep.Point) -> dict[str, Any]:
    """All that a run of a file has, by path; what others make is named."""
    given = {
        k: str(x) if isinstance(x, sweep.Made) else x for k, x in point.settings.items()
    }
    chosen = experiment.preset(module.get_config(), given.pop("preset", None))
    others = {name: given.pop(name) for name in OTHERS if name in given}
    return experiment.flat(experiment.changed(chosen, given)) | others


class Records:
    """What is kept of a figure's own points, on disk; a row when one is done."""

    def __init__(
        self,
        path: pathlib.Path,
        root: pathlib.Path,
        identity: Mapping[str, str],
        keep: Callable[[pathlib.Path], dict[str, Any]],
    ):
        self.path, self.root, self.identity, self.keep = path, root, identity, keep
        figure = path.name.partition(".")[0]
        self.own = {name for name in identity if name.startswith(f"{figure}/")}
        rows = list(workdir.rows(path))
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            # Half a row, which another would be written behind.
            workdir.replace(path, "".join(map(workdir.line, rows)))
        self.known = {
            row["name"]: row
            for row in rows
            if row["name"] in self.own and row["identity"] == identity[row["name"]]
        }
        for name in sorted(self.own - self.known.keys()):
            if sweep.done(name, root, identity[name]) is not None:
                self.add(name)

    def add(self, name: str):
        if name not in self.own:
            return
        made = sweep.done(name, self.root, self.identity[name])
        row = {"name": name} | made._asdict() | self.keep(self.root / name)
        workdir.append(self.path, row)
        self.known[name] = json.loads(workdir.line(row))  # as it is read again


def _tell(outcome: sweep.Outcome, root: pathlib.Path):
    """What failed, and where more about it stands."""
    for name, (code, said) in outcome.failed.items():
        log = sweep.beside(name, root, "log")
        print(f"{name} ended with code {code}: {said} ({log})", file=sys.stderr)
    if outcome.left:
        print(
            f"not begun, for want of those: {', '.join(outcome.left)}", file=sys.stderr
        )
