"""Data sets by name, by file, or of the hub: rows, each read into a problem.

A known name is looked up in the folder `GRPO_JAX_DATA` first, and on the hub if it is
not there; a file's path may begin in that folder as well. A row that cannot be read is
refused by file and line. One that has no question or no answer, as two of MATH's have,
is left out and named; but one that prefers an answer to another asks its question, and
nobody knows what is right.
"""

import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from grpo_jax.data import verdicts
from grpo_jax.data.problem import Problem
from grpo_jax.section import Refused
from grpo_jax.text import answers

FOLDER = "GRPO_JAX_DATA"


class Source(NamedTuple):
    """A set that is known by name."""

    hub: tuple[str, ...]  # its name there, and the configurations that make it up
    read: Callable[[dict], Problem]
    files: dict[str, str]  # split → its file in the folder
    elsewhere: tuple[str, ...] = ()  # a split, the set that it is, and its split there


def _gsm8k(row: dict) -> Problem:
    return Problem(row["question"], answers.hashed(row["answer"]), row["answer"])


def _math(row: dict) -> Problem:
    answer = answers.boxed(row["solution"])
    kind = f"{row.get('type', row.get('subject', ''))} {row.get('level', '')}".strip()
    return Problem(row["problem"], answer, row["solution"], kind)


def _svamp(row: dict) -> Problem:
    question = f"{row['Body'].rstrip(' .')}. {row['Question']}"
    number = float(row["Answer"])
    answer = int(number) if number.is_integer() else number
    return Problem(question, str(answer), None, row["Type"])


def _mgsm(row: dict) -> Problem:
    said = row["messages"][0]["content"] if "messages" in row else row["question"]
    found = row.get("answer_number")
    return Problem(said, _text(row["answer"] if found is None else found))


def _text(answer: Any) -> str | None:
    return None if answer is None else str(answer)


def _cmath(row: dict) -> Problem:
    return Problem(row["question"], row["golden"], None, f"grade {row['grade']}")


def _humaneval(row: dict) -> Problem:
    """The answer is the program that tests what is written."""
    tests = f"{row['test']}\n\ncheck({row['entry_point']})\n"
    return Problem(row["prompt"], tests, row.get("canonical_solution"))


def _preference(row: dict) -> Problem:
    """Nobody knows an answer; the better one of two shows how it may be said."""
    (one,) = verdicts.preference(row)
    return Problem(one.question, None, one.better)


def _of(name: str) -> dict[str, str]:
    return {split: f"{name}/{split}.jsonl" for split in ("train", "test")}


SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra",
    "number_theory", "prealgebra", "precalculus",
)  # fmt: skip
SETS = {
    "gsm8k": Source(("openai/gsm8k", "main"), _gsm8k, _of("gsm8k")),
    "math": Source(
        ("EleutherAI/hendrycks_math", *SUBJECTS),
        _math,
        _of("math") | {"math500": "math/math500.jsonl"},
        ("math500", "HuggingFaceH4/MATH-500", "test"),
    ),
    "svamp": Source(("ChilleD/SVAMP",), _svamp, _of("svamp")),
    "mgsm": Source(("juletxara/mgsm", "en"), _mgsm, {"test": "mgsm/mgsm_en.jsonl"}),
    "mgsm-zh": Source(
        ("juletxara/mgsm", "zh"), _mgsm, {"test": "mgsm/mgsm_zh_250.jsonl"}
    ),
    "cmath": Source(("weitianwen/cmath",), _cmath, _of("cmath")),
    "humaneval": Source(("openai/openai_humaneval",), _humaneval, _of("humaneval")),
    "hh-rlhf": Source(
        ("Anthropic/hh-rlhf",),
        _preference,
        {"test": "hh_rlhf/harmless_base_test.jsonl"},
    ),
}


