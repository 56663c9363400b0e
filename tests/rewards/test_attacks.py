"""Nothing is earned but by a right answer; nothing is lost by its dress."""

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


def resident() -> float:
    """MiB of memory that this process holds."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.slow
def test_100_000_generated_answers_neither_fail_nor_hang_nor_leak():
    draw, held, slowest = random.Random(0), [], 0.0
    for i in range(100_000):
        gold = draw.choice(FORMULAS if i % 100 == 0 else GOLD)
        text = completion(draw)
        start = time.process_time()
        assert rules.correct("What percent?", text, gold) in (0.0, 1.0)
        slowest = max(slowest, time.process_time() - start)
        if i % 50_000 == 49_999:
            held.append(resident())
    assert slowest < 1.0
    assert held[1] - held[0] < 32


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
