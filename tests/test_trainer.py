"""A step of online learning: what is asked, what is kept, what the next one knows."""

import functools
import itertools
import json
import re

import jax
import numpy as np
import pytest

from grpo_jax import (
    config,
    crossing,
    learner,
    prng,
    sharding,
    stage,
    task,
    train_step,
    trainer,
)
from grpo_jax.losses import statistics
from grpo_jax.rewards import stepwise
from grpo_jax.rewards.grading import Grader
from grpo_jax.section import Refused
from grpo_jax.text.tokenizer import Bytes
from tests import runs

V = "algorithm.advantage."
NOTHING = learner.State(train_step.State({}, ()))

NEYMAN = {
    "groups__allocation": "neyman",
    "algorithm__advantage__estimator": "leave_one_out",
    "algorithm__advantage__scale_rewards": "none",
}


def online(own=(), **changed):
    """The stage on a stubbed model, its first state, and the list of calls."""
    values = {name.replace("__", "."): x for name, x in changed.items()}
    values = {"training.steps": 9} | values
    chosen = runs.build(config.Config, runs.SMALL | values)
    model = runs.model(chosen.model)
    known = task.make(chosen, model.spec, model.tokenizer)
    grader = Grader(chosen.rewards, known.checker, dict(own))
    mesh = sharding.mesh(1, 4, 1)
    run = stage.Run(chosen, model.spec, known, grader, mesh, prng.root(0))
    doing = trainer.Online(run, 0)
    host = {"beta": chosen.algorithm.beta, "questions": 0, "seen": {}}
    return doing, stage.State(NOTHING, host)


def drawn(doing, host, of_sample=runs.says, **options):
    with runs.stubbed(of_sample, **options) as calls:
        found = doing.draw({}, host, 0, lambda: None)
    return found, calls


def numbers(found):
    return [group.question.number for group in found.groups]


def right(*which):
    """Some samples of these questions are right, and all others are wrong."""

    def says(question, number, sample):
        return runs.says(question, 1 if number in which else 0, sample)

    return says


def test_groups_are_drawn_until_enough_are_mixed():
    doing, state = online(groups__mixed=True)
    # Four at a time; 0, 3, 6 and 9 are all wrong: two are missing after the first.
    found, calls = drawn(doing, state.host)
    assert numbers(found) == [1, 2, 4, 5]
    assert all(group.is_trained for group in found.groups)
    assert (found.rounds, found.questions, found.samples) == (2, 8, 32)
    asked = [[number for number, *_ in call[-1]] for call in calls]
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_first_questions_are_kept_whatever_order_they_are_done_in():
    doing, state = online(groups__mixed=True)
    one, _ = drawn(doing, state.host)
    other, _ = drawn(doing, state.host, backwards=True)
    for a, b in zip(one.groups, other.groups, strict=True):
        assert a.question == b.question and a.texts == b.texts
        np.testing.assert_array_equal(a.parts, b.parts)


def test_after_the_stated_rounds_others_stand_in_and_are_not_trained_on():
    doing, state = online(groups__mixed=True, groups__rounds=3)
    found, _ = drawn(doing, state.host, right(2, 9))
    assert numbers(found) == [2, 9, 0, 1]
    assert [group.is_trained for group in found.groups] == [True, True, False, False]
    assert (found.rounds, found.questions, found.samples) == (3, 12, 48)
    found, _ = drawn(doing, state.host, right())
    assert numbers(found) == [0, 1, 2, 3]
    assert not any(group.is_trained for group in found.groups)


def test_without_the_setting_groups_are_taken_as_they_come():
    doing, state = online()
    found, _ = drawn(doing, state.host, right())
    assert numbers(found) == [0, 1, 2, 3] and found.rounds == 1
    assert all(group.is_trained for group in found.groups)


def test_a_penalty_for_length_mixes_no_group():
    """Samples 2 are cut at max_new, and have one; their rewards are equal without it."""
    doing, state = online(groups__mixed=True, groups__rounds=1, rewards__overlong=4)
    found, _ = drawn(doing, state.host, right(1))
    assert [group.is_trained for group in found.groups] == [True, False, False, False]


