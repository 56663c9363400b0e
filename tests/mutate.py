"""Breaks the mathematics in one place at a time, and lists what no test noticed.

    python tests/mutate.py OUT.jsonl [grpo_jax/losses/kl.py ...]

Not part of the suite. Signs, operators, comparisons, masks, constants, stop-gradients and
the branches of a selection are changed one by one in a copy of the repository, and the
tests of that floor are run until one fails. A line per mutant is appended to OUT; a
second start goes on where the first ended. Each mutant runs in a process forked after
the slow imports, two at a time.
"""

import ast
import concurrent.futures
import contextlib
import copy
import json
import os
import pathlib
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
FILES = ["unified.py", "prepare.py", "prng.py", "advantages/*.py", "losses/*.py"]
TESTS = {
    "advantages": ["tests/advantages", "tests/test_prepare.py"],
    "losses": ["tests/losses", "tests/test_unified.py", "tests/test_prepare.py"],
    "unified": ["tests/test_unified.py"],
    "prepare": ["tests/test_prepare.py", "tests/test_no_dead_knob.py"],
    "prng": ["tests/test_prng.py"],
}
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
NAMES = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min"}
NAMES |= {"any": "all", "all": "any", "lowest": "highest", "highest": "lowest"}
SECONDS = 300


def mutants(source):
    """(line, what changed, mutated source) for every place that can be changed."""
    tree = ast.parse(source)
    skipped = {id(n) for top in ast.walk(tree) for n in _not_mathematics(top)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for what, change in _changes(node):
            other = copy.deepcopy(tree)
            twin = next(n for i, n in enumerate(ast.walk(other)) if i == index)
            change(twin)
            yield node.lineno, what, ast.unparse(ast.fix_missing_locations(other))


def _not_mathematics(node):
    """Annotations, messages and checks of input: everything that is no formula."""
    if isinstance(node, ast.FunctionDef) and node.name.startswith("_check"):
        yield from ast.walk(node)
    if isinstance(node, ast.Raise | ast.ClassDef | ast.JoinedStr):
        yield from ast.walk(node)
    for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
        if hint is not None:
            yield from ast.walk(hint)


def _changes(node):
    """What can be done to one node, as (description, function that does it)."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        yield (
            f"{_sign(node.op)} swapped",
            lambda n: setattr(n, "op", SWAPS[type(n.op)]()),
        )
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield (
            f"{_sign(node.ops[0])} swapped",
            lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]()),
        )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        yield f"{_sign(node.op)} dropped", lambda n: setattr(n, "op", ast.UAdd())
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} + 1", lambda n: setattr(n, "value", n.value + 1)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} swapped", lambda n: setattr(n, "attr", NAMES[n.attr])
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "stop_gradient":
            yield "stop_gradient dropped", _drop_call
        elif node.func.attr == "where" and len(node.args) == 3:
            yield "where swapped", lambda n: n.args.reverse() or _restore(n)
            yield "where always true", lambda n: n.args.__setitem__(2, n.args[1])


def _sign(op):
    return type(op).__name__


def _drop_call(node):
    node.func = ast.parse("(lambda x: x)", mode="eval").body


def _restore(node):
    """After a reversal (a, b, condition) → (condition, b, a)."""
    a, b, condition = node.args
    node.args[:] = [condition, a, b]


def run(path, source, tests):
    """Whether a test fails on the mutated source: "killed", "survived" or "timed out"."""
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        for part in ("grpo_jax", "tests", "experiments"):
            shutil.copytree(ROOT / part, home / part, symlinks=True)
        shutil.copy(ROOT / "setup.cfg", home)
        (home / path).write_text(source)
        child = os.fork()
        if not child:
            os._exit(_pytest_in(home, tests))
        with concurrent.futures.ThreadPoolExecutor(1) as waiting:
            status = waiting.submit(os.waitpid, child, 0)
            try:
                code = os.waitstatus_to_exitcode(status.result(SECONDS)[1])
            except TimeoutError:
                os.kill(child, 9)
                return "timed out"
    return "survived" if code == 0 else "killed"


def _pytest_in(home, tests):
    """In a forked process: the tests on the copy, quietly, until the first failure."""
    import pytest

    os.chdir(home)
    sys.path.insert(0, str(home))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        with contextlib.redirect_stdout(nowhere):
            return int(
                pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests])
            )


def jobs(paths):
    for path in paths:
        module = path.relative_to(ROOT / "grpo_jax")
        tests = _tests_of(module)
        source = path.read_text()
        for number, (line, what, mutated) in enumerate(mutants(source)):
            key = f"{module}:{line}:{number} {what}"
            yield key, (str(path.relative_to(ROOT)), mutated, tests)


def _tests_of(module):
    """The module's own tests first, then the rest of its floor."""
    rest = TESTS[module.parts[0].removesuffix(".py")]
    own = sorted((ROOT / "tests" / module.parent).glob(f"test_{module.stem}*.py"))
    return [str(path.relative_to(ROOT)) for path in own] + rest


def main(out, *names):
    import jax  # noqa: F401  (imported before the forks, used in them)
    import pytest  # noqa: F401

    paths = [ROOT / n for n in names] or [
        p for pattern in FILES for p in sorted((ROOT / "grpo_jax").glob(pattern))
    ]
    out = pathlib.Path(out)
    done = {json.loads(row)["mutant"] for row in out.open()} if out.exists() else set()
    todo = [job for job in jobs(paths) if job[0] not in done]
    print(f"{len(todo)} mutants to run, {len(done)} done before")
    with concurrent.futures.ProcessPoolExecutor(2) as pool, out.open("a") as file:
        running = {pool.submit(run, *arguments): key for key, arguments in todo}
        for future in concurrent.futures.as_completed(running):
            row = {"mutant": running[future], "result": future.result()}
            file.write(json.dumps(row) + "\n")
            file.flush()
            if row["result"] != "killed":
                print(row)


if __name__ == "__main__":
    main(*sys.argv[1:])
