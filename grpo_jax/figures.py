"""What figures of sweeps share: curves over seeds, comparisons, results on disk.

    OUT/NAME.png            the picture
    OUT/NAME.json           its numbers, and what they were made by
    OUT/NAME.points.jsonl   what is kept of each run, from when it was done
    OUT/README.md           what came out, of all figures that are there

Rows of runs are written by `reproduce`.
"""

import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

import grpo_jax
from grpo_jax import contrast, plots, workdir
from grpo_jax.section import Refused

# Told apart in grey too: each is dashed otherwise.
LOOKS = [
    {"color": "#000000", "linestyle": "-"},
    {"color": "#d55e00", "linestyle": "--"},
    {"color": "#0072b2", "linestyle": "-."},
    {"color": "#009e73", "linestyle": ":"},
    {"color": "#cc79a7", "linestyle": (0, (5, 1))},
    {"color": "#56b4e9", "linestyle": (0, (3, 1, 1, 1))},
    {"color": "#e69f00", "linestyle": (0, (1, 1))},
    {"color": "#7f7f7f", "linestyle": (0, (8, 2, 1, 2))},
]


STRICT = {"allow_nan": False, "ensure_ascii": False}


class Curves(NamedTuple):
    """Of one arm: a row for each seed, at the steps that all have."""

    step: Int[np.ndarray, "T"]
    value: Float[np.ndarray, "S T"]


def kept(folder: pathlib.Path, keys: Sequence[str]) -> dict[str, dict[str, list]]:
    """What a figure keeps of a run: of each key the steps that have it, and what."""
    rows = list(workdir.rows(folder / workdir.METRICS))
    found = {key: plots.series(rows, key) for key in keys}
    lacking = [key for key, (step, _) in found.items() if not len(step)]
    if lacking:
        raise Refused(f"{folder} has no row with {', '.join(lacking)}. Run it anew.")
    return {k: {"step": x.tolist(), "value": y.tolist()} for k, (x, y) in found.items()}


def curves(records: Sequence[Mapping[str, Any]], key: str) -> Curves:
    """Of what is kept of an arm's runs."""
    found = [
        dict(zip(one[key]["step"], one[key]["value"], strict=True)) for one in records
    ]
    steps = sorted(set.intersection(*map(set, found)))
    if not steps:
        raise Refused(f"{len(records)} runs have no {key} at a common step.")
    return Curves(np.array(steps), np.array([[one[t] for t in steps] for one in found]))


def ends(found: Curves, last: int) -> Float[np.ndarray, "S"]:
    """Of each seed the mean of so many points, the last."""
    if found.value.shape[1] < last:
        raise Refused(f"{len(found.step)} points have no last {last}. Examine oftener.")
    return found.value[:, -last:].mean(1)


def draw(axes: Axes, found: Curves, label: str, look: Mapping[str, Any]):
    """Each seed faint, their mean before them."""
    for one in found.value:
        axes.plot(found.step, one, linewidth=0.6, alpha=0.25, color=look["color"])
    axes.plot(found.step, found.value.mean(0), linewidth=1.8, label=label, **look)


class Claim(NamedTuple):
    """That one arm ends above another, said before any of them has run."""

    ours: str
    theirs: str
    paper: float | None = None  # by how much it does in the paper

    @property
    def name(self) -> str:
        return f"{self.ours} − {self.theirs}"


Pair = tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]


def unsaid(claims: Sequence[Claim]) -> list[Claim]:
    """The same where the paper gives no number."""
    return [one._replace(paper=None) for one in claims]


class Verdict(NamedTuple):
    claim: Claim
    found: contrast.Contrast
    holm: float  # p, corrected for how many claims there are

    def __str__(self) -> str:
        return f"{self.claim.name}: {self.found}, {self.said}"

    @property
    def said(self) -> str:
        """Both the corrected p and the interval have to say it."""
        if self.holm >= 0.05 or self.found.low <= 0 <= self.found.high:
            return "not told apart"
        return "yes" if self.found.low > 0 else "the other way"


def verdicts(
    claims: Sequence[Claim], ends: Mapping[str, Float[np.ndarray, "S"]]
) -> list[Verdict]:
    """By what each seed of each arm comes to."""
    return of_pairs(claims, [(ends[one.ours], ends[one.theirs]) for one in claims])