def test_the_next_step_goes_on_behind_all_that_was_spent():
    doing, state = online(groups__mixed=True)
    found, _ = drawn(doing, state.host)
    host = doing.after(state.host, found, {})
    assert host["questions"] == 8
    found, calls = drawn(doing, host)
    assert [number for number, *_ in calls[0][-1]] == [8, 9, 10, 11]
    assert numbers(found) == [8, 10, 11, 13]


def test_budgets_add_up_and_follow_what_was_seen():
    few = {"algorithm__loss_mean": "per_question", "algorithm__group_size": 12}
    few |= NEYMAN | {"groups__mean": 6, "groups__least": 3}
    doing, state = online(data__count=4, data__held_out=0.0, **few)
    host = state.host
    for _ in range(3):
        found, _ = drawn(doing, host, right(0, 4, 8))
        host = json.loads(json.dumps(doing.after(host, found, {})))
        count = [(group.answers.length > 0).sum() for group in found.groups]
        assert sum(count) == found.samples == 24
        assert min(count) >= 3 and max(count) <= 12
    row = {doing.row(i): i for i in range(4)}
    assert set(host["seen"]) == set(row)
    budgets = doing.budgets(host["seen"], range(12, 16))
    assert set(np.unique(budgets)) == {0, doing.settings.sampling.max_new}
    assert (np.sort(budgets, 1)[:, ::-1] == budgets).all()  # the first ones are drawn
    rate = [np.divide(*host["seen"][doing.row(i)][::-1]) for i in range(12, 16)]
    most = np.argmin(np.abs(np.array(rate) - 0.5))
    count = (budgets > 0).sum(1)
    assert count[most] == count.max() > count.min()


def test_equal_budgets_are_all_of_a_group():
    doing, _ = online()
    budgets = doing.budgets({}, range(4))
    np.testing.assert_array_equal(budgets, np.full((4, 4), 8))


REMAX = {"algorithm__advantage__estimator": "given"}
REMAX |= {"algorithm__advantage__scale_rewards": "none"}


def test_remax_compares_with_the_reward_of_the_likeliest_answer():
    doing, state = online(**REMAX)
    found, calls = drawn(doing, state.host)
    # Sample 0 of question n is right for even n, unless n is a multiple of three.
    np.testing.assert_array_equal(found.baseline, [0, 0, 1, 0])
    (_, warm, G, *_), (_, cold, one, *_) = calls
    assert (warm, G, cold, one) == (0.7, 4, 0.0, 1)
    doing, state = online()
    assert drawn(doing, state.host)[0].baseline is None


def test_remax_counts_the_penalty_of_the_likeliest_answer_too():
    def cut(question, number, sample):
        text, _ = runs.says(question, number, sample)
        return text, False  # at max_new: −1

    weights = {"algorithm__advantage__reward_weights": (1.0, 0.25)}
    doing, state = online(rewards__overlong=4, **REMAX, **weights)
    found, _ = drawn(doing, state.host, cut)
    np.testing.assert_array_equal(found.baseline, np.array([0, 0, 1, 0]) - 0.25)


def test_too_many_faults_stop_the_run_and_few_are_counted():
    def odd(question, completion, answer):
        return None if completion.endswith(" ") else 1 / (len(completion) - 1)

    chosen = {"rewards__functions": ("odd",), "own": {"odd": odd}}
    doing, state = online(**chosen, rewards__most_faults=1.0)
    found, _ = drawn(doing, state.host)
    assert (
        0
        < found.faults
        == sum(len(text) == 1 for group in found.groups for text in group.texts)
    )
    doing, state = online(**chosen, rewards__most_faults=0.0)
    with pytest.raises(Refused, match=r"of 16 rewards failed; .*odd raised ZeroDiv"):
        drawn(doing, state.host)


def step(doing, state, number):
    """As the driver takes it; what was measured, and the calls."""
    with runs.stubbed() as calls, jax.transfer_guard("disallow"):
        meanwhile = itertools.count()
        state, found = doing.step(state, number, functools.partial(next, meanwhile))
    assert next(meanwhile) > 0
    return state, found, calls


