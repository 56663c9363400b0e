r"""How far gradings of answers agree: with each other, with data, and under attack.

    python -m grpo_jax bench answers [--out FILE]

Needs the sets of `GRPO_JAX_DATA`. The tables are the same in every run, and stand in
`rewards/AGREEMENT.md`; the last line says what checks cost here, as one JSON object.
Of the paper's rules all but `parse_expr` are reproduced: what only that could read is
counted apart.
"""

import itertools
import json
import os
import pathlib
import re
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from grpo_jax import line
from grpo_jax.bench import attacks, mutants
from grpo_jax.data import sets
from grpo_jax.data.problem import Problem
from grpo_jax.rewards import equivalent, paper, strict
from grpo_jax.section import Refused
from grpo_jax.text import answers

TABLES = pathlib.Path(__file__).parents[1] / "rewards" / "AGREEMENT.md"
MODELS = "6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"
THREADS = 2  # more only wait for processors
TITLE = """# How far the gradings of answers agree

`python -m grpo_jax bench answers` writes this. *Strict* is the reward of training
(`rewards/strict.py`), *paper* the evaluation of DeepSeekMath (`rewards/paper.py`),
*math-verify* that package's own comparison of the two formulas.
"""


class Options(NamedTuple):
    """How far gradings of answers agree, on data, on changed answers, under attack."""

    out: pathlib.Path = TABLES  # a .md


def main(words: list[str]) -> int:
    given = line.parse("bench answers", Options, words)
    folder = os.environ.get(sets.FOLDER)
    if folder is None:
        raise Refused(f"bench answers needs the sets in the folder {sets.FOLDER}.")
    text = tables(pathlib.Path(folder))
    given.out.write_text(text)
    print(text)
    print(json.dumps(costs(pathlib.Path(folder))))
    return 0


def tables(folder: pathlib.Path) -> str:
    """All of them, as Markdown."""
    with ThreadPoolExecutor(THREADS) as threads:
        parts = [
            TITLE,
            _of_solutions(),
            _of_models(folder),
            _of_mutants(threads),
            _of_cases("Attacks: each must get 0", attacks.ATTACKS),
            _of_cases("Right answers in odd dress: each must get 1", attacks.RIGHT),
        ]
    return "\n".join(parts)


def _of_solutions() -> str:
    """Of each set, how many of its own solutions are right."""
    rows, missed = [], []
    for name, split in itertools.product(("gsm8k", "math"), ("train", "test")):
        problems = sets.read(name, split).all
        right = [
            strict.is_right(p.question, answers.final(p.demonstration), p.answer)
            for p in problems
        ]
        of_paper = [_paper(p, name) for p in problems]
        rows.append(
            [f"{name}, {split}", len(problems), sum(right), sum(g[0] for g in of_paper)]
        )
        missed += [p.answer for p, r in zip(problems, right, strict=True) if not r]
        rows[-1].append(sum(not g.is_reproduced for g in of_paper))
    titles = ["solutions of", "problems", "strict", "paper", "not reproduced"]
    listed = ", ".join(f"`{x}`" for x in missed) or "none"
    return _section(
        "Solutions that the data give",
        titles,
        rows,
        f"Not accepted by strict: {listed}.",
    )


def _paper(problem: Problem, name: str) -> paper.Grade:
    of = "list" if name == "math" else "last"
    gold = problem.demonstration if name == "math" else problem.answer
    said = problem.demonstration if name == "math" else rf"\boxed{{{problem.answer}}}"
    return paper.grade(problem.question, said, gold, of)


def solved(folder: pathlib.Path) -> Iterator[tuple[str, str, str, str, bool]]:
    """Model, question, completion, answer, and whether its authors call it correct."""
    path = folder / "gsm8k_model_solutions" / "test.jsonl"
    for row in map(json.loads, path.read_text().splitlines()):
        answer = answers.hashed(_marked(row["ground_truth"]))
        for model in MODELS:
            found = row[model]
            text = _marked(found["solution"])
            yield model, row["question"], text, answer, found["is_correct"]


def _marked(text: str) -> str:
    """With `#### n` in place of the closing `A: n`."""
    return re.sub(r"^A: (?=[^\n]*\s*\Z)", "#### ", text, flags=re.MULTILINE)


