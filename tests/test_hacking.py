"""What is told of a reward and of what is right: seldom by chance, and of a real fall."""

import functools

import numpy as np
import pytest

from grpo_jax import crossing, hacking, learner, run, train_step, workdir
from grpo_jax.stage import Found, State
from tests import test_run

N = 600


def rows(reward, right, stage="online"):
    pairs = zip(reward, right, strict=True)
    return [
        {"stage": stage, hacking.REWARD: float(x), hacking.RIGHT: float(y)}
        for x, y in pairs
    ]


def is_told(reward, right, every=8):
    """Whether a run of these says that they parted, looked at now and then."""
    made = rows(reward, right)
    ends = range(hacking.SHORTEST, len(made) + 1, every)
    return any(hacking.parted(made[:end]) for end in ends)


def steady(draw, n=N):
    return 0.6 + 0.05 * draw.normal(size=n)


def rising(draw, n=N):
    return np.linspace(0, 30, n) + draw.normal(size=n)


def clinging(draw, n=N):
    """Noise that is correlated from step to step by 0.9."""
    found = 0.02 * draw.normal(size=n)
    for i in range(1, n):
        found[i] += 0.9 * found[i - 1]
    return 0.6 + found


def exploited(draw, noise, n=500, best=200):
    """Right of the samples: up to a peak, and from there down to where it began."""
    step = np.arange(n)
    right = np.where(step < best, 0.3 + step / 500, 0.7 - (step - best) / 1000)
    return right + noise * draw.normal(size=n)


def collapsing(draw, noise, n=120, best=40):
    """Faster at first than later, as a real one does."""
    step = np.arange(n)
    right = np.where(step < best, 0.3 + step / 133, 0.6 * np.exp((best - step) / 40))
    return right + noise * draw.normal(size=n)


def saturating(draw, n=120):
    return 5 - 5 * np.exp(-np.arange(n) / 60) + 0.2 * draw.normal(size=n)


