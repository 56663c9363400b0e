"""Programs are judged by their tests, and none passes by a trick."""

import json
import os
import pathlib

import pytest

from grpo_jax.rewards import code
from grpo_jax.section import Refused

ADD = '''def add(x: int, y: int):
    """Add two numbers x and y
    >>> add(2, 3)
    5
    """
'''
TESTS = """
def check(candidate):
    assert candidate(0, 1) == 1
    assert candidate(5, 7) == 12

check(add)
"""
HELPED = '''from math import fabs

def square(x):
    return x * x

def root(x):
    """Undo square"""
'''
HELPED_TESTS = "assert fabs(square(root(2)) - 2) < 1e-6"
LIMITS = {"seconds": 5.0, "mebibytes": 256}


def given(completion, question=ADD, tests=TESTS, **limits):
    return code.passes(question, completion, tests, **(LIMITS | limits))


def alone(program, tests, **limits):
    """Of a whole program; the question is no program."""
    return given(program, "Write one.", tests, **limits)


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("    return x + y\n", 1.0),
        ("\n    return x + y\n\nprint(add(1, 2))\n", 1.0),  # its end is cut
        ("    return x + y\n\ndef add(x, y):\n    return 0\n", 1.0),
        ("    return x - y\n", 0.0),
        ("    return 1 if y == 1 else 12\n", 1.0),
        ("def add(x, y):\n    return x + y", 1.0),
        ("So:\n```python\ndef add(x, y):\n    return x + y\n```\nDone.", 1.0),
        ("```\n    return x + y\n```", 1.0),
        ("```py\ndef add(x, y):\n    return x + y", 1.0),  # cut off, and whole
        ("```\ndef add(x, y): return x + y\n```\n```\nadd(1, 2) + None\n```", 1.0),
        ("```\ndef plus(x, y): return x + y\n```", 0.0),
        ("The answer is x + y.", 0.0),
        ("", 0.0),
        ("    return x +", 0.0),
        ("    return x + y\0", 0.0),
        ("    return x + y  # \ud800", 1.0),
    ],
)
def test_a_completion_is_a_body_or_a_program(completion, reward):
    assert given(completion) == reward


def test_the_question_s_own_imports_and_helpers_are_there():
    question = "import math\n\ndef one():\n    return 1\n\ndef f(x):\n    'Its root.'\n"
    tests = "assert f(4) == 2 and one() == 1"
    assert given("    return math.sqrt(x) * one()", question, tests) == 1
    assert given("def f(x):\n    return math.sqrt(x)", question, tests) == 1
    assert given("def f(x):\n    return 2", "Halve x, please.", "assert f(4) == 2") == 1
    for completion in (
        "    return 2",
        "def f(x): return 2",
    ):  # nothing behind the colon
        assert given(completion, "def f(x):\n", "assert f(4) == 2") == 1


@pytest.mark.parametrize("nothing", ["'Its root.'", "pass", "...", "raise ValueError"])
def test_what_the_question_does_not_define_is_asked_of_the_program(nothing):
    stub = f"def f(x):\n    {nothing}\n"
    for question in (f"{stub}\ndef one():\n    return 1\n", f"{stub}\n{stub}"):
        assert given("```\ndef f(x): return 2\n```", question, "assert f(4) == 2") == 1
    begun = "def one():\n    return 1\n\ndef f(x):\n    y = x / 2\n"
    for completion in ("    return y * one()", "def f(x): return 2"):
        assert given(completion, begun, "assert f(4) == 2 and one() == 1") == 1
    calls = f"def ten(x):\n    return 10 * f(x)\n\n{stub}"
    assert given("def f(x): return 2", calls, "assert ten(4) == 20") == 1


def test_plain_data_come_and_go_as_they_are():
    data = (
        "[None, True, 1, -0.5, 2**70, 'é\\n', b'x', 1j, (1, (2,)), {3}, [], {1: 'a'}]"
    )
    tests = f"""
import math
for x in {data}:
    assert same(x) == x and type(same(x)) is type(x)
assert same(float('inf')) == math.inf and same(math.nan) != same(math.nan)
assert same(frozenset((1,))) == frozenset((1,)) and same(x=(1, [2])) == (1, [2])
"""
    assert alone("def same(x): return x", tests) == 1


def test_what_is_built_on_plain_data_is_taken_for_them():
    program = """
import collections
def count(x): return collections.Counter(x)
def pair(x): return collections.namedtuple('Pair', 'a b')(x, x)
"""
    assert alone(program, "assert count('aab') == {'a': 2, 'b': 1}") == 1
    assert alone(program, "assert pair(1) == (1, 1)") == 1


def test_a_test_may_look_at_what_was_changed_in_place_and_at_errors():
    program = (
        "def order(x): x.sort()\ndef clear(x): x.clear()\ndef no(x): raise KeyError"
    )
    tests = """
x, y = [3, 1, 2], {1: 2}
order(x)
clear(y)
assert x == [1, 2, 3] and y == {}
try:
    no(1)
except KeyError:
    pass
else:
    raise AssertionError
"""
    assert alone(program, tests) == 1


def test_tests_that_need_more_than_plain_data_cannot_judge():
    assert alone("def f(g): return g(1)", "assert f(lambda x: x) == 1") is None