def of_pairs(claims: Sequence[Claim], pairs: Sequence[Pair]) -> list[Verdict]:
    """By what the two of each claim come to, seed by seed."""
    found = [contrast.paired(*pair) for pair in pairs]
    p = contrast.holm({str(i): one.p for i, one in enumerate(found)})
    return list(map(Verdict, claims, found, p.values()))


def table(found: Sequence[Verdict], unit: str) -> Table:
    """As a person reads it."""
    columns = "paper", f"here, {unit} (95%)", "p", "Holm", "so"
    out = numbered("is above 0", *columns)
    for one in found:
        paper = "" if one.claim.paper is None else f"{one.claim.paper:+.2f}"
        ps = f"{one.found.p:.2g}", f"{one.holm:.2g}"
        out.add_row(one.claim.name, paper, str(one.found), *ps, one.said)
    return out


def numbered(first: str, *columns: str, title: str | None = None) -> Table:
    """A table whose columns behind the first hold numbers, which are not broken."""
    out = Table(first, box=box.SIMPLE_HEAD, pad_edge=False, title=title)
    for column in columns:
        out.add_column(column, justify="right", no_wrap=True)
    return out


def judged(
    found: Mapping[str, Sequence[Verdict]], unit: str
) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Shows them; as JSON, and the first ones in a line."""
    for title, some in found.items():
        Console().print(title, table(some, unit))
    first = next(iter(found.values()))
    return {k: as_json(x) for k, x in found.items()}, "; ".join(map(str, first))


def as_json(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {"claim": one.claim.name, "paper": one.claim.paper, "said": one.said}
        | one.found._asdict()
        | {"holm": one.holm}
        for one in found
    ]


def write(
    name: str,
    figure: Figure,
    numbers: Mapping[str, Any],
    told: str,  # what came out, in a line
    records: Mapping[str, Mapping[str, Any]],  # by the names of points
    out: pathlib.Path,
):
    """The picture, its numbers, and the tables of all."""
    plots.written(figure, out / f"{name}.png")
    by = {
        "command": f"python -m grpo_jax reproduce {name}",
        "runs": len(records),
        "hours_at_least": sum(one["seconds"] for one in records.values()) / 3600,
        "code": sorted({one["code"] for one in records.values()}),
        "drawn_with": {
            "grpo_jax": grpo_jax.__version__,
            "jax": jax.__version__,
            "python": sys.version.split()[0],
        },
    }
    text = json.dumps({"told": told, "by": by} | _plain(numbers), indent=1, **STRICT)
    workdir.replace(out / f"{name}.json", text + "\n")
    found = {x.stem: json.loads(x.read_text()) for x in sorted(out.glob("*.json"))}
    found = {stem: one for stem, one in found.items() if "told" in one}
    workdir.replace(out / "README.md", readme(found))
    print(f"{out / name}.png, {name}.json: {told}")


def readme(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Of all figures what came out; and each claim of the paper beside it."""
    rows = [f"| [{name}]({name}.png) | {one['told']} |" for name, one in found.items()]
    lines = ["# Results", "", "| figure | what came out |", "|---|---|", *rows]
    claims = [
        claimed(f"{name}, {title.partition(',')[0]}", one)
        for name, figure in found.items()
        for title, verdicts in figure.get("verdicts", {}).items()
        for one in verdicts
        if one["paper"] is not None
    ]
    if claims:
        head = "| figure | is above 0 | in the paper | here (95%) | p, Holm | so |"
        lines += ["", "# Claims of the paper", "", head, "|---" * 6 + "|", *claims]
    return "\n".join(lines) + "\n"


def claimed(where: str, one: Mapping[str, Any]) -> str:
    """A row, of what `as_json` has."""
    here = f"{one['mean']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"
    cells = where, one["claim"], f"{one['paper']:+.2f}", here, f"{one['holm']:.2g}"
    return f"| {' | '.join(cells)} | {one['said']} |"


def _plain(x: Any) -> Any:
    """As JSON has it: six digits behind the point, None for what is no number."""
    if isinstance(x, Curves | contrast.Contrast):
        return _plain(x._asdict())
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, np.ndarray | np.generic):
        return _plain(x.tolist())
    if isinstance(x, tuple | list):
        return [_plain(v) for v in x]
    if isinstance(x, float):
        return round(x, 6) if math.isfinite(x) else None
    return x
