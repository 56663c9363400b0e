"""Breaks the mathematics in one place at a time, and lists what no test noticed.

    python tests/mutate.py OUT.jsonl [grpo_jax/losses/kl.py ...]

Not part of the suite. Signs, operators, comparisons, masks, constants, stop-gradients and
the branches of a selection are changed one by one, in memory, and the tests of that
module are run until one fails. A line per mutant is appended to OUT; a second start goes
on where the first ended. Each mutant runs in a process forked after the slow imports,
two at a time.
"""

import ast
import copy
import importlib
import json
import os
import pathlib
import signal
import sys
import tempfile

import jaxtyping

ROOT = pathlib.Path(__file__).parent.parent
FILES = ["unified.py", "prepare.py", "prng.py", "advantages/*.py", "losses/*.py"]
# Beside a module's own tests: those that would notice what it does to others.
ALSO = {
    "losses/policy": ["losses/test_objective_oracles.py", "test_unified.py"],
    "losses/objective": ["test_unified.py", "losses/test_policy.py"],
    "losses/select": ["test_prepare.py", "losses/test_objective_oracles.py"],
    "losses/statistics": ["losses/test_mismatch.py"],
    "advantages/group": ["advantages/test_estimate_oracles.py"],
    "advantages/tokens": ["advantages/test_estimate.py"],
    "advantages/measure": ["test_prepare.py"],
    "prepare": ["test_no_dead_knob.py"],
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


def start(module, source, tests):
    """The number of a process that ends with 0 only if every test passes."""
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        os._exit(_pytest_on(module, source, tests))
    return child


def outcome(status):
    if os.WIFSIGNALED(status):
        return "timed out" if os.WTERMSIG(status) == signal.SIGALRM else "killed"
    return "survived" if os.WEXITSTATUS(status) == 0 else "killed"


def _pytest_on(module, source, tests):
    """In a forked process: the mutant in the module's place, tests until one fails.

    The package imports modules and not names, so everyone sees what is put there.
    """
    import pytest

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        space = vars(sys.modules[module])
        classes = {k: v for k, v in space.items() if isinstance(v, type)}
        try:
            exec(compile(source, module, "exec"), space)
        except Exception:
            return 1  # it does not even import
        space.update(classes)  # others are annotated with these, and hold no formula
        options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        return int(pytest.main([*options, *tests]))


def jobs(paths):
    for path in paths:
        module = path.relative_to(ROOT / "grpo_jax")
        tests = _tests_of(module)
        source = path.read_text()
        yield f"{module} unchanged", (_module(module), source, tests)
        for number, (line, what, mutated) in enumerate(mutants(source)):
            key = f"{module}:{line}:{number} {what}"
            yield key, (_module(module), mutated, tests)


def _module(path):
    return ".".join(("grpo_jax", *path.with_suffix("").parts))


def _tests_of(module):
    own = sorted((ROOT / "tests" / module.parent).glob(f"test_{module.stem}*.py"))
    also = ALSO.get(str(module.with_suffix("")), [])
    return [*map(str, own), *(f"tests/{name}" for name in also)]


def _import_everything(folder):
    """The slow part, before the forks. Compiled operations are kept between mutants."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    importlib.import_module("tests.typecheck")
    jaxtyping.install_import_hook("grpo_jax", "tests.typecheck.check")
    for path in sorted((ROOT / "grpo_jax").rglob("*.py")):
        if path.stem != "__main__":
            parts = path.relative_to(ROOT).with_suffix("").parts
            importlib.import_module(".".join(parts))


def main(out, *names):
    folder = tempfile.mkdtemp()
    _import_everything(folder)
    paths = [ROOT / n for n in names] or [
        path
        for pattern in FILES
        for path in sorted((ROOT / "grpo_jax").glob(pattern))
        if path.stem != "__init__"
    ]
    out = pathlib.Path(out).absolute()
    done = {json.loads(row)["mutant"] for row in out.open()} if out.exists() else set()
    todo = [job for job in jobs(paths) if job[0] not in done]
    print(f"{len(todo)} mutants to run, {len(done)} done before")
    running = {}
    with out.open("a") as file:
        while todo or running:
            if todo and len(running) < 2:
                key, arguments = todo.pop(0)
                running[start(*arguments)] = key
                continue
            child, status = os.wait()
            row = {"mutant": running.pop(child), "result": outcome(status)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            if row["mutant"].endswith("unchanged") and row["result"] != "survived":
                sys.exit(f"{row['mutant']}: the tests fail without a mutant")
            if row["result"] != "killed":
                print(row, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
