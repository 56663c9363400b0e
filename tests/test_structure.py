"""The floors of the package, read from its source: who may import whom, and how long.

Imports go strictly down. Text, data and rewards are for the host and never import jax.
Compiled programs are built in one file.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

import grpo_jax

PACKAGE = pathlib.Path("grpo_jax")
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"section", "prng", "text/answers", "losses/statistics"}
    | {"text/units", "rewards/worker", "rewards/equivalent", "text/steps"}
    | {"crossing", "sampling/shapes", "accuracy", "allocation", "stopping", "hacking"}
    | {"line", "text/overlap", "rewards/jail"},
    {"tree", "unified", "losses/value", "models/spec", "models/settings", "training"}
    | {"text/vocabulary", "packing", "algorithm", "data/settings", "data/problem"}
    | {"rewards/settings", "rewards/calls", "workdir", "processes", "text/forms"}
    | {"rewards/paper", "data/verdicts", "plots", "text/diversity", "contrast"},
    {"sampling/settings", "replay", "data/arithmetic", "data/sets", "rewards/strict"}
    | {"rewards/shaping", "rewards/code", "sweep"},
    {"config", "sampling/draw", "sharding", "models/config_json", "models/names"}
    | {"text/tokenizer", "rewards/rules", "rewards/steps", "data/labelled"}
    | {"shepherd", "figures"},
    {"rewards/grading", "rewards/stepwise"}
    | {"losses/preference", "records", "presets", "losses/reduce", "losses/kl"}
    | {"losses/policy", "text/prompts"},
    {"losses/mismatch", "losses/select", "losses/likelihood", "advantages/group"}
    | {"task", "stepped", "text/reading"},
    {"losses/objective", "advantages/tokens", "models/attention", "models/kernels"}
    | {"display", "labels"},
    {"advantages/estimate", "experiment", "models/transformer", "resumed"},
    {"advantages/measure", "models/sizes", "models/heads", "models/lora"}
    | {"sampling/decode"},
    {"prepare", "scoring", "models/memory"},
    {"train_step"},
    {"programs"},
    {"models/weights", "topology", "reference"},
    {"models/hf", "models/gguf", "pool"},
    {"rollout", "optimizers", "sampled"},
    {"models/load", "learner"},
    {"selftest", "bench/ceilings", "plan", "asking", "offline", "checkpoint"}
    | {"bench/attacks", "bench/mutants", "judging"},
    {"bench/losses", "bench/answers", "bench/sampling", "bench/hlo", "runs", "groups"}
    | {"beginning"},
    {"bench/step", "planning", "stage", "model_commands", "rewards/neural"}
    | {"inquiry"},
    {"own_answers", "bench/compile"},
    {"bench/update", "trainer", "stages", "evaluate"},
    {"reward_stage"},
    {"run", "examination"},
    {"iterative"},
    {"evaluation", "shortcut", "bench/trainer", "labeller"},
    {"labelling"},
    {"reproduce"},
    {"cli"},
    {"__main__"},
]
HOST = ("text/", "data/", "rewards/")
MAY_USE_JAX = {"rewards/neural"}
MAY_JIT = {"programs"}


def name(path):
    return str(path.relative_to(PACKAGE).with_suffix(""))


def floor(module):
    found = [i for i, modules in enumerate(FLOORS) if module in modules]
    assert len(found) == 1, f"{module} must stand on exactly one floor"
    return found[0]


def imported(source):
    """Dotted names of all modules that a source file imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(source):
    """Those of them that are files of this package."""
    for dotted in imported(source):
        path = PACKAGE.joinpath(*dotted.split(".")[1:]).with_suffix(".py")
        if dotted.startswith("grpo_jax.") and path.is_file():
            yield name(path)


def upward(module, source):
    return [other for other in inside(source) if floor(other) >= floor(module)]


def says_jit(source):
    """Whether the source names jit or pjit, as an attribute, a name or an import."""
    words = {"jit", "pjit"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in words:
            return True
        if isinstance(node, ast.Name) and node.id in words:
            return True
        if isinstance(node, ast.ImportFrom) and words & {a.name for a in node.names}:
            return True
    return False


def long_functions(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
            yield node.name


@pytest.mark.parametrize("path", [f for f in FILES if f.stem != "__init__"], ids=str)
def test_a_file_keeps_to_its_floor_and_its_size(path):
    source = path.read_text()
    module = name(path)
    assert not upward(module, source)
    assert len(source.splitlines()) < 400
    assert not list(long_functions(source))
    if module.startswith(HOST) and module not in MAY_USE_JAX:
        assert not [m for m in imported(source) if m.split(".")[0] in ("jax", "optax")]
    if module not in MAY_JIT:
        assert not says_jit(source)


def test_init_files_export_nothing_but_the_package_its_two_ways_in():
    texts = {p: p.read_text() for p in FILES if p.stem == "__init__"}
    own = texts.pop(PACKAGE / "__init__.py")
    assert all("import" not in text for text in texts.values())
    assert set(imported(own)) == {"importlib", "typing", "typing.Any"}
    assert grpo_jax._WHERE.keys() == {"train", "quick"}


def test_the_package_is_imported_without_jax():
    """Or every --help would wait for it."""
    code = "import sys, grpo_jax; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_floor_names_files_that_exist():
    here = {name(f) for f in FILES if f.stem != "__init__"}
    assert set().union(*FLOORS) == here


def test_the_checks_see_what_they_forbid():
    assert upward("losses/kl", "from grpo_jax.losses import objective")
    assert upward("config", "import grpo_jax.prepare")
    assert upward("config", "def f():\n    from grpo_jax import prepare")
    assert not upward("prepare", "from grpo_jax import config")
    assert says_jit("import jax\nf = jax.jit(g)") and says_jit("from jax import jit")
    assert says_jit("@jax.jit\ndef f(): pass") and not says_jit("# jit")
    assert list(long_functions("def f():\n" + "    x = 1\n" * 60)) == ["f"]
