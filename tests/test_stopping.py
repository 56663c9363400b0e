"""Being asked to stop: what is saved, what is given up, and who has the signals then."""

import signal
import threading
import types

import jax
import pytest

from grpo_jax import checkpoint, config, run, stopping
from tests import runs

SETTINGS = runs.build(config.Config, runs.SMALL | {"training.steps": 4})


@pytest.fixture
def stop():
    made = stopping.Stop(5.0)
    yield made
    made.close()


def at(seconds, patch):
    """The clock says that."""
    clock = types.SimpleNamespace(monotonic=lambda: seconds)
    patch.setattr(stopping, "time", clock)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_does_nothing_else(stop, number):
    assert not stop.is_asked()
    signal.raise_signal(number)
    assert stop.is_asked() and stop.is_asked()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_once_more_ends_at_once(stop, first):
    signal.raise_signal(first)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_changes_nothing(stop, monkeypatch):
    at(100.0, monkeypatch)
    signal.raise_signal(signal.SIGTERM)
    at(103.0, monkeypatch)
    signal.raise_signal(signal.SIGTERM)
    assert stop.since == 100.0


def test_a_step_is_given_up_where_the_notice_is_too_short(stop, monkeypatch):
    stop.need_time(1e9)  # nobody asked
    at(100.0, monkeypatch)
    signal.raise_signal(signal.SIGTERM)  # it ends at 105
    at(103.0, monkeypatch)
    stop.need_time(1.75)
    with pytest.raises(stopping.GivenUp):
        stop.need_time(2.25)
    at(106.0, monkeypatch)
    for overdue in (0.0, -2.0):
        with pytest.raises(stopping.GivenUp):
            stop.need_time(overdue)


def test_signals_are_given_back():
    numbers = signal.SIGTERM, signal.SIGINT
    before = list(map(signal.getsignal, numbers))
    made = stopping.Stop(5.0)
    assert all(
        a != b for a, b in zip(before, map(signal.getsignal, numbers), strict=True)
    )
    made.close()
    assert list(map(signal.getsignal, numbers)) == before


def test_only_the_main_thread_takes_signals():
    made = []
    thread = threading.Thread(target=lambda: made.append(stopping.Stop(5.0)))
    thread.start()
    thread.join()
    assert made[0].before == {}
    made[0].close()


