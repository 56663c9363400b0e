"""A reward function may do anything; its sample is unscored, and it is told."""

import threading
import time

import numpy as np
import pytest

from grpo_jax.rewards import calls, rules
from grpo_jax.section import Refused

SAMPLES = [calls.Sample(f"q{i}", str(i), str(i % 2)) for i in range(6)]


def scored(*functions, workers=2, seconds=5.0):
    named = {f"r{i}": function for i, function in enumerate(functions)}
    pool = calls.Pool(named, workers, seconds)
    begun = [pool.submit(sample, sample) for sample in SAMPLES]
    parts, faults = zip(*map(pool.collect, begun), strict=True)
    return calls.Scored(np.stack(parts), [x for some in faults for x in some])


def test_each_sample_has_each_reward_in_its_place():
    found = scored(rules.last, lambda q, c, a: int(c) / 2)
    np.testing.assert_array_equal(found.parts[:, 0], [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.parts[:, 1], np.arange(6) / 2)
    assert found.faults == []


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, None),
        (float("nan"), None),
        ("1.0", "returned '1.0', no finite number"),
        (float("inf"), "returned 'inf', no finite number"),
        ([1.0], r"returned '[1.0]', no finite number"),
        (1j, "returned '1j', no finite number"),
    ],
)
def test_what_is_no_number_is_unscored(value, fault):
    found = scored(lambda q, c, a: value if c == "3" else True)
    assert np.isnan(found.parts[3, 0]) and np.isfinite(np.delete(found.parts, 3)).all()
    assert found.faults == ([] if fault is None else [f"r0 {fault}"])


def test_one_that_raises_is_told():
    found = scored(lambda q, c, a: 1 / int(c))
    assert found.faults == ["r0 raised ZeroDivisionError: division by zero"]
    assert np.isnan(found.parts[:, 0]).sum() == 1


def test_one_that_hangs_costs_its_time_and_its_thread_alone():
    """Both workers hang; others take their place."""
    forever = threading.Event()
    start = time.monotonic()
    hangs = lambda q, c, a: forever.wait() if c in "03" else 1.0  # noqa: E731
    found = scored(hangs, seconds=0.3)
    assert found.faults == ["r0 took longer than 0.3 s"] * 2
    np.testing.assert_array_equal(np.isnan(found.parts[:, 0]), [1, 0, 0, 1, 0, 0])
    assert time.monotonic() - start < 5
    forever.set()


def test_waiting_for_a_thread_is_not_taking_long():
    found = scored(lambda q, c, a: time.sleep(0.1) or 1.0, workers=1, seconds=0.4)
    assert found.faults == [] and (found.parts == 1).all()


def test_too_many_failures_stop_the_run():
    with pytest.raises(Refused, match=r"4 of 6 rewards failed; .* The first: it hung"):
        calls.need_few(4, 6, "it hung", 0.5)
    calls.need_few(3, 6, "it hung", 0.5)


def test_too_many_samples_without_a_reward_stop_the_run():
    with pytest.raises(Refused, match=r"4 of 6 samples could not .*most_unscored is 0"):
        calls.need_scored(4, 6, 0.5)
    calls.need_scored(3, 6, 0.5)


def test_a_slow_call_leaves_no_thread_behind():
    """Its thread ends with it: another was begun in its place."""
    before = threading.active_count()
    slow = lambda q, c, a: time.sleep(0.3) or 1.0  # noqa: E731
    found = scored(slow, workers=2, seconds=0.1)
    assert len(found.faults) == 6
    time.sleep(0.5)
    assert threading.active_count() <= before + 2


def test_threads_end_with_their_pool_and_what_was_asked_is_answered():
    before = set(threading.enumerate())
    pool = calls.Pool({"a": lambda *_: 1.0}, 3, 1.0)
    futures = [pool.submit(*SAMPLES[:1] * 2) for _ in range(5)]
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    del pool
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert [future.result(0) for (future,) in futures] == [1.0] * 5


def test_a_function_that_bounds_itself_is_waited_for():
    slow = lambda q, c, a: time.sleep(0.3) or 1.0  # noqa: E731
    pool = calls.Pool({"slow": slow}, 1, 0.1, {"slow"})
    assert pool.collect(pool.submit(*SAMPLES[:1] * 2)) == (np.ones(1), [])
