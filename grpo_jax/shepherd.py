"""Labels of steps as Math-Shepherd has them (arXiv 2312.08935), and what they are like.

From the prefix that ends with a step a completer is asked for N completions, of which c
are right. The step's hard label is 1 if any is right, else 0; its soft label is c/N. A
solution's last step is labelled by whether the solution is right. A step that nothing
is known of has no label: there was no room for a completion, or none could be graded.
Completions that could not be graded do not count among the N.

Hard labels are optimistic: from a prefix that is completed rightly with a chance of p
one is 1 with a chance of 1 − (1 − p)^N. A wrong step may be mended behind it, so that
"good" says what can come of a step, and not that it is true.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from grpo_jax import accuracy
from grpo_jax.data import arithmetic

Found = Sequence[int]  # [c, N]: so many of the graded completions are right


class Solution(NamedTuple):
    """Steps of one solution with what came of each."""

    number: int  # of its question
    question: str
    answer: str
    completion: str
    steps: list[str]
    found: list[Found | None]  # of each step; of the last one, c of 1; None: no room

    @property
    def hard(self) -> list[float | None]:
        return [hard(*one) if one else None for one in self.found]

    @property
    def soft(self) -> list[float | None]:
        return [soft(*one) if one else None for one in self.found]


def hard(right: int, of: int) -> float | None:
    return float(right > 0) if of else None


def soft(right: int, of: int) -> float | None:
    return right / of if of else None


def solutions(rows: Iterable[dict]) -> list[Solution]:
    """Of all questions, as `labeller` wrote them."""
    found = []
    for row in rows:
        asked = row["number"], row["question"], row["answer"]
        for one in row["solutions"]:
            told = (one[name] for name in ("completion", "steps", "found"))
            found.append(Solution(*asked, *told))
    return found


def labelled(found: Sequence[Solution], kind: str) -> list[dict[str, Any]]:
    """Rows that stage reward reads with reward.labels steps; `kind` is hard or soft."""
    return [
        {
            "question": one.question,
            "completion": one.completion,
            "steps": one.steps,
            "labels": getattr(one, kind),
        }
        for one in found
    ]


def summary(rows: Sequence[dict], completions: int, is_chain: bool) -> dict[str, Any]:
    """How many labels there are, and what they say. Intervals are of 95 percent, and
    take steps of one question for what they are: alike (see accuracy.clustered)."""
    known = solutions(rows)
    labels = [x for one in known for x in one.hard]
    drawn, ended, asked = (
        sum(row[name] for row in rows) for name in ("drawn", "ended", "prefixes")
    )
    out = {
        "questions": len(rows),
        "drawn": drawn,
        "ended": ended,
        "solutions": len(known),
        "steps": len(labels),
        "labelled": sum(x is not None for x in labels),
        "prefixes": asked,
        "completions": asked * completions,
        "right": _share(known, lambda one: one.hard[-1:]),
        "good": _share(known, lambda one: one.hard),
        "by_place": _by_place(known),
        "soft": _histogram(known, completions),
        "violations": int(sum(sum(_behind_bad(one)) for one in known)),
        "good_behind_bad": _share(known, _behind_bad),
        "solutions_with_good_behind_bad": _share(known, _has_good_behind_bad),
    }
    if is_chain:
        truth = [arithmetic.held(x.question, x.answer, x.steps) for x in known]
        out["truth"] = {
            "all": _agreement(known, truth, slice(None)),
            "before_last": _agreement(known, truth, slice(-1)),
        }
    return out


Labels = Iterable[float | None]


def _share(found: Sequence[Solution], of_one: Callable[[Solution], Labels]) -> dict:
    """Of the labels that are known the share that are 1, and its interval."""
    return _counted([(one.number, list(of_one(one))) for one in found])


def _counted(labels: Sequence[tuple[int, Sequence[float | None]]]) -> dict[str, Any]:
    right, of = {}, {}
    for number, some in labels:
        known = [x for x in some if x is not None]
        right[number] = right.get(number, 0.0) + sum(known)
        of[number] = of.get(number, 0) + len(known)
    counts = np.array(list(right.values())), np.array(list(of.values()), int)
    return {"of": int(counts[1].sum())} | _told(accuracy.clustered(*counts))


def _told(interval: accuracy.Interval) -> dict[str, float | None]:
    """null, where there is none."""
    known = interval._asdict().items()
    return {k: None if math.isnan(x) else x for k, x in known}


def _by_place(found: Sequence[Solution]) -> list[dict[str, Any]]:
    """Of the first steps, the second ones, ...: the share that is good."""
    longest = max((len(one.steps) for one in found), default=0)
    rows = []
    for i in range(longest):
        mean = [one.soft[i] for one in found if len(one.steps) > i]
        mean = [x for x in mean if x is not None]
        share = _share(found, lambda one, i=i: one.hard[i : i + 1])
        soft = float(np.mean(mean)) if mean else None
        rows.append({"place": i + 1, "soft": soft} | share)
    return rows


def _histogram(found: Sequence[Solution], completions: int) -> list[int]:
    """How many steps before the last have a soft label of 0, 1/N, ..., 1, each to the
    nearest."""
    labels = [x for one in found for x in one.soft[:-1] if x is not None]
    nearest = np.rint(np.array(labels, float) * completions).astype(int)
    return np.bincount(nearest, minlength=completions + 1).tolist()


def _behind_bad(one: Solution) -> list[float]:
    """The hard labels behind the first that is 0: were they exact, all were 0 if what
    is wrong stayed wrong."""
    known = [x for x in one.hard if x is not None]
    return list(itertools.dropwhile(bool, known))[1:]


def _has_good_behind_bad(one: Solution) -> list[float]:
    return [float(any(_behind_bad(one)))]


def _agreement(
    found: Sequence[Solution], truth: Sequence[Sequence[bool]], which: slice
) -> dict[str, Any]:
    """How often a hard label is the truth; how many of the true and of the false steps
    are good by it; and how well soft labels order them."""
    steps = [
        (one.number, is_true, label, share)
        for one, held in zip(found, truth, strict=True)
        for is_true, label, share in zip(
            held[which], one.hard[which], one.soft[which], strict=True
        )
        if label is not None
    ]
    agree = [(n, [float(label == is_true)]) for n, is_true, label, _ in steps]
    good = {
        held: [(n, [label]) for n, is_true, label, _ in steps if is_true == held]
        for held in (True, False)
    }
    columns = list(zip(*steps, strict=True)) or [(), (), (), ()]
    number, is_true, _, share = columns
    given = np.array(share, float), np.array(is_true, bool), np.array(number, int)
    return {
        "agreement": _counted(agree),
        "good_of_true": _counted(good[True]),
        "good_of_false": _counted(good[False]),
        "auc": _told(accuracy.auc_clustered(*given)),
    }