@pytest.mark.parametrize(
    "changed",
    [
        {"algorithm__kl__target": 0.1, "algorithm__beta": 0.5},
        NEYMAN | {"groups__mean": 3, "algorithm__loss_mean": "per_question"},
        {"groups__mixed": True},
        {},
    ],
    ids=str,
)
def test_what_a_step_hands_on_is_json_and_leads_to_the_same_step(changed):
    doing, state = online(**changed)
    state, _, _ = step(doing, state, 0)
    written = json.dumps(state.host)
    again = state._replace(host=json.loads(written))
    assert again.host == state.host
    (one, told, calls), (other, _, others) = (step(doing, x, 1) for x in (state, again))
    assert one.host == other.host and calls == others
    assert json.dumps(state.host) == written  # still: it may yet be saved
    assert told.numbers["questions"] == one.host["questions"]


def test_beta_follows_the_kl_that_was_measured():
    kl = {"algorithm__kl__target": 0.1, "algorithm__kl__horizon": 160.0}
    doing, state = online(algorithm__beta=0.5, **kl)
    # The stub's KL is 0.5: an error of 4, cut at 0.2, of 16 samples of 160.
    state, found, calls = step(doing, state, 0)
    assert calls[1][-1] == found.numbers["beta"] == 0.5
    assert state.host["beta"] == pytest.approx(0.51)


def test_a_table_is_there_when_it_is_asked_for():
    doing, state = online()
    _, found, _ = step(doing, state, 0)
    rows = found.table()
    assert [(row["number"], row["sample"]) for row in rows] == [
        (number, sample) for number in range(4) for sample in range(4)
    ]
    for row in rows:
        text, ended = runs.says(row["question"], row["number"], row["sample"])
        assert row["completion"].strip() == text and row["ended"] == ended
        assert row["rewards"] == {"last": float(text == row["answer"])}
        assert row["advantage"] == 0.0  # the stub's


def test_a_batch_that_processes_cannot_share_is_refused(monkeypatch):
    doing, _ = online()
    doing._need_equal(4, 2)
    monkeypatch.setattr(crossing, "place", lambda: (1, 3))
    with pytest.raises(Refused, match=r"is 4, which 3 processes .*\. 6 would do"):
        doing._need_equal(4, 1)
    with pytest.raises(Refused, match=r"is 6, which 3 .* 4 minibatches.* 12 would do"):
        doing._need_equal(6, 4)
    assert doing.own(6) == slice(2, 4)


def test_a_column_that_no_data_has_is_refused_before_anything_runs():
    with pytest.raises(Refused, match="group_by is 'level'; there are 'question'"):
        online(algorithm__advantage__group_by="level")


def test_a_step_that_taught_nothing_leaves_beta_as_it_is():
    doing, state = online(algorithm__beta=0.5, algorithm__kl__target=0.1)
    nothing = {"kl": statistics.Mean(*crossing.up((np.float32(0), np.float32(0))))}
    found, _ = drawn(doing, state.host)
    assert doing.after(state.host, found, nothing)["beta"] == 0.5


def test_beta_is_the_setting_s_where_nothing_controls_it():
    """Whatever a run that this one was forked from had."""
    doing, state = online(algorithm__beta=0.5)
    host = state.host | {"beta": 0.01}
    _, found, calls = step(doing, state._replace(host=host), 0)
    assert calls[1][-1] == found.numbers["beta"] == 0.5


# Process supervision --------------------------------------------------------------------
PROCESS = {"algorithm__advantage__supervision": "process", "rewards__steps": "own"}


def by_line(question, number, sample):
    """Right answers have a line before the answer; every third question has none."""
    text, ended = runs.says(question, number, sample)
    return ("" if number % 3 == 0 else "a\n") + text, ended


def of_steps(question, steps, answer):
    """1 for the right answer in a line of its own, 0 for any other; unknown: "12"."""
    return [None if x == "12" else float(x.strip() == answer) for x in steps]


def process(rule=of_steps, **changed):
    doing, state = online(**PROCESS, **changed)
    grader = stepwise.StepGrader(doing.settings.rewards, {"own": rule}, Bytes())
    run = doing.run._replace(steps=grader)
    return trainer.Online(run, 0), state