TRICKS = {
    "leaves with success": "import os\nos._exit(0)",
    "leaves within": "import os\ndef add(x, y): os._exit(0)",
    "exits": "raise SystemExit(0)",
    "equals anything": """
class Any(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def add(x, y): return Any()""",
    "equals anything within": """
class Any:
    def __eq__(self, other): return True
def add(x, y): return Any()""",
    "another check": "def check(f): pass\ndef add(x, y): return 0",
    "another assert": """
import builtins
AssertionError = builtins.AssertionError = SystemExit
def add(x, y): return 0""",
    "prints the verdict": """
import os
for fd in range(64):
    try: os.write(fd, b"begun\\npassed\\n")
    except OSError: pass
def add(x, y): return 0""",
    "reads the tests": """
import gc, sys
there = lambda x: ''.join(['candi', 'date(5']) in str(x)
found = any(map(there, gc.get_objects()))
frame = sys._getframe()
while frame:
    found = found or any(map(there, frame.f_locals.values()))
    frame = frame.f_back
def add(x, y): return x + y if found else 0""",
    "deletes the file of its tests": """
import os, shutil
shutil.rmtree('.', ignore_errors=True)
def add(x, y): return 0""",
    "kills those that test": "import os\nos.kill(os.getppid(), 9)",
    "answers for ever": "def add(x, y): return 'x' * (1 << 27)",
    "answers deeply": """
def add(x, y):
    out = []
    for _ in range(10 ** 5): out = [out]
    return out""",
    "no answer at all": "def add(x, y): return (i for i in ())",
    "helper that gives nothing": "def square(x): return 2\ndef root(x): return 0",
    "helper that does nothing": "def square(x): return x\ndef root(x): return x",
    "helper replaced within": "    global square\n    square = lambda x: x\n    return x",
    "helper that was imported": "def fabs(x): return 0\ndef root(x): return 0",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_success_cannot_be_claimed(trick):
    asked = (HELPED, HELPED_TESTS) if trick.startswith("helper") else (ADD, TESTS)
    assert given("```\n" + TRICKS[trick] + "\n```", *asked) == 0.0


def test_what_uses_the_question_s_helpers_passes():
    for completion in ("    return x**0.5", "def root(x): return square(x**0.25)"):
        assert given(completion, HELPED, HELPED_TESTS) == 1.0


@pytest.mark.parametrize(
    ("program", "reward"),
    [
        ("def f():\n    while True: pass", 0.0),
        ("import os\ndef f(): os._exit(0)", 0.0),
        ("def f(): return 'x' * (1 << 23)", 0.0),
        ("def f(): return f", 0.0),
        ("def f(): raise ValueError", 1.0),
    ],
)
def test_no_test_catches_a_program_that_gives_no_answer(program, reward):
    tests = "try:\n    f(f())\nexcept:\n    pass"
    assert alone(program, tests, seconds=0.5) == reward


def test_no_test_catches_that_its_time_is_over():
    tests = "import time\ntry:\n    time.sleep(9)\nexcept:\n    pass"
    assert alone("def f(): pass", tests, seconds=0.5) == 0.0


def test_no_test_catches_that_it_cannot_judge():
    tests = "try:\n    f(object())\nexcept Exception:\n    pass"
    assert alone("def f(x): pass", tests) is None


def test_python_s_own_names_mean_what_they_mean_to_tests():
    program = "def abs(x): return 0\ndef f(): return 9"
    assert alone(program, "assert abs(f() - 1) < 0.5") == 0.0


def test_what_goes_wrong_besides_the_program_is_no_verdict(monkeypatch):
    monkeypatch.setattr(code.jail, "__file__", "/nowhere/jail.py")
    with pytest.raises(RuntimeError, match=r"cannot be run: .*/nowhere/jail.py"):
        given("    return x + y")
    with pytest.raises(Refused, match="'code' runs programs, which needs Linux"):
        code.need_jail()


def test_one_that_never_begins_is_ended(monkeypatch, tmp_path):
    waits = tmp_path / "jail.py"
    waits.write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(code.jail, "__file__", str(waits))
    monkeypatch.setattr(code, "START", 0.5)
    with pytest.raises(RuntimeError):
        given("    return x + y", seconds=0.1)


def test_a_machine_that_can_judge_is_not_refused():
    code.need_jail()


def test_unmarked_text_is_python_or_not():
    assert code.is_python("def f(): pass") and not code.is_python("It is f.")
    assert not code.is_python("x\0") and not code.is_python("(" * 10**4)


def _human_eval():
    path = pathlib.Path(os.environ.get("GRPO_JAX_DATA", ""), "humaneval/test.jsonl")
    return path if path.is_file() else None


@pytest.mark.skipif(_human_eval() is None, reason="GRPO_JAX_DATA has no humaneval")
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 16])
def test_human_evals_own_solutions_pass_and_empty_ones_do_not(every):
    rows = map(json.loads, _human_eval().read_text().splitlines())
    for row in list(rows)[::every]:
        tests = f"{row['test']}\n\ncheck({row['entry_point']})\n"
        right, prompt = row["canonical_solution"], row["prompt"]
        whole = f"Sure!\n```python\n{prompt}{right}```\nIt is right."
        found = [given(x, prompt, tests) for x in (right, whole, "    return None")]
        assert found == [1, 1, 0], row["task_id"]
