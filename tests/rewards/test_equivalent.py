"""Processes that compare formulas: killed, bounded, and begun again."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from grpo_jax.rewards import equivalent, worker


@pytest.fixture(autouse=True)
def anew():
    """Nothing is known from before, and no process is left."""
    equivalent.verdict.cache_clear()
    yield
    equivalent.POOL.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_none_begins_before_it_is_needed_and_one_serves_many():
    equivalent.POOL.close()
    assert equivalent.POOL.idle == []
    assert equivalent.equal(r"\sqrt{8}", r"2\sqrt{2}")
    (one,) = equivalent.POOL.idle
    assert not equivalent.equal(r"\sqrt{8}", r"3\sqrt{2}")
    assert equivalent.POOL.idle == [one]


def test_what_was_compared_is_known():
    equivalent.equal("x+1", "1+x")
    equivalent.POOL.close()
    assert equivalent.equal("x+1", "1+x") and equivalent.POOL.idle == []


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_died_is_replaced(kill):
    equivalent.equal("a", "b")
    (one,) = equivalent.POOL.idle
    os.kill(one.process.pid, kill)
    one.process.wait()
    assert equivalent.equal(r"x+x", "2x")
    assert equivalent.POOL.idle != [one]


def test_what_takes_too_long_is_late_and_that_is_kept():
    """Within one call, which only the system can end; by its calls; by its memory."""
    begun = time.monotonic()
    assert equivalent.verdict("paper", "4", "9^{9^{9}}") == "late"
    many = "".join(f"(x+{i})" for i in range(300))
    assert equivalent.verdict("paper", "x", many) == "late"
    assert time.monotonic() - begun < 60
    equivalent.POOL.close()
    assert not equivalent.equal("4", "x") and len(equivalent.POOL.idle) == 1
    assert equivalent.verdict("paper", "4", "9^{9^{9}}") == "late"


def test_a_silent_one_is_killed_and_the_fault_told(monkeypatch):
    """The machine has failed, not the answer: no verdict, and none that is kept."""
    monkeypatch.setattr(equivalent, "SECONDS", 0.0)
    begun = []
    ask = equivalent.Worker.ask

    def watched(one, *given):
        begun.append(one.process.pid)
        return ask(one, *given)

    monkeypatch.setattr(equivalent.Worker, "ask", watched)
    with pytest.raises(RuntimeError, match="3 workers died or were silent over 'a'"):
        equivalent.equal("a", "9^{9^{9}}")
    assert len(begun) == 3 and not any(map(alive, begun))
    monkeypatch.undo()
    assert not equivalent.equal("a", "b")


def test_threads_ask_each_their_own():
    found = {}

    def ask(i):
        found[i] = (
            equivalent.equal(f"x+{i}", f"{i}+x"),
            equivalent.equal("x", f"{i}x^2"),
        )

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), (True, False))


def test_nothing_is_evaluated(tmp_path):
    """Text that is Python, by either rule."""
    path = tmp_path / "there"
    code = f"__import__('pathlib').Path('{path}').touch()"
    for rule in ("algebra", "paper"):
        for text in (code, f"x + {code}", f"$1$ {code} $2$"):
            assert equivalent.verdict(rule, "4", text) != "equal"
    assert not path.exists()


def test_a_worker_imports_neither_jax_nor_the_package():
    equivalent.equal("a", "b")
    (one,) = equivalent.POOL.idle
    assert "jaxlib" not in pathlib.Path(f"/proc/{one.process.pid}/maps").read_text()


def test_the_bound_is_a_number_of_calls(monkeypatch):
    """And one within it is not ended."""
    ended = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    count = worker._counted(3)
    for _ in range(3):
        count(None, "call", None)
    assert ended == []
    count(None, "call", None)
    assert ended == [worker.FIRST + worker.WORDS.index("late")]


ENDS = """
import os, sys
sys.path.insert(0, {folder!r})
import worker

def told(gold, given):
    return given

def raises(gold, given):
    raise SystemExit(1)

def fails(gold, given):
    raise ValueError

def leaves(gold, given):
    os._exit(1)

rules = (told, "equal"), (told, "nothing"), (raises, ""), (fails, ""), (leaves, "")
print(*[worker._asked(rule, "", given) for rule, given in rules])
"""


def test_nothing_is_equal_but_by_a_rule_that_says_so():
    """Python ends with 1 where an error is not caught, and so may a library."""
    program = ENDS.format(folder=str(equivalent.WORKER.parent))
    given = {"capture_output": True, "text": True, "timeout": 60}
    found = subprocess.run([sys.executable, "-c", program], **given)
    assert found.stdout.split() == ["equal", "late", "unread", "unread", "late"]
