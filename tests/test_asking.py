"""Answers that are begun: read with their question, and gone on with."""

import jax
import numpy as np
import pytest

from grpo_jax import asking, config, pool, prng, programs, rollout, task
from grpo_jax.data.problem import Problem
from grpo_jax.rewards.grading import Grader
from grpo_jax.sampling.settings import Sampling
from grpo_jax.section import Refused
from tests import runs

SETTINGS = runs.build(config.Config, runs.SMALL)
PROBLEMS = [Problem("3+4=", "7"), Problem("1+1=", "2")]


@pytest.fixture(scope="module")
def model():
    found = runs.model(SETTINGS.model)
    return found._replace(params=programs.publish(found.params, "float32"))


def asker(model, group_size=1, **sampling):
    chosen = Sampling(**{"temperature": 0.0, "max_new": 12} | sampling)
    text = model.tokenizer
    known = text.stop_ids, text.size
    sampler = pool.Sampler(model.spec, chosen, group_size, *known)
    of_data = task.Task(PROBLEMS, [], [], config.Data(), text)
    return asking.Asker(of_data, sampler, Grader(config.Rewarding(), "last", {}))


def ask(model, chosen, **more):
    key = prng.step_key(prng.root(0), prng.Stream.LABEL, 0)
    return asking.ask(chosen, model.params, PROBLEMS, [5, 9], key, **more)


def test_what_is_begun_is_gone_on_with_as_if_it_had_been_drawn(model):
    whole = ask(model, asker(model))
    begun = [
        group.tokens[0, :n].tolist()
        for group, n in zip(whole.groups, (3, 7), strict=True)
    ]
    budgets = [[9, 9], [5, 5]]
    rest = ask(model, asker(model, 2), begun=begun, budgets=budgets)
    for i, n in enumerate((3, 7)):
        for sample in range(2):
            found = rest.groups[i].tokens[sample, : 12 - n]
            np.testing.assert_array_equal(found, whole.groups[i].tokens[0, n:])
            assert rest.texts[i][sample] == whole.texts[i][0]


def test_what_is_graded_is_the_whole_answer(model, monkeypatch):
    """Of which the model says nothing but the end."""

    def answers(sampler, params, questions, key, watch, meanwhile):
        for question in questions:
            says = runs.answers(
                question, lambda *row: ("", True), columns=12, group_size=2
            )
            yield says

    monkeypatch.setattr(rollout, "answers", answers)
    found = ask(model, asker(model, 2), begun=[list(b"= 7"), list(b"= 3")])
    assert found.texts == [["= 7", "= 7"], ["= 3", "= 3"]]
    assert found.graded.parts[:, :, 0].tolist() == [[1, 1], [0, 0]]


def test_a_string_to_stop_at_may_begin_in_what_is_begun(model, monkeypatch):
    kept = []

    def answers(sampler, params, questions, key, watch, meanwhile):
        kept.append(watch(5, 0, np.array([*b"END"])))
        kept.append(watch(9, 0, np.array([*b"nothing"])))
        for question in questions:
            yield runs.answers(
                question, lambda *row: ("", True), columns=12, group_size=1
            )

    monkeypatch.setattr(rollout, "answers", answers)
    chosen = asker(model, stop_strings=("THE E",))
    ask(model, chosen, begun=[list(b"so THE "), list(b"so THE ")])
    assert kept == [1, None]


def test_a_budget_and_not_the_most_must_fit_into_the_model(model):
    """Of 64 positions: a question of 60, and 4 more, where there are 12 at most."""
    question = pool.Question(0, [1] * 60, [4, 0])
    chosen = asker(model, 2).sampler
    key = jax.random.key(0)
    (found,) = rollout.answers(chosen, model.params, [question], key)
    assert found.length.tolist() == [4, 0]
    with pytest.raises(
        Refused, match="60 tokens; with its budget, 5, that passes the 64"
    ):
        list(
            rollout.answers(
                chosen, model.params, [question._replace(budgets=[5, 0])], key
            )
        )
