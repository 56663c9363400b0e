"""The reward of a program: 1 if it passes the problem's tests, which are its answer.

The question is a function that lacks its body, as HumanEval's are, or any text. The
completion holds the body, or a whole program, in a fence or without. What is made of it
runs in processes of its own (see `jail`), which is to keep accidents and cheap tricks
away. It is no boundary for an attacker who knows a hole in the kernel: who expects one
trains in a machine that has nothing to lose.
"""

import ast
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile

from grpo_jax.rewards import jail
from grpo_jax.section import Refused

START = 20.0  # seconds that two processes may take to begin, on a busy machine
FENCE = re.compile(r"^```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:^```|\Z)", re.M | re.S)


def passes(
    question: str, completion: str, tests: str, *, seconds: float, mebibytes: int
) -> float | None:
    """Whether what the completion makes of the question passes; None: the tests ask
    for more than functions of plain data."""
    own = "\n\n".join(filter(None, (helpers(question), tests)))
    return judged(program(question, completion), own, seconds, mebibytes)


def program(question: str, completion: str) -> str:
    """What is run: the body behind the question, or the completion's own program.

    A question that defines functions comes before both: its imports and helpers count.
    """
    fenced = FENCE.search(completion)
    text = fenced[1] if fenced else completion
    first = next((line for line in text.split("\n") if line.strip()), "")
    head = _definitions(question)
    if head is None:
        return text
    if first[:1].isspace():
        return f"{question.rstrip()}\n{_body(text)}"
    return f"{head}\n\n{text}"


def _body(text: str) -> str:
    """Up to where a function ends: a line that is not indented."""
    lines = text.split("\n")
    ends = (i for i, line in enumerate(lines) if re.match(r"[^\s]", line))
    return "\n".join(lines[: next(ends, len(lines))])


def _definitions(question: str) -> str | None:
    """The question as a program that defines functions, with a body that does nothing
    where it has none; None if it is no such thing."""
    for text in (question, f"{question.rstrip()}\n    pass"):
        try:
            found = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if any(isinstance(node, ast.FunctionDef) for node in found):
            return text
    return None


def helpers(question: str) -> str:
    """What tests have from the question itself, so that no program gives them another:
    all but the functions asked for, which lack a body, or else the last one."""
    tree = ast.parse(_definitions(question) or "")
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    asked = [*filter(_lacks_body, functions)] or functions[-1:]
    tree.body = [node for node in tree.body if node not in asked]
    return ast.unparse(tree)


def _lacks_body(function: ast.FunctionDef) -> bool:
    return all(
        isinstance(line, ast.Pass | ast.Raise)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for line in function.body
    )


def is_python(text: str) -> bool:
    """Whether it could be run at all."""
    try:
        compile(text, "program", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def judged(program: str, tests: str, seconds: float, mebibytes: int) -> float | None:
    """1 if all tests pass in time; raises if no verdict is the program's doing."""
    with tempfile.TemporaryDirectory(prefix="program-") as folder:
        command = [sys.executable, "-I", "-S", jail.__file__]
        # No preexec_fn: it would fork a process that has threads, JAX's among them.
        running = subprocess.Popen(
            [*command, str(seconds), str(mebibytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        own = program.encode(errors="replace")
        given = struct.pack("<Q", len(own)) + own + tests.encode(errors="replace")
        try:
            said, why = running.communicate(given, timeout=START + seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            said, why = running.communicate()
    begun, _, verdict = said.decode().partition(jail.BEGUN)
    if verdict == jail.UNFIT:
        return None
    if begun or jail.BEGUN not in said.decode():
        raise RuntimeError(f"programs cannot be run: {why.decode()[-300:].strip()}")
    return float(verdict == jail.PASSED)


def need_jail():
    """Refuses to begin where programs could not be run, or not safely."""
    try:
        judged("def f(): return 1", "assert f() == 1", START, 512)
    except (RuntimeError, OSError) as error:
        raise Refused(
            f"the reward 'code' runs programs, which needs Linux 5.13 on x86_64 with "
            f"Landlock and seccomp: {error}. Train there, or judge them in a function "
            "of your own, named in rewards.functions."
        ) from error
