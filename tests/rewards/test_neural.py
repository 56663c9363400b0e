"""A reward model in use: another tokenizer, another template, the policy's texts."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest

from grpo_jax import (
    asking,
    checkpoint,
    config,
    judging,
    learner,
    programs,
    runs,
    sharding,
)
from grpo_jax import labels as labels_
from grpo_jax.data.problem import Problem
from grpo_jax.models.settings import Model, Tiny
from grpo_jax.rewards import neural, stepwise
from grpo_jax.rewards.grading import Graded
from grpo_jax.rewards.stepwise import Stepped
from grpo_jax.section import Refused
from grpo_jax.text import reading, steps
from grpo_jax.text.tokenizer import Bytes
from tests import runs as runs_
from tests import test_judging, test_runs
from tests.test_stages import Digits

SMALL = Tiny(layers=1, width=16, heads=2, kv_heads=1, ffw=16, max_length=160)


def run_of(labels, data=None, **options):
    return config.Config(
        stages=("reward",),
        model=Model(tiny=SMALL),
        data=data or config.Data(),
        reward=config.Reward(labels=labels, **options),
    )


def written(folder, settings, seed=1):
    """The folder of a run that made a reward model of this kind, in one step."""
    test_runs.workdir.settle(folder, {"config": dataclasses.asdict(settings)}, ())
    kept = checkpoint.Checkpoints(folder / "checkpoints", settings.keep, print)
    found = runs.find(settings.model, "either").base
    candidates = labels_.candidates(settings.reward, found.tokenizer)
    run = judging.make(found.spec, settings, candidates, None)
    params = programs.init(found.spec, "float32", None)(jax.random.key(seed))
    state = learner.begin(run, params, jax.random.key(2))
    kept.save(1, state, {"stage": "reward"}, 0.5)
    kept.close()
    return state.policy.params


def mesh():
    return sharding.mesh(1, 1, 1, jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    data = config.Data(wrapping="paper", instruction="hashes")
    return folder, written(folder, run_of("correct", data))


def test_a_run_is_loaded_with_its_head_and_reads_as_it_was_taught(whole):
    folder, params = whole
    model = neural.load(config.RewardModel(name=str(folder)), mesh(), print)
    same = lambda a, b: np.array_equal(a, b)  # noqa: E731
    assert jax.tree.all(jax.tree.map(same, model.judge.params, params))
    assert model.reader[1:] == ("hashes", "paper", False, None)
    texts = [["#### 4", None, "4"], ["5", "", "#### 5"]]
    found, faults = neural.outcomes(model, ["2+2=", "2+3="], texts)
    assert faults == [] and math.isnan(found[0, 1])
    row = model.reader.row(["5"])
    (((alone,),),) = judging.score(
        model.judge, [(model.reader.question("2+3="), [row])], 1
    )
    np.testing.assert_allclose(found[1, 0], alone, 1e-5)
    asked = bytes(model.reader.question("2+3="))
    assert asked.startswith(b"User: 2+3=\nReason") and asked.endswith(b"Assistant:")


def test_a_probability_is_the_sigmoid_of_the_logit(whole):
    logit, probability = (
        neural.outcomes(
            neural.load(
                config.RewardModel(name=str(whole[0]), output=output), mesh(), print
            ),
            ["2+2="],
            [["4", "5"]],
        )[0]
        for output in ("logit", "probability")
    )
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logit)), 1e-6)


def of_steps(spec, params, tokenizer, **chosen):
    """A model of steps that reads with this tokenizer."""
    judge = test_judging.judge()._replace(spec=spec, params=params)
    reader = reading.Reader(tokenizer, "none", "raw", True, None)
    return neural.Model(config.RewardModel(name="x", **chosen), reader, judge, "")


class Lines(Digits):
    """Another vocabulary than bytes: digits, 12 as one token, and the newline."""

    size, texts = 15, (*"0123456789+=", "12", "\n", "")
    stop_ids = (14,)


def test_another_tokenizer_reads_the_policys_text_and_finds_its_steps():
    """12 is one token of the model's, and two of the policy's."""
    params = test_judging.judge().params
    model = of_steps(test_judging.SPEC, params, Lines())
    sampled = [*b"12=12\n3"], [*b"2\n\n12\n"]  # as the policy's tokens are
    texts = [[Bytes().decode(ids) for ids in sampled]]
    cut = [[steps.lines(text) for text in group] for group in texts]
    found, _ = neural.steps(model, ["1+2="], cut)
    assert found.shape == (1, 2, 2)
    ids = [1, 10, 2, 11], [12, 11, 12, 13, 3, 13], [2, 13, 12, 13]
    question, *rows = map(list, ids)
    for row, ends, scores in zip(rows, ([3, 5], [1, 3]), found[0], strict=True):
        given = [(question, [reading.Row(row, ends)])]
        ((expected,),) = judging.score(model.judge, given, 1)
        np.testing.assert_allclose(scores, expected, 1e-5)
    last, _ = neural.outcomes(model, ["1+2="], texts)
    np.testing.assert_array_equal(last, found[..., -1])
    least = of_steps(test_judging.SPEC, params, Lines(), of_steps="least")
    lowest, _ = neural.outcomes(least, ["1+2="], texts)
    np.testing.assert_array_equal(lowest, found.min(-1))


def test_what_is_too_long_stays_unscored_and_is_told():
    model = of_steps(test_judging.SPEC, test_judging.judge().params, Lines())
    found, faults = neural.outcomes(model, ["1="], [["2" * 50, "3", None]])
    assert np.isnan(found).tolist() == [[True, False, True]]
    (told,) = faults
    assert told == (
        "model: a completion has 54 tokens with its question; the reward model was "
        "made for 48"
    )
    none, _ = neural.outcomes(model, ["1=" * 40], [["2", "3"]])
    assert np.isnan(none).all()


def by_step(*groups):
    """Questions, as they are asked, and the steps of what was said."""
    problems = [Problem(f"{i}=", "x") for i in range(len(groups))]
    cut = [
        [x and Stepped(x, np.arange(len(x), dtype=np.int32), np.zeros(0)) for x in g]
        for g in groups
    ]
    return asking.Asked(problems, [], [], [], None, stepwise.Graded(cut, ["one"]))


def test_the_policys_own_steps_are_what_the_model_rewards():
    """Each in its place; of what is too long none, however many steps it has."""
    model = of_steps(test_judging.SPEC, test_judging.judge().params, Lines())
    asked = by_step([["12", "3"], None], [["2" * 50, "1", "2"], ["3"]])
    found = neural.stepped(model, asked, lambda: None).stepped
    (one, none), (long, short) = found.groups
    expected, _ = neural.steps(model, ["0=", "1="], [[["12", "3"]], [["3"]]])
    np.testing.assert_allclose(one.reward, expected[0, 0], 1e-5)
    assert none is None and one.texts == ["12", "3"] and one.ends.tolist() == [0, 1]
    np.testing.assert_array_equal(long.reward, [np.nan] * 3)
    np.testing.assert_allclose(short.reward, expected[1, 0, :1], 1e-5)
    before, told = found.faults
    assert before == "one" and told.startswith("model: a completion has 58 tokens")
    assert asked.stepped.faults == ["one"]
    sigma = of_steps(
        test_judging.SPEC, model.judge.params, Lines(), output="probability"
    )
    ((other, _), _) = neural.stepped(sigma, asked, lambda: None).stepped.groups
    np.testing.assert_allclose(other.reward, 1 / (1 + np.exp(-one.reward)), 1e-5)


def test_a_model_of_whole_completions_rewards_no_steps(whole):
    chosen = config.RewardModel(name=str(whole[0]))
    with pytest.raises(Refused, match=r"name is .* scores whole completions, and .*st"):
        neural.load(chosen, mesh(), print, rewards_steps=True)


def test_what_the_model_says_stands_in_its_own_column(whole):
    model = neural.load(config.RewardModel(name=str(whole[0])), mesh(), print)
    problems = [Problem("2+2=", "4"), Problem("2+3=", "5")]
    parts = np.arange(12.0).reshape(2, 2, 3)
    texts = [["4", "5"], ["4", "5"]]
    asked = asking.Asked(problems, [], [], texts, Graded(parts, ["one"]))
    names = ("last", "model", "format")
    found = neural.judged(model, asked, names, lambda: None)
    expected, _ = neural.outcomes(model, ["2+2=", "2+3="], texts)
    np.testing.assert_array_equal(found.graded.parts[..., 1], expected)
    np.testing.assert_array_equal(found.graded.parts[..., ::2], parts[..., ::2])
    assert found.graded.faults == ["one"] and asked.graded.parts[0, 0, 1] == 1.0


def test_names_of_the_wrong_kind_are_refused(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(Refused, match="run of a reward model, which answers nothing"):
        runs.find(Model(name=str(folder)))
    test_runs.written(tmp_path, test_runs.PLAIN, [None])
    for name, message in (
        (tmp_path, r"run of a policy, with stages online\. Name it in model\.name"),
        ("smollm2", "reward_model.name is smollm2, where no run is"),
    ):
        with pytest.raises(Refused, match=message):
            neural.load(config.RewardModel(name=str(name)), mesh(), print)
    least = config.RewardModel(name=str(folder), of_steps="least")
    with pytest.raises(
        Refused, match=r"of_steps is 'least'.* scores whole completions"
    ):
        neural.load(least, mesh(), print)


def test_a_reward_model_goes_on_from_a_policy_and_from_another(whole, tmp_path):
    folder, _ = whole
    assert runs.find(Model(name=str(folder)), "either").is_reward_model
    test_runs.written(tmp_path, test_runs.PLAIN, [None])
    assert not runs.find(Model(name=str(tmp_path)), "either").is_reward_model


def test_weights_are_told_apart(whole, tmp_path):
    folder, _ = whole
    settings = run_of("correct", head="tokens")
    params = written(tmp_path, settings)
    assert "head" not in params
    one, other = (
        neural.load(config.RewardModel(name=str(x)), mesh(), print)
        for x in (folder, tmp_path)
    )
    assert one.identity != other.identity
    assert other.judge.candidates == (ord("+"), ord("-"))


def asking_settings(folder, **changed):
    few = {"rewards.functions": ("last", "model"), "reward_model.name": str(folder)}
    return runs_.build(config.Config, runs_.SMALL | few | changed)


def test_an_online_run_is_rewarded_by_the_model(whole, tmp_path):
    """In its rows, in its tables, and in what is learned; under a guard of transfers."""
    chosen = asking_settings(whole[0], **{"keep.samples": 1})
    with runs_.stubbed() as calls:
        runs_.train(chosen, tmp_path)
    model = neural.load(chosen.reward_model, mesh(), print)
    tables = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((tmp_path / "samples").glob("*"))
    ]
    learned = [call for call in calls if call[0] == "learn"]
    for table, call in zip(tables, learned, strict=True):
        said = [row["rewards"]["model"] for row in table]
        expected, _ = neural.outcomes(
            model,
            [row["question"] for row in table],
            [[r["completion"]] for r in table],
        )
        np.testing.assert_allclose(said, expected[:, 0], 1e-5)
        np.testing.assert_allclose(np.array(call[2])[..., 1].flatten(), said, 1e-5)
    last = runs_.rows(tmp_path)[-1]
    np.testing.assert_allclose(last["reward/model"], np.mean(said), 1e-5)
    assert 0 <= last["reward/last"] <= 1


def test_what_is_right_is_told_of_the_samples_that_the_model_rewards(whole, tmp_path):
    """Every step; it is no reward, and nothing is learned of it."""
    chosen = asking_settings(whole[0], **{"rewards.functions": ("model",)})
    chosen = dataclasses.replace(chosen, keep=config.Keep(samples=1))
    with runs_.stubbed() as calls:
        runs_.train(chosen, tmp_path)
    _, *rows = runs_.rows(tmp_path)
    tables = [
        list(test_runs.workdir.rows(path))
        for path in sorted((tmp_path / "samples").glob("*"))
    ]
    assert len(rows) == len(tables) == 2
    for row, table in zip(rows, tables, strict=True):
        right = [one["completion"].strip() == one["answer"] for one in table]
        assert [one["right"] for one in table] == right
        assert row["samples/right"] == np.mean(right) and 0 < sum(right) < len(right)
        assert row["samples/parted"] == 0
        assert all(one["reward"] == one["rewards"]["model"] for one in table)
        assert not any(name.startswith("reward/l") for name in row)
    learned = [call for call in calls if call[0] == "learn"]
    assert all(np.shape(call[2]) == (4, 4, 1) for call in learned)


def test_a_run_is_not_gone_on_with_by_another_judge(whole, tmp_path):
    judge = tmp_path / "judge"
    shutil.copytree(whole[0], judge)
    chosen = asking_settings(judge)
    with runs_.stubbed():
        runs_.train(chosen, tmp_path / "run")
        shutil.rmtree(judge)
        written(judge, run_of("correct", config.Data(wrapping="chat")), seed=7)
        more = asking_settings(judge, **{"training.steps": 3})
        with pytest.raises(Refused, match=r"judged_by was '\w+', is '\w+'"):
            runs_.train(more, tmp_path / "run")
