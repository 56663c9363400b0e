"""Rows of files that judge completions, in the forms that people publish them.

Preferences: chosen and rejected, as dialogues of HH-RLHF or with a question of their
own. Whole completions: question, completion, is_correct; GSM8K's solutions of several
models; ProcessBench's final answers. Steps: steps with labels; Math-Shepherd's tags;
ProcessBench's first mistake; PRM800K's whole records, and its steps one by one.

A ValueError says what is wrong with a row; a missing column is a KeyError.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

TAG = "ки"  # Math-Shepherd's, behind each step
ANSWERS = "\n\nAssistant:"  # in HH-RLHF
RATINGS = {1: 1.0, 0: 1.0, -1: 0.0, None: None}  # neutral is not wrong


class Preference(NamedTuple):
    question: str
    better: str
    worse: str


class Solution(NamedTuple):
    question: str
    steps: tuple[str, ...]  # one, where it was judged as a whole
    labels: tuple[float | None, ...]  # of each step, in [0, 1]; None: not judged


class Step(NamedTuple):
    """A step that was judged by itself, and those that it follows."""

    question: str
    before: tuple[str, ...]
    step: str
    label: float | None


def preference(row: dict) -> list[Preference]:
    better, worse = _text(row, "chosen"), _text(row, "rejected")
    if "question" in row:
        question = _text(row, "question")
        if better.startswith(question) and worse.startswith(question) and question:
            better, worse = (x.removeprefix(question) for x in (better, worse))
        return [Preference(question, better, worse)]
    pairs = enumerate(zip(better, worse, strict=False))
    end = next((i for i, (a, b) in pairs if a != b), min(len(better), len(worse)))
    shared = better[:end]
    at = shared.rfind(ANSWERS) + len(ANSWERS)
    if ANSWERS not in shared:  # up to a whole word
        at = max(shared.rfind(x) for x in " \n") + 1
    return [Preference(better[:at], better[at:], worse[at:])]


def whole(row: dict) -> list[Solution]:
    if "final_answer_correct" in row:  # ProcessBench's
        text = "\n".join(_texts(row, "steps"))
        said = _label(row["final_answer_correct"])
        return [Solution(_text(row, "problem"), (text,), (said,))]
    question = _text(row, "question")
    if "is_correct" in row:
        told = [(_text(row, "completion"), row["is_correct"])]
    else:
        by_model = [x for x in row.values() if isinstance(x, dict)]
        told = [(_text(one, "solution"), one["is_correct"]) for one in by_model]
        if not told:
            raise KeyError("is_correct")
    return [Solution(question, (text,), (_label(said),)) for text, said in told]


def steps(row: dict) -> list[Solution] | list[Step]:
    if "input" in row:
        return [_tagged(_text(row, "input"), _text(row, "label"))]
    if "next_response" in row:
        rating, before = row["rating"], tuple(_texts(row, "responses"))
        asked, step = _text(row, "instruction"), _text(row, "next_response")
        return [Step(asked, before, step, _rating(rating))]
    if isinstance(row.get("label"), dict):
        return _record(row)
    if "problem" in row and "labels" not in row:
        return [_first_mistake(row)]
    # Sets made for TRL call their steps completions.
    column = "completions" if "steps" not in row and "completions" in row else "steps"
    found, labels = tuple(_texts(row, column)), row["labels"]
    if not isinstance(labels, list | tuple) or len(labels) != len(found):
        many = len(labels) if isinstance(labels, list | tuple) else "no list of"
        raise ValueError(f"it has {len(found)} steps and {many} labels")
    told = row.get("completion") is not None
    said = _text(row, "completion") if told else "".join(found)
    if "".join(said.split()) != "".join("".join(found).split()):
        raise ValueError("its steps are not the text of its completion")
    question = _text(row, "question")
    return [Solution(question, found, tuple(map(_label, labels)))]


def _tagged(given: str, labelled: str) -> Solution:
    """`question Step 1: … ки\\nStep 2: … ки`, and the same with + or - for each ки."""
    *told, rest = given.split(TAG)
    if not told or rest.strip():
        raise ValueError(f"its input does not end in the tag {TAG!r} of a step")
    at, labels = 0, []
    for text in told:
        if labelled[at : at + len(text)] != text:
            raise ValueError(f"step {len(labels) + 1} of its input is not in its label")
        at += len(text)
        sign = labelled[at : at + 1]
        if sign not in ("+", "-", "\N{MINUS SIGN}"):
            raise ValueError(f"step {len(labels) + 1} is labelled {sign!r}, not + or -")
        labels.append(float(sign == "+"))
        at += 1
    if labelled[at:].strip():
        raise ValueError("its label has more text than its input")
    question, found, first = told[0].partition("Step 1:")
    if not found:
        raise ValueError("its input has no 'Step 1:'")
    lines = [f"{found}{first}", *told[1:]]
    return Solution(question.strip(), tuple(x.strip() for x in lines), tuple(labels))


def _first_mistake(row: dict) -> Solution:
    """ProcessBench's: behind the first wrong step none was judged."""
    found, first = tuple(_texts(row, "steps")), row["label"]
    if type(first) is not int or not -1 <= first < len(found):
        raise ValueError(
            f"its label is {first!r}; it has {len(found)} steps, from 0 on (-1: none)"
        )
    labels = [1.0] * len(found)
    if first >= 0:
        labels[first:] = [0.0, *[None] * (len(found) - first - 1)]
    return Solution(_text(row, "problem"), found, tuple(labels))


