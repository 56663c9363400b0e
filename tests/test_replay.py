"""What is learned again between rounds: by hand, and in whatever order."""

import pytest

from grpo_jax import config, replay


def row(round_, question, **said):
    return {
        "round": round_,
        "question": question,
        "completions": list(said),
        "is_correct": [x == 1 for x in said.values()],
    }


def rounds(replay_=0.5, of="mix", **changed):
    given = {"rounds": 2, "replay": replay_, "replay_of": of} | changed
    return config.Iterative(**given)


def old(count):
    return [row(0, f"q{i}", a=i % 2) for i in range(count)]


NEW = [row(1, "q", a=1, b=0), row(1, "p", a=0, b=0)]


@pytest.mark.parametrize(
    ("chosen", "history", "count"),
    [
        # 4 are new: of 5 a fifth is 1, of 8 a half is 4, and there are no more than 3.
        (rounds(0.2), 10, 1),
        (rounds(0.5), 10, 4),
        (rounds(0.5), 3, 3),
        (rounds(0.0), 10, 0),
        # A tenth of 10 is 1, a half 5, whatever is new.
        (rounds(0.1, "history"), 10, 1),
        (rounds(0.5, "history"), 10, 5),
        (rounds(0.1, "history"), 0, 0),
    ],
)
def test_so_much_of_what_is_old_is_learned_again(chosen, history, count):
    found = replay.mix(chosen, 0, [*old(history), *NEW], 1)
    assert found[:4] == [
        {"question": "q", "completion": "a", "is_correct": True},
        {"question": "q", "completion": "b", "is_correct": False},
        {"question": "p", "completion": "a", "is_correct": False},
        {"question": "p", "completion": "b", "is_correct": False},
    ]
    again = [(one["question"], one["is_correct"]) for one in found[4:]]
    assert len(again) == len(set(again)) == count
    assert set(again) <= {(f"q{i}", i % 2 == 1) for i in range(history)}


def test_what_is_said_again_is_new_and_once_in_the_mix():
    before = [row(0, "q", a=1), row(0, "r", c=1), row(1, "r", c=1)]
    found = replay.mix(rounds(0.9, "history"), 0, [*before, row(2, "q", a=1)], 2)
    assert [(one["question"], one["completion"]) for one in found] == [
        ("q", "a"),
        ("r", "c"),
    ]


def test_later_rounds_are_not_looked_at():
    rows = [*old(10), *NEW]
    assert replay.mix(rounds(), 0, [*rows, row(2, "z", a=1)], 1) == replay.mix(
        rounds(), 0, rows, 1
    )
    assert replay.mix(rounds(), 0, rows, 0) == [
        {"question": f"q{i}", "completion": "a", "is_correct": i % 2 == 1}
        for i in range(10)
    ]


def test_what_is_old_is_drawn_by_seed_and_round_whatever_its_order():
    def again(seed, round_, rows):
        found = replay.mix(rounds(), seed, [*rows, row(round_, "q", a=1, b=0)], round_)
        return [one["question"] for one in found[2:]]

    rows = old(50)
    assert again(0, 1, rows) == again(0, 1, rows[::-1])
    draws = {tuple(again(seed, k, rows)) for seed in (0, 1) for k in (1, 2)}
    assert len(draws) == 4


def test_every_old_answer_is_as_likely_as_another():
    """Of 8, 2 for each of 400 seeds: 100 times each, give or take 3.5 deviations."""
    counts = dict.fromkeys(range(8), 0)
    for seed in range(400):
        found = replay.mix(rounds(0.25, "history"), seed, [*old(8), *NEW], 1)
        for one in found[4:]:
            counts[int(one["question"][1:])] += 1
    assert sum(counts.values()) == 800
    assert all(
        abs(count - 100) < 3.5 * (400 * 0.25 * 0.75) ** 0.5 for count in counts.values()
    )
