"""What is told of a reward and of what is right: seldom by chance, and of a real fall."""

import dataclasses
import functools

import numpy as np
import pytest

from grpo_jax import (
    algorithm,
    beginning,
    config,
    crossing,
    hacking,
    learner,
    run,
    train_step,
    workdir,
)
from grpo_jax.stage import Found, State
from tests import test_run

N = 600


def rows(reward, right, stage="online"):
    pairs = zip(reward, right, strict=True)
    return [
        {"stage": stage, hacking.REWARD: float(x), hacking.RIGHT: float(y)}
        for x, y in pairs
    ]


def is_told(reward, right, every=16):
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
    hits = sum(is_told(rising(draw, 500), exploited(draw, noise), 4) for draw in draws)
    assert hits >= 19
    hits = sum(is_told(saturating(draw), collapsing(draw, noise), 2) for draw in draws)
    assert hits >= 19


# Of experiments/overoptimise.py with β 0.1 and seed 0, in percent, after each step.
REAL = """
    35 45 34 37 38 39 44 47 53 51 55 51 57 54 59 60 62 62 57 70 74 72 68 74 71 64 75
    59 54 60 52 64 62 56 64 54 73 57 59 53 65 59 66 67 61 58 58 67 71 71 74 51 67 55
    68 73 52 55 49 45 34 54 42 51 37 40 27 27 13 22 29 24 22 34 35 42 36 31 50 37 25
    34 25 23 33 23 21 19 26 19
"""
REAL_REWARD = """
    -155 -85 -144 -167 -102 -72 -49 -67 -8 -21 -27 17 44 -1 -5 9 53 57 39 47 80 95
    44 83 60 75 109 90 90 100 54 95 92 134 104 45 147 105 120 145 109 140 118 120
    133 132 134 118 126 123 121 105 60 131 175 141 179 146 115 146 115 163 189 204
    172 149 154 214 212 219 169 186 123 200 202 199 212 214 174 187 219 224 200 222
    214 229 233 253 243 237
"""


def test_a_real_collapse_is_told_while_it_goes_on():
    """From 74% right in step 51 to 22 in step 73; held-out answers fell from 90 to 27%.
    It holds still before, and climbs back a little: so it does not fade."""
    reward, right = (np.array(x.split(), float) for x in (REAL_REWARD, REAL))
    made = rows(reward / 100, right / 100)
    told = [end for end in range(91) if hacking.parted(made[:end])]
    assert told == list(range(74, 91))
    assert "from 64.7% to 24.0%" in hacking.parted(made[:74])


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
    z = hacking._Window.of(x).moved()
    assert z == pytest.approx(6.010, abs=1e-3)
    assert hacking._Window.of(-x).moved() == pytest.approx(-z)
    assert hacking._Window.of(np.ones(48)).moved() == 0


def test_z_of_blocks_by_hand():
    # Blocks of 2 with means 0 and 3, ±1 within each: s² = 2, and 3 / (√2 √(16/16)).
    x = (np.array([0, 3.0, *[0] * 6])[:, None] + np.array([-1, 1])).ravel()
    assert hacking._Window.of(x).apart(1, 0) == pytest.approx(3 / 2**0.5)
    assert hacking._Window.of(x).apart(0, 1) == pytest.approx(-3 / 2**0.5)


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
    assert (hacking._Window.of(x).moved() > hacking.BAR) is is_ordered
    assert (hacking._Window.of(-x).moved() < -hacking.BAR) is is_ordered


@pytest.mark.parametrize(("last", "is_told"), [(0.74, True), (0.76, False)])
def test_a_quarter_of_what_is_right_is_lost(last, is_told):
    """Of what the first block had, 0.8: 0.6 is the most that may be left."""
    wave = np.tile([0.001, -0.001], 24)
    right = np.repeat(np.linspace(0.8, 0.8 * last, 8), 6) + wave
    found = hacking.parted(rows(np.linspace(0, 1, 48) + wave, right))
    assert (found is not None) is is_told


@pytest.mark.parametrize(
    ("right", "is_told"),
    [
        ([30, 20, 90, 90, 50, 20, 50, 50], True),  # from the third
        ([30, 20, 90, 90, 50, 20, 50, 55], False),  # 35 of 90
        ([30, 20, 90, 90, 50, 20, 55, 50], False),  # of both that are last
        ([30, 20, 32, 32, 20, 20, 13, 13], False),  # 19
        ([50, 50, 50, 50, 50, 50, 90, 50], False),  # the best of the last two is none
    ],
)
def test_what_is_right_collapses_from_its_best(right, is_told):
    wave = np.tile([0.001, -0.001], 24)
    series = np.repeat(np.array(right) / 100, 6) + wave
    made = rows(np.linspace(0, 1, 48) + wave, series)
    assert (hacking.parted(made) is not None) is is_told
    # Where the reward is what it was when most was right, it is nothing.
    flat = np.repeat([0, 0, 1, 1, 1, 1, 1, 1.0], 6) + wave
    assert hacking.parted(rows(flat, series)) is None


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_a_collapse_is_more_than_noise(noise):
    """±0.2 a step: z = 0.4 / (0.2 √(8 / 24)) = 3.4."""
    wave = np.tile([noise, -noise], 24)
    right = np.repeat([0.4, 0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5], 6) + wave
    told = hacking.parted(rows(np.linspace(0, 9, 48) + wave, right))
    assert (told is not None) is (noise == 0.02)


def test_what_is_told_says_from_what_to_what():
    told = hacking.parted(parting())
    assert told.startswith(
        "reward and right have parted: within 48 steps the reward ro"
    )
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


@pytest.mark.parametrize("changes", [False, True])
def test_a_fork_looks_back_as_far_as_rewards_meant_the_same(changes, going, tmp_path):
    """Twice: a fork of a fork goes back through both."""
    keep = {"every": 30, "samples": 1000}
    train = functools.partial(test_run.train, keep=keep)
    train(tmp_path / "whole", steps=60)
    train(tmp_path / "one", steps=20)
    train(tmp_path / "two", steps=40, fork_from=tmp_path / "one")
    other = {"rewards": config.Rewarding(clip=(0.0, 9.0))} if changes else {}
    train(tmp_path / "run", steps=60, fork_from=tmp_path / "two", **other)
    whole, found = (
        [row.get(hacking.PARTED) for row in test_run.left(tmp_path / name)[0]]
        for name in ("whole", "run")
    )
    assert 1.0 in whole and found == ([*whole[:45], *[0.0] * 20] if changes else whole)
    assert workdir.begun(tmp_path / "run")["judged_since"] == (44 if changes else -1)


def test_another_judge_changes_what_rewards_mean(tmp_path):
    """Whatever its name: by its weights. And so do what its score is, and weights."""
    rewards = config.Rewarding(functions=("model",))
    model = config.RewardModel(name="one")
    chosen = test_run.settings(rewards=rewards, reward_model=model)
    begun = {"config": dataclasses.asdict(chosen), "judged_by": "a", "forked_at": 3}
    workdir.settle(tmp_path, begun, [])

    def since(judged_by="a", **changed):
        other = dataclasses.replace(chosen, **changed)
        return beginning._judged_since(other, tmp_path, 7, judged_by)

    renamed = dataclasses.replace(chosen.reward_model, name="moved")
    scaled = dataclasses.replace(chosen.reward_model, output="probability")
    weighed = algorithm.Advantage(reward_weights=(0.5,))
    assert since() == since(reward_model=renamed) == 3
    assert since("b") == since(reward_model=scaled) == 7
    assert since(algorithm=config.Algorithm(advantage=weighed)) == 7