def _record(row: dict) -> list[Step]:
    """PRM800K's: at each step several completions, of which one was gone on with."""
    question, before, found = _text(row["question"], "problem"), (), []
    for step in row["label"]["steps"]:
        several = step["completions"] or []
        for one in several:
            label = _rating(one["rating"])
            found.append(Step(question, before, _text(one, "text"), label))
        chosen, human = step["chosen_completion"], step["human_completion"]
        if chosen is not None:
            before = *before, several[chosen]["text"]
        elif human is not None:
            before = *before, human["text"]
        else:
            break
    return found


def joined(found: Sequence[tuple[str, Step]]) -> tuple[list, list[str]]:
    """Solutions of steps that were judged one by one; and steps that were judged in two
    ways, which none of them has a label for.

    A solution goes as far as its steps were judged. One that several solutions begin
    with is labelled in the first of them, so that it counts once.
    """
    places: dict[tuple, str] = {}
    labels: dict[tuple, float | None] = {}
    left_out, inner = [], set()
    for where, (question, before, step, label) in found:
        path = question, *before, step
        inner |= {path[:k] for k in range(1, len(path))}
        known = labels.setdefault(path, label)
        if known is not None and label is not None and known != label:
            left_out.append(f"{where}: contradicts {places[path]}, of the same step")
            labels[path] = float("nan")
        elif known is None:
            labels[path] = label
        places.setdefault(path, where)
    labels = {path: None if x != x else x for path, x in labels.items()}
    solutions, counted = [], set()
    for path, where in places.items():
        if path in inner:
            continue
        steps_ = [path[: k + 1] for k in range(1, len(path))]
        told = [None if p in counted else labels.get(p) for p in steps_]
        counted.update(steps_)
        solutions.append((where, Solution(path[0], path[1:], tuple(told))))
    return solutions, left_out


def _text(row: dict, name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"its {name} is {row[name]!r}, no text")
    return row[name]


def _texts(row: dict, name: str) -> Sequence[str]:
    found = row[name]
    if not isinstance(found, list | tuple):
        raise ValueError(f"its {name} are {found!r}, no list")
    if not all(isinstance(x, str) for x in found):
        raise ValueError(f"its {name} are not all texts")
    return found


def _rating(said: Any) -> float | None:
    said = None if said != said else said
    if not isinstance(said, int | float | None) or said not in RATINGS:
        raise ValueError(f"a step is rated {said!r}; ratings are 1, 0, -1 or null")
    return RATINGS[said]


def _label(said: Any) -> float | None:
    if said is None:
        return None
    if not isinstance(said, bool | int | float) or not 0 <= said <= 1:
        raise ValueError(f"a label is {said!r}; it is true, false, or in [0, 1]")
    return float(said)