class Columns(NamedTuple):
    """The names of what is read in rows of any other set."""

    question: str = "question"
    answer: str = "answer"
    demonstration: str | None = None

    def prefers(self, row: dict) -> bool:
        """Whether it says which of two answers is better, and not what is right."""
        return {"chosen", "rejected"} <= row.keys() and self.answer not in row

    def read(self, row: dict) -> Problem:
        if self.prefers(row):
            asked = row.get(self.question)
            return _preference(row if asked is None else row | {"question": asked})
        answer = _text(row[self.answer])
        demonstration = row[self.demonstration] if self.demonstration else None
        final = answers.final(answer) if answer else None
        return Problem(row[self.question], final or answer, demonstration)


PLAIN = Columns()


class Problems(NamedTuple):
    all: list[Problem]
    left_out: list[str]  # where they stand


def read(
    name: str, split: str, columns: Columns = PLAIN, subset: str | None = None
) -> Problems:
    """All problems of one split of a set known by name, of a file, or of the hub."""
    source = SETS.get(name)
    read_row = columns.read if source is None else source.read
    found, left_out = [], []
    for where, row in _rows(name, split, source, subset):
        problem = _problem(read_row, row, where)
        texts = [problem.question]
        if problem.answer is not None or not columns.prefers(row):
            texts.append(problem.answer)
        if all(isinstance(x, str) and x.strip() for x in texts):
            found.append(problem)
        else:
            left_out.append(where)
    if not found:
        raise Refused(f"{name!r} has no problems in its split {split!r}.")
    return Problems(found, left_out)


def rows(name: str, split: str, subset: str | None = None) -> Iterable[tuple[str, Any]]:
    """Rows as they are, each with where it stands."""
    return _rows(name, split, SETS.get(name), subset)


def _rows(
    name: str, split: str, source: Source | None, subset: str | None
) -> Iterable[tuple[str, Any]]:
    """Rows, each with where it stands."""
    path, folder = pathlib.Path(name), os.environ.get(FOLDER)
    if source is not None:
        if folder is None or split not in source.files:
            if split in source.elsewhere[:1]:
                return _of_hub(*source.elsewhere[1:])
            hub, *subsets = source.hub
            found = (_of_hub(hub, split, one) for one in subsets or [None])
            return itertools.chain.from_iterable(found)
        path = pathlib.Path(folder) / source.files[split]
    elif folder is not None and not path.is_file():
        there = pathlib.Path(folder) / path
        path = there if there.is_file() else path  # one that is nowhere keeps its name
    if path.suffix == ".jsonl":
        return _of_lines(path)
    if path.suffix == ".parquet":
        file = str(path)
        return _numbered(file, _loaded("parquet", data_files=file, split="train"))
    return _of_hub(name, split, subset)


def _of_lines(path: pathlib.Path) -> Iterable[tuple[str, Any]]:
    if not path.is_file():
        raise Refused(
            f"{path} is not there; data.name names a file, a set or a hub id."
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except ValueError as error:
                raise Refused(
                    f"{where} is not JSON ({error}). Mend the line."
                ) from error


def _of_hub(
    name: str, split: str, subset: str | None = None
) -> Iterable[tuple[str, Any]]:
    where = "/".join(filter(None, (name, subset, split)))
    return _numbered(where, _loaded(name, subset, split=split))


def _loaded(name: str, *args: Any, **options: Any) -> Iterable[Any]:
    import datasets

    try:
        return datasets.load_dataset(name, *args, **options)
    except Exception as error:
        raise Refused(
            f"the data set {name!r} could not be loaded: {error}. Give a .jsonl or "
            f".parquet file, or a folder of known sets in the variable {FOLDER}."
        ) from error


def _numbered(name: str, rows: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    places = (f"{name}, row {i}" for i in itertools.count())
    return zip(places, rows, strict=False)


def _problem(read_row: Callable[[dict], Problem], row: Any, where: str) -> Problem:
    if not isinstance(row, dict):
        raise Refused(f"{where} is a {type(row).__name__}; a row names its columns.")
    try:
        return read_row(row)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Refused(
            f"{where} could not be read ({type(error).__name__}: {error}); it has "
            f"{', '.join(row)}. Name its columns in data.question, answer and "
            "demonstration, or mend the row."
        ) from error