def test_of_several_processes_jax_says_when(monkeypatch):
    """SIGTERM is left to it: it tells all, and all agree on the look, counted through
    all runs of a process. Ctrl-C is one."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    asked = types.SimpleNamespace(reached_preemption_sync_point=lambda look: look == 2)
    monkeypatch.setattr(stopping, "multihost_utils", asked)
    made = stopping.Stop(5.0)
    assert list(made.before) == [signal.SIGINT]
    assert [made.is_asked(), made.is_asked()] == [False, True]
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGTERM, before)
    assert heard == ["SIGTERM"]
    made.need_time(1e9)  # none gives a step up alone
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    made.close()


def at_question(number):
    """SIGTERM comes while that question is answered in training, or a later one."""
    left = [1]

    def says(question, asked, sample):
        if asked >= number and sample == 1 and left:
            left.clear()
            signal.raise_signal(signal.SIGTERM)
        return runs.says(question, asked, sample)

    return says


def steps_of(folder):
    kept = [int(path.name) for path in (folder / "checkpoints").iterdir()]
    return [row["step"] for row in runs.rows(folder)], sorted(kept)


def stopped(folder, says, chosen=SETTINGS):
    before = signal.getsignal(signal.SIGINT)
    with runs.stubbed(says), pytest.raises(stopping.Stopped) as error:
        runs.train(chosen, folder)
    assert signal.getsignal(signal.SIGINT) == before
    return error.value.number


def test_the_step_under_way_is_finished_and_saved(tmp_path):
    assert stopped(tmp_path, at_question(5)) == 2
    rows, kept = steps_of(tmp_path)
    assert rows == [0, 1, 2] and kept[-1] == 2


def test_without_the_time_for_it_the_step_before_is_saved(tmp_path, monkeypatch):
    # Step 1 took this long by its clock; the signal leaves 25 seconds.
    ticks = iter(range(0, 10**6, 100))
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(run, "time", clock)
    assert stopped(tmp_path, at_question(4)) == 1
    assert steps_of(tmp_path) == ([0, 1], [1])


CARRYING = {
    "nothing": {},
    "what was seen": {"groups.allocation": "neyman", "groups.mean": 3}
    | {"algorithm.advantage.estimator": "leave_one_out"}
    | {"algorithm.advantage.scale_rewards": "none"}
    | {"algorithm.loss_mean": "per_question", "data.count": 8, "data.held_out": 0.0},
    "beta": {"algorithm.kl.target": 0.1, "groups.mixed": True},
}


@pytest.mark.parametrize("carried", CARRYING)
def test_what_was_stopped_goes_on_as_if_it_had_not_been(carried, tmp_path):
    """Stopped twice: in the second step, and in the third."""
    changed = runs.SMALL | {"training.steps": 4} | CARRYING[carried]
    chosen, last = runs.build(config.Config, changed), []
    for number, step in ((8, 2), (0, 3)):
        # With groups.mixed a step asks eight questions, or else four.
        number //= 1 if chosen.groups.mixed else 2
        assert stopped(tmp_path / "one", at_question(number), chosen) == step
    for name in ("one", "two"):
        with runs.stubbed() as calls:
            runs.train(chosen, tmp_path / name)
        last.append([call for call in calls if call[0] == "learn"][-1])
    assert last[0] == last[1]
    assert steps_of(tmp_path / "one")[0] == [0, 1, 2, 3, 4]
    assert runs.rows(tmp_path / "one") == runs.rows(tmp_path / "two")


def at_examination(number):
    """SIGTERM comes while that examination is under way."""
    count = []

    def says(question, asked, sample):
        count.append(question)
        if len(count) == number:
            signal.raise_signal(signal.SIGTERM)
        return runs.says(question, asked, sample)

    return says


def test_the_first_examination_is_given_up_and_the_run_begins_anew(tmp_path):
    assert stopped(tmp_path / "one", at_examination(3)) == 0
    for name in ("one", "two"):
        with runs.stubbed():
            runs.train(SETTINGS, tmp_path / name)
    assert runs.rows(tmp_path / "one") == runs.rows(tmp_path / "two")


def test_an_examination_is_given_up_and_made_up_for(tmp_path):
    """Its row lacks it, its checkpoint is there; the next start does it first."""
    changed = {"training.steps": 4, "evaluation.every": 2, "evaluation.questions": 4}
    changed |= {"evaluation.batch_size": 2, "keep.notice": 1e-9, "keep.every": 100}
    chosen = runs.build(config.Config, runs.SMALL | changed)
    # Before the first step 4 are asked, and 16 by each step; then 4 again.
    assert stopped(tmp_path / "one", at_examination(4 + 2 * 16 + 2), chosen) == 2
    rows, kept = runs.rows(tmp_path / "one"), steps_of(tmp_path / "one")[1]
    assert [("eval/accuracy" in row) for row in rows] == [True, False, False]
    assert kept == [2]
    for name in ("one", "two"):
        with runs.stubbed():
            runs.train(chosen, tmp_path / name)
    assert runs.rows(tmp_path / "one") == runs.rows(tmp_path / "two")
    one, two = (
        checkpoint.Checkpoints(
            tmp_path / name / "checkpoints", chosen.keep, print, reads=True
        )
        for name in ("one", "two")
    )
    assert one.steps()[-1] == two.steps()[-1] == 4
    assert [one.rank(step) for step in one.steps()][-1] == two.rank(4)
    for x in (one, two):
        x.close()