def _of_models(folder: pathlib.Path) -> str:
    rows = {model: [model, 0, 0, 0] for model in MODELS}
    for model, question, text, answer, is_correct in solved(folder):
        right = strict.is_right(question, answers.final(text), answer)
        of_paper = paper.grade(question, text.replace("#### ", ""), answer, "last")
        rows[model][1] += 1
        rows[model][2] += right == is_correct
        rows[model][3] += of_paper.is_right == is_correct
    total = [
        "all",
        *(sum(column) for column in list(zip(*rows.values(), strict=True))[1:]),
    ]
    return _section(
        "Solutions of four models to GSM8K's test questions",
        ["model", "solutions", "strict agrees", "paper agrees"],
        [*rows.values(), total],
        "With `is_correct`, as published with them. The closing `A: n` is read as a "
        "line `#### n` by strict; the paper takes the last number.",
    )


class Verdicts(NamedTuple):
    strict: bool
    paper: bool
    is_reproduced: bool
    math_verify: bool


def _of_mutants(threads: ThreadPoolExecutor) -> str:
    problems, parts = sets.read("math", "math500").all, []
    for title, kinds in (("wrong", mutants.WRONG), ("right", mutants.RIGHT)):
        rows, unread = [], []
        for kind, change in kinds.items():
            changed = [(p, change(p.answer)) for p in problems]
            given = [(p, x) for p, x in changed if x is not None]
            found = list(threads.map(lambda pair: _verdicts(*pair), given))
            sums = [sum(x[i] for x in found) for i in (0, 1, 3)]
            unknown = [not x.is_reproduced for x in found]
            unread += [_shown(x) for _, x in itertools.compress(given, unknown)]
            rows.append([kind, len(found), *sums, sum(unknown)])
        titles = ["answers", "of them", "strict", "paper", "math-verify"]
        titles.append("not reproduced")
        title = f"MATH-500 answers changed to {title} ones: accepted"
        note = f"Not reproduced: {', '.join(unread) or 'none'}."
        parts.append(_section(title, titles, rows, note))
    return "\n".join(parts)


def _verdicts(problem: Problem, said: str) -> Verdicts:
    boxed = rf"\boxed{{{said}}}"
    graded = paper.grade(
        problem.question, boxed, rf"\boxed{{{problem.answer}}}", "list"
    )
    return Verdicts(
        strict.is_right(problem.question, answers.final(boxed), problem.answer),
        *graded,
        equivalent.equal(problem.answer, said),
    )


def judged(case: attacks.Case) -> bool:
    """By the strict checker, as training has it."""
    text = case.completion if case.has_ended else answers.whole(case.completion)
    return strict.is_right(case.question, answers.final(text), case.gold)


def _of_cases(title: str, cases: Sequence[attacks.Case]) -> str:
    rows = []
    for case in cases:
        of_paper = paper.grade(
            case.question, case.completion, rf"\boxed{{{case.gold}}}", "list"
        )
        rows.append(
            [
                case.what,
                _shown(case.completion),
                f"`{case.gold}`",
                int(judged(case)),
                int(of_paper.is_right) if of_paper.is_reproduced else "?",
            ]
        )
    note = "`?`: the paper's code would evaluate it as Python."
    return _section(
        title, ["what", "completion", "gold", "strict", "paper"], rows, note
    )


def _shown(text: str) -> str:
    text = text if len(text) < 60 else f"{text[:40]}… ({len(text)} characters)"
    text = text.encode("unicode_escape" if "\x00" in text else "utf-8").decode()
    return "`" + text.replace("\n", "↵").replace("|", "\\|").replace("`", "'") + "`"


def _section(
    title: str, titles: Sequence[str], rows: Sequence[Sequence], note=""
) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    table = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines)
    return f"## {title}\n\n{table}\n" + (f"\n{note}\n" if note else "")


def costs(folder: pathlib.Path) -> dict[str, float]:
    """What a check costs of a processor, of what models write; and of memory."""
    given = [row[1:4] for row in solved(folder)]
    start = time.process_time()
    for question, text, gold in given:
        strict.is_right(question, answers.final(text), gold)
    seconds = time.process_time() - start
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "checks_per_second_of_cpu": round(len(given) / seconds),
        "peak_MiB": round(usage / 1024),
    }
