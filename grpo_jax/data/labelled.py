"""What a reward model learns from: preferences, and solutions that were judged.

A preference is of two completions of one question. A solution has a label for each of
its steps; one that was judged as a whole is a single step. A row that is not what its
file should hold is refused by file and line. One that says nothing, that says what
another said, or that contradicts another is left out, with all it contradicts, and
named.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, NamedTuple

from grpo_jax.data import arithmetic, sets, verdicts
from grpo_jax.data.verdicts import Preference, Solution, Step
from grpo_jax.section import Refused

Kind = Literal["preferences", "correct", "steps"]
READERS: dict[str, Callable[[dict], list]] = {
    "preferences": verdicts.preference,
    "correct": verdicts.whole,
    "steps": verdicts.steps,
}
COLUMNS = {
    "preferences": "chosen and rejected, and question if they do not begin with it",
    "correct": "question, completion and is_correct; or those of ProcessBench",
    "steps": "question, steps (or completions) and labels; or those of PRM800K, "
    "Math-Shepherd, ProcessBench",
}


class Labelled(NamedTuple):
    all: list[Preference] | list[Solution]
    left_out: list[str]  # where it stands, and why


Found = tuple[str, Preference | Solution | Step]


def read(
    name: str,
    split: str,
    kind: Kind,
    question: str = "question",
    subset: str | None = None,
) -> Labelled:
    """All of one split of a file or of a set of the hub, but for what says nothing."""
    found, left_out = [], []
    for where, row in sets.rows(name, split, subset):
        found += [(where, one) for one in _of_row(row, kind, question, where)]
    if kind == "steps":
        found, left_out = _in_solutions(found)
    kept, more = checked(found)
    if not kept:
        raise Refused(
            f"{name!r} has no {kind} to learn from in its split {split!r}: of "
            f"{len(found)}, {len(left_out + more)} are left out"
            + "".join(f"; {reason}" for reason in (left_out + more)[:1])
            + "."
        )
    return Labelled(kept, left_out + more)


def _of_row(row: Any, kind: Kind, question: str, where: str) -> list:
    if not isinstance(row, dict):
        raise Refused(f"{where} is a {type(row).__name__}; a row names its columns.")
    if question != "question" and question in row:
        row = row | {"question": row[question]}
    try:
        return READERS[kind](row)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise Refused(
            f"{where} could not be read ({type(error).__name__}: {error}); it has "
            f"{', '.join(row)}, and reward.labels {kind!r} need {COLUMNS[kind]}. Mend "
            "the row, or set reward.labels."
        ) from error
    except ValueError as error:
        raise Refused(f"{where}: {error}. Mend the row.") from error


def _in_solutions(found: Sequence[Found]) -> tuple[list[Found], list[str]]:
    """Steps that were judged one by one, put together; whole solutions as they are."""
    whole = [(where, one) for where, one in found if isinstance(one, Solution)]
    single = [(where, one) for where, one in found if isinstance(one, Step)]
    joined, left_out = verdicts.joined(single)
    return whole + joined, left_out


def checked(found: Sequence[Found]) -> tuple[list, list[str]]:
    """What says something; and what is left out, and why."""
    kept: dict[Hashable, tuple[str, Preference | Solution]] = {}
    wrong: dict[Hashable, str] = {}
    left_out = []
    for where, one in found:
        reason, key = _says_nothing(one), _key(one)
        before = kept.get(key)
        if not reason and before is not None:
            reason = f"says what {before[0]} says"
            if _contradicts(before[1], one):
                wrong.setdefault(key, f"{before[0]}: is contradicted by {where}")
                reason = f"contradicts {before[0]}"
        if reason:
            left_out.append(f"{where}: {reason}")
        else:
            kept[key] = where, one
    some = [one for key, (_, one) in kept.items() if key not in wrong]
    return some, [*left_out, *wrong.values()]


def _says_nothing(one: Preference | Solution) -> str:
    """Why; empty, if it says something."""
    if not one.question.strip():
        return "has no question"
    if isinstance(one, Preference):
        return "prefers a completion to itself" if one.better == one.worse else ""
    if all(label is None for label in one.labels):
        return "has no label"
    return "" if all(step.strip() for step in one.steps) else "has an empty step"


def _key(one: Preference | Solution) -> Hashable:
    if isinstance(one, Preference):
        return one.question, frozenset((one.better, one.worse))
    return one.question, one.steps


def _contradicts(a: Preference | Solution, b: Preference | Solution) -> bool:
    if isinstance(a, Preference):
        return a != b
    pairs = zip(a.labels, b.labels, strict=True)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def generated(
    name: str, count: int, sizes: Sequence[int], kind: Kind, seed: int
) -> Labelled:
    """Of each generated problem its demonstration, and one with a mistake in it."""
    right, flawed = arithmetic.MAKE[name], arithmetic.FLAWED[name]
    found, asked = [], set()
    for number in range(count):
        size = sizes[number % len(sizes)]
        problem, other = right(seed, number, size), flawed(seed, number, size)
        if problem.question in asked:
            continue
        asked.add(problem.question)
        good = problem.demonstration.split("\n")
        pair = problem.question, "\n".join(good), "\n".join(other.lines)
        if kind == "preferences":
            found.append(Preference(*pair))
        elif kind == "correct":
            found += [Solution(pair[0], (pair[1],), (1.0,))]
            found += [Solution(pair[0], (pair[2],), (0.0,))]
        else:
            labels = [float(i < other.first) for i in range(len(other.lines))]
            found += [Solution(pair[0], tuple(good), (1.0,) * len(good))]
            found += [Solution(pair[0], tuple(other.lines), tuple(labels))]
    return Labelled(found, [])