@pytest.mark.parametrize(
    ("reward", "right", "most"),
    [
        (steady, steady, 0),
        (rising, steady, 0),
        (clinging, clinging, 0),
        (rising, clinging, 5),
        (rising, rising, 0),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_moves_by_chance_is_seldom_told(reward, right, most):
    """Of 40 runs. By the shares of the docstring more would be seen in 1 of 20."""
    draws = map(np.random.default_rng, range(40))
    assert sum(is_told(reward(draw), right(draw)) for draw in draws) <= most


@pytest.mark.parametrize("noise", [0.05, 0.08])
def test_a_reward_that_is_exploited_is_told(noise):
    """Of 20 runs in which what is right falls by 0.3 in 300 steps, evenly; and by more
    in fewer, as it comes."""
    draws = list(map(np.random.default_rng, range(20)))
    hits = sum(is_told(rising(draw, 500), exploited(draw, noise), 1) for draw in draws)
    assert hits >= 19
    hits = sum(is_told(saturating(draw), collapsing(draw, noise), 1) for draw in draws)
    assert hits >= 19


def parting(n=48):
    """Eight blocks that rise, and eight that fall, with a little noise, by hand."""
    wave = np.tile([0.01, -0.01], n // 2)
    line = np.linspace(0, 1, n)
    return rows(line + wave, 0.9 - 0.5 * line + wave)


def test_z_by_hand():
    # Blocks of 2 with means 0, 1, ..., 6 and 8, ±1 within each, of variance 2: the
    # halves' means are 1.5 and 5.75, and z = 4.25 / (2 √(2/16)) = 6.010.
    means = np.array([0, 1, 2, 3, 4, 5, 6, 8.0])[:, None]
    x = (means + np.array([-1, 1])).ravel()
    assert hacking._moved(x) == pytest.approx(6.010, abs=1e-3)
    assert hacking._moved(-x) == -hacking._moved(x)
    assert hacking._moved(np.ones(48)) == 0


@pytest.mark.parametrize(
    ("order", "is_ordered"),
    [
        ([0, 1, 2, 3, 4, 5, 7, 6], True),  # one pair of 28
        ([1, 0, 2, 3, 4, 5, 7, 6], False),  # two
        ([2, 0, 1, 3, 4, 5, 6, 7], False),  # two
        ([0, 1, 2, 3, 4, 5, 6, 6], True),  # a tie is half a pair
    ],
)
def test_means_are_in_order_but_for_one_pair(order, is_ordered):
    x = np.repeat(np.array(order, float), 2) + np.tile([-0.1, 0.1], 8)
    assert (hacking._moved(x) > hacking.BAR) is is_ordered
    assert (hacking._moved(-x) < -hacking.BAR) is is_ordered


@pytest.mark.parametrize(("last", "is_told"), [(0.74, True), (0.76, False)])
def test_a_quarter_of_what_is_right_is_lost(last, is_told):
    """Of what the first block had, 0.8: 0.6 is the most that may be left."""
    wave = np.tile([0.001, -0.001], 24)
    right = np.repeat(np.linspace(0.8, 0.8 * last, 8), 6) + wave
    found = hacking.parted(rows(np.linspace(0, 1, 48) + wave, right))
    assert (found is not None) is is_told


def test_what_is_told_says_from_what_to_what():
    told = hacking.parted(parting())
    assert told.startswith("reward and right have parted: over 48 steps the reward ro")
    assert "from 0.0532 to 0.947" in told and "from 87.3% to 42.7%" in told


@pytest.mark.parametrize("change", ["short", "same way", "stage", "unknown"])
def test_nothing_is_told_where_they_did_not_part(change):
    made = parting()
    if change == "short":
        made = made[1:]
    elif change == "same way":
        made = rows(*[[row[hacking.REWARD] for row in made]] * 2)
    elif change == "stage":
        made[0]["stage"] = "another"
    else:
        made[0][hacking.RIGHT] = None
    assert hacking.parted(made) is None


def test_what_is_no_number_is_left_out_in_memory_as_on_disk():
    made = parting()
    for nothing in (None, float("nan")):
        gap = made[0] | {hacking.REWARD: nothing}
        assert hacking.parted([*made[:7], gap, *made[7:]]) == hacking.parted(made)
    assert hacking.parted([{"stage": "online"}, *made]) is not None


def test_a_beginning_is_warned_of_once_and_again_after_a_while():
    made, told = parting(), "reward and right have parted"
    *before, last = made
    found, warning = hacking.look(before, last)
    assert found == {hacking.PARTED: 1.0} and warning.startswith(told)
    for ago, is_warned in ((1, False), (47, False), (48, False), (49, True)):
        rows_ = [{"stage": "sft"}, {"stage": "sft"}, *before]
        rows_[-ago] = rows_[-ago] | {hacking.PARTED: 1.0}
        found, warning = hacking.look(rows_, last)
        assert found == {hacking.PARTED: 1.0} and (warning is not None) is is_warned
    assert hacking.look(before[1:], last) == ({hacking.PARTED: 0.0}, None)
    assert hacking.look(before, {"stage": "online", hacking.REWARD: 1.0}) == ({}, None)


# In a run -------------------------------------------------------------------------------
class Told(test_run.Told):
    def warn(self, text):
        self.lines.append(text)


class Parting(test_run.Counter):
    """Rewarded more and more, and right less and less."""

    def step(self, state, number, meanwhile):
        meanwhile()
        if number in self.fails:
            raise self.fails.pop(number)
        x = crossing.up(np.full(3, number, np.float32))
        policy = train_step.State({"x": x}, {"moment": x})
        row = parting(60)[number - self.first]
        numbers = {k: x for k, x in row.items() if k != "stage"}
        return State(learner.State(policy), state.host), Found({}, numbers, {})


@pytest.fixture
def going(monkeypatch):
    test_run.count_only(monkeypatch)
    known = {"sft": test_run.Counter, "online": Parting}
    monkeypatch.setattr(run, "KINDS", known)


@pytest.mark.parametrize("fails_in", [20, 53, 57])
def test_a_run_that_was_stopped_says_what_it_would_have_said(fails_in, going, tmp_path):
    """In its rows, and on the screen; whether that came before it was stopped or not."""
    chosen = {"steps": 60, "keep": {"every": 30, "samples": 1000}}
    screen, train = Told(), functools.partial(test_run.train, **chosen)
    train(tmp_path / "whole", screen)
    whole, _ = test_run.left(tmp_path / "whole")
    flags = [row.get(hacking.PARTED) for row in whole]
    assert flags == [None] * 5 + [0.0] * 47 + [1.0] * 13
    said = [line for line in screen.lines if "parted" in line]
    assert len(said) == 1 and said[0].startswith("step 52: reward and right have")
    Parting.fails[fails_in] = OSError("gone")
    again = Told()
    with pytest.raises(OSError, match="gone"):
        train(tmp_path / "run", again)
    train(tmp_path / "run", again)
    assert test_run.left(tmp_path / "run")[0] == whole
    assert [line for line in again.lines if "parted" in line] == said
    text = (tmp_path / "run" / workdir.METRICS).read_text()
    assert f'"{hacking.PARTED}": 1.0' in text