def test_steps_are_rewarded_and_outputs_measured():
    doing, state = process()
    with runs.stubbed(by_line) as calls:
        state, found = doing.step(state, 0, lambda: None)
    _, numbers, parts, is_valid, length, _, reward, end, _ = calls[1]
    assert numbers == [0, 1, 2, 3] and np.shape(reward) == np.shape(end) == (4, 4, 16)
    assert np.ravel(is_valid).all()
    table = found.table()
    for row in table:
        at = row["number"], row["sample"]
        steps = row["steps"]
        assert [x["text"] for x in steps] == row["completion"].split("\n")
        given = [x["reward"] for x in steps]
        asked = row["question"], [x["text"] for x in steps], row["answer"]
        assert given == of_steps(*asked)
        given = [np.nan if x is None else x for x in given]
        b, g = at
        np.testing.assert_array_equal(reward[b][g][: len(given)], np.nan_to_num(given))
        ends = [x["end"] for x in steps]
        assert ends == end[b][g][: len(ends)] and ends[-1] == length[b][g] - 1
        # The functions go on to measure: the last word is the answer.
        assert parts[b][g] == [row["rewards"]["last"]]
    count = [len(row["steps"]) for row in table]
    assert found.numbers["samples/steps"] == np.mean(count)
    known = [x["reward"] for row in table for x in row["steps"]]
    known = [x for x in known if x is not None]
    assert found.numbers["steps/reward"] == np.mean(known)
    assert found.numbers["reward/last"] == np.mean(np.ravel(parts))


def test_a_group_is_mixed_where_its_steps_differ():
    """All answers of question 0 are wrong, and of the others some: but of a rule that
    likes no line those differ in nothing, and of one that likes lines all but 0."""
    same = lambda q, steps, a: [0.5 for _ in steps]  # noqa: E731
    doing, state = process(same, groups__mixed=True, groups__rounds=1)
    found, _ = drawn(doing, state.host, by_line)
    assert not any(group.is_trained for group in found.groups)
    lines = lambda q, steps, a: [float(x == "a") for x in steps]  # noqa: E731
    doing, state = process(lines, groups__mixed=True)
    found, _ = drawn(doing, state.host, by_line)
    assert numbers(found) == [1, 2, 4, 5]
    blind = lambda q, steps, a: [None for _ in steps]  # noqa: E731
    given = {"groups__rounds": 1, "rewards__most_unscored": 1.0}
    doing, state = process(blind, groups__mixed=True, **given)
    found, _ = drawn(doing, state.host, by_line)
    assert not any(group.is_trained for group in found.groups)


def test_what_was_cut_off_mixes_no_group_where_it_is_dropped():
    """Samples 2 are cut; of a rule that likes blanks these alone differ."""
    cut = lambda q, steps, a: [float(x.endswith(" ")) for x in steps]  # noqa: E731
    for truncated, count in (("kept", 4), ("dropped", 0)):
        chosen = {"groups__mixed": True, "groups__rounds": 1}
        doing, state = process(cut, rewards__truncated=truncated, **chosen)
        found, _ = drawn(doing, state.host, by_line)
        assert sum(group.is_trained for group in found.groups) == count


def test_faults_of_the_rule_for_steps_are_counted_with_the_others():
    def odd(question, steps, answer):
        return [1 / (len(steps) - 1)] * len(steps)  # questions 0 and 3 have one

    doing, state = process(odd, rewards__most_faults=0.25)
    found, _ = drawn(doing, state.host, by_line)
    assert found.faults == 8
    doing, state = process(odd, rewards__most_faults=0.2)
    with pytest.raises(Refused, match=r"8 of 32 rewards failed; .*own raised Zero"):
        drawn(doing, state.host, by_line)


def test_a_run_without_a_rule_for_steps_is_refused_before_anything_runs(tmp_path):
    chosen = {V + "supervision": "process"}
    chosen = runs.build(config.Config, runs.SMALL | chosen)
    with pytest.raises(
        Refused, match=r"rewards.steps is None; .* named chain, model\."
    ):
        runs.train(chosen, tmp_path / "run")


