"""Nothing is earned but by a right answer; nothing is lost by its dress."""

import os
import pathlib
import random
import time

import pytest

from grpo_jax.bench import answers as bench
from grpo_jax.bench import attacks
from grpo_jax.rewards import equivalent, rules

GOLD = ["18", "-3", r"\frac{1}{2}", "[1,2)", "1, 2", r"50\%", r"18\text{ inches}"]
FORMULAS = ["x+1", r"2\sqrt{3}", r"\frac{\pi}{2}", "y=x^2"]
_PIECES = r"""
\boxed{ } { ( ) [ ] \frac \sqrt ^ _ + - * / = < , ; . % $ # #### \text{ \left \right
\{ \} \begin{pmatrix} \end{pmatrix} \\ & \cup \pm \circ \pi \cdot \times \infty \%
0 1 2 3 18 99 007 1.5 .5 1,234 10^ 9^{9 x y = or and cm inches apples a.m. million
١ ⑱ ² − １ \x nan inf 1e5 __import__ lambda <think> </think> I hope π ∞
"""
PIECES = _PIECES.split()


def ids(case):
    return f"{case.what}: {case.completion[:40]}".encode("ascii", "replace").decode()


@pytest.mark.parametrize("case", attacks.ATTACKS, ids=ids)
def test_an_attack_earns_nothing(case):
    """Nor where it is cut."""
    assert not bench.judged(case) and not bench.judged(case._replace(has_ended=False))


@pytest.mark.parametrize("case", attacks.RIGHT, ids=ids)
def test_a_right_answer_in_odd_dress_is_right(case):
    assert bench.judged(case)


def completion(draw: random.Random) -> str:
    pieces = (draw.choice(PIECES) for _ in range(draw.randint(0, 12)))
    said = draw.choice(["", " ", " ", "\n"]).join(pieces)
    return draw.choice([rf"So \boxed{{{said}}}", f"So\n#### {said}", said])


def resident(*processes: int | str) -> float:
    """MiB of memory that they hold; none that anybody knows where there is no /proc."""
    paths = [pathlib.Path(f"/proc/{one}/statm") for one in processes]
    pages = sum(int(path.read_text().split()[1]) for path in paths if path.exists())
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
def test_100_000_generated_answers_neither_fail_nor_hang_nor_leak():
    """Here, or in the process that compares formulas, which ends what goes on for ten
    seconds of a processor, and is silent for 120 where it hangs."""
    equivalent.POOL.close()  # those that other tests had at the same time
    draw, held, slowest, longest = random.Random(0), [], 0.0, 0.0
    for i in range(100_000):
        gold = draw.choice(FORMULAS if i % 100 == 0 else GOLD)
        text = completion(draw)
        start, began = time.process_time(), time.monotonic()
        assert rules.correct("What percent?", text, gold) in (0.0, 1.0)
        slowest = max(slowest, time.process_time() - start)
        longest = max(longest, time.monotonic() - began)
        if i % 50_000 == 49_999:
            idle = [worker.process.pid for worker in equivalent.POOL.idle]
            assert len(idle) == 1
            held.append((resident("self"), resident(*idle)))
    assert slowest < 1.0 and longest < 100.0
    for before, after in zip(*held, strict=True):
        assert after - before < 32


@pytest.mark.parametrize("seed", range(3))
def test_generated_answers_neither_fail_nor_come_to_algebra_where_a_number_is_right(
    seed, monkeypatch
):
    def refuse(*given):
        raise AssertionError(f"asked for algebra: {given}")

    monkeypatch.setattr(equivalent, "equal", refuse)
    draw = random.Random(seed)
    for _ in range(2000):
        text, gold = completion(draw), draw.choice(["18", "-3", r"\frac{1}{2}"])
        assert rules.correct("", text, gold) in (0.0, 1.0)