@pytest.mark.parametrize(
    ("weights", "overlong", "names"),
    [((1.0, 2.0), 0, "are last. Give"), ((1.0,), 4, "are last, overlong. Give")],
)
def test_weights_of_other_rewards_are_refused(weights, overlong, names):
    with pytest.raises(Refused, match=re.escape(names)):
        online(algorithm__advantage__reward_weights=weights, rewards__overlong=overlong)


def partly(question, completion, answer):
    """Does not apply to questions of an even sum; cannot tell where it was cut."""
    if int(answer) % 2 == 0 or completion.endswith(" "):
        return None
    return 3.0


SEVERAL = {"rewards__functions": ("last", "partly"), "own": {"partly": partly}}
SEVERAL |= {"rewards__overlong": 8, "rewards__repetition": 1, "rewards__cosine": 8}
SEVERAL |= {"rewards__clip": (0.0, 2.0)}


def test_several_rewards_are_composed_logged_and_shown():
    weights = (1.0, 0.5, 0.1, 0.2, 0.3)
    doing, state = online(**SEVERAL, algorithm__advantage__reward_weights=weights)
    state, found, calls = step(doing, state, 0)
    parts = np.array(calls[1][2])  # NaN as 0
    rows = found.table()
    names = ["last", "partly", "overlong", "repetition", "cosine"]
    assert all(list(row["rewards"]) == names for row in rows)
    for row, given in zip(rows, parts.reshape(-1, 5), strict=True):
        said = [0.0 if x is None else x for x in row["rewards"].values()]
        np.testing.assert_allclose(np.clip(said[:2], 0, 2), given[:2], 1e-6)
        np.testing.assert_allclose(said[2:], given[2:], 1e-6)
        odd = int(row["answer"]) % 2
        assert row["rewards"]["partly"] == (3.0 if odd and row["ended"] else None)
    for j, name in enumerate(names):
        known = [x for row in rows if (x := row["rewards"][names[j]]) is not None]
        np.testing.assert_allclose(found.numbers[f"reward/{name}"], np.mean(known))
    cut = [not row["ended"] for row in rows]
    even = [int(row["answer"]) % 2 == 0 for row in rows]
    assert 0 < sum(even) < len(rows)  # or this would be no test
    assert found.numbers["unscored/last"] == 0
    assert found.numbers["unscored/partly"] == np.mean(np.logical_or(cut, even))
    # What does not apply to a question is left out; what one sample lacks is not.
    lacking = np.logical_and(cut, np.logical_not(even))
    assert found.numbers["samples/unscored"] == np.mean(lacking)
    assert found.numbers["samples/clipped"] == np.mean(~np.logical_or(cut, even))


def test_too_many_samples_without_a_reward_stop_the_run():
    blank = {"rewards__functions": ("blank",), "own": {"blank": lambda *texts: None}}
    doing, state = online(**blank)
    with pytest.raises(Refused, match="16 of 16 samples could not be scored"):
        drawn(doing, state.host)
    doing, state = online(**blank, rewards__most_unscored=1.0)
    found, _ = drawn(doing, state.host)
    assert found.unscored == found.samples == 16


def test_remax_learns_nothing_where_the_likeliest_answer_has_no_reward():
    """It would be compared with nothing. A call for it that fails is counted."""

    def odd(question, completion, answer):
        if completion == answer:
            raise ValueError
        return 0.5

    own = {"rewards__functions": ("odd",), "own": {"odd": odd}}
    doing, state = online(**own, **REMAX, rewards__most_faults=1.0)
    found, _ = drawn(doing, state.host)
    right = [g.texts[0] == g.problem.answer for g in found.groups]
    assert [not group.is_trained for group in found.groups] == right
    assert 0 < sum(right) < 4
    of_samples = sum(t == g.problem.answer for g in found.groups for t in g.texts)
    assert found.faults == of_samples + sum(right)


def test_two_rewards_of_one_name_are_refused():
    own = {"rewards__functions": ("last", "cosine"), "rewards__cosine": 4}
    with pytest.raises(Refused, match=r"are last, cosine, cosine: two of one name"):
        online(**own, own={"cosine": lambda *texts: 1.0})
