"""Process supervision through the trainer: real steps of a tiny model.

With one step an output it is outcome supervision: the same advantages, the same
parameters. And a run of it leaves what any run leaves, and compiles no more.
"""

import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax import (
    config,
    crossing,
    learner,
    prng,
    programs,
    sharding,
    stage,
    task,
    trainer,
    workdir,
)
from grpo_jax.models.settings import Numerics
from grpo_jax.rewards import stepwise
from grpo_jax.rewards.grading import Grader
from grpo_jax.text import steps
from tests import runs

G, UPDATES = 4, 3
PROCESS = {"algorithm.advantage.supervision": "process", "rewards.steps": "lucky"}
SMALL = runs.SMALL | {
    "training.steps": UPDATES,
    "sampling.temperature": 1.0,
    "optimizer.learning_rate": 0.01,
    "rewards.functions": ("lucky",),
}


def lucky(question, completion, answer):
    """Something that a model can find by chance."""
    return float(sum(completion.strip().encode()) % 3)


def lucky_steps(question, steps, answer):
    return [lucky(question, step, answer) for step in steps]


# With one step an output ----------------------------------------------------------------
def trained(changed, dtype="float64", fed=None):
    """Parameters after three updates, and the advantages of each; or by those given."""
    chosen = runs.build(config.Config, SMALL | changed)
    exact = dataclasses.replace(chosen.model, numerics=Numerics(compute=dtype))
    chosen = dataclasses.replace(chosen, model=exact)
    model, advantages = runs.model(runs.build(config.Config, SMALL).model), []
    known = task.make(chosen, model.spec, model.tokenizer)
    grader = Grader(chosen.rewards, known.checker, {"lucky": lucky})
    by_step = None
    if chosen.rewards.steps:
        own = {"lucky": lucky_steps}
        by_step = stepwise.StepGrader(chosen.rewards, own, model.tokenizer)
    mesh = sharding.mesh(1, 1, 1, jax.devices()[:1])
    given = chosen, model.spec, known, grader, mesh, prng.root(0), by_step
    doing, learn = trainer.Online(stage.Run(*given), 0), learner.learn
    if fed is not None:
        doing.learner = feeding(doing.learner, iter(fed))

    def noting(*given, **options):
        state, measured, advantage = learn(*given, **options)
        advantages.append(np.array(crossing.own(advantage)))
        return state, measured, advantage

    params = jax.tree.map(lambda x: np.asarray(x, dtype), crossing.down(model.params))
    state = doing.begin(programs.copy(params), prng.root(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "learn", noting)
        for number in range(UPDATES):
            state, found = doing.step(state, number, lambda: None)
            if by_step:
                assert found.numbers["samples/steps"] == 1
    return crossing.down(state.learned.policy.params), advantages


def feeding(run, advantages):
    """The learner, with such advantages in place of its own."""
    own = run.programs.prepare

    def prepare(*given, **options):
        batch, measured = own(*given, **options)
        fed = crossing.up(next(advantages), run.programs.rows)
        return batch._replace(advantage=fed), measured

    return run._replace(programs=run.programs._replace(prepare=prepare))


def gap(one, other):
    pairs = zip(*map(jax.tree.leaves, (one, other)), strict=True)
    return max(float(np.abs(x - y).max()) for x, y in pairs)


@pytest.fixture
def one_step(monkeypatch):
    """Whole texts are steps: no newline is one."""
    monkeypatch.setattr(steps, "NEWLINE", "no such thing")


def test_one_step_an_output_learns_what_outcome_supervision_does(one_step, float64):
    begun = crossing.down(runs.model(runs.build(config.Config, SMALL).model).params)
    outcome, theirs = trained({})
    process, ours = trained(PROCESS)
    assert len(ours) == len(theirs) == UPDATES
    for x, y in zip(ours, theirs, strict=True):
        assert np.abs(x).max() > 0.5
        np.testing.assert_allclose(x, y, 0, 1e-6)
    assert gap(process, outcome) < 1e-12
    assert gap(outcome, begun) > 1e-3
    # Another rule leads elsewhere: the numbers above are not blind.
    other = trained(PROCESS | {"algorithm.advantage.estimator": "rank"} | UNSCALED)
    assert gap(other[0], outcome) > 1e-6


UNSCALED = {"algorithm.advantage.scale_rewards": "none"}


def test_its_advantages_are_those_of_outcome_supervision_in_float32_too(one_step):
    # Of the first update: what is sampled after it may differ.
    (_, (theirs, *_)), (_, (ours, *_)) = (
        trained(changed, "float32") for changed in ({}, PROCESS)
    )
    np.testing.assert_allclose(ours, theirs, 0, 1e-6)


def test_fed_the_same_advantages_it_makes_the_same_bits(one_step):
    """Steps change the advantages, and nothing else of an update."""
    outcome, theirs = trained({}, "float32")
    process, _ = trained(PROCESS, "float32", fed=theirs)
    jax.tree.map(np.testing.assert_array_equal, process, outcome)
    other = [2 * x for x in theirs]
    assert gap(trained(PROCESS, "float32", fed=other)[0], outcome) > 0


# A run ----------------------------------------------------------------------------------
# Taught just enough to end lines and texts now and then.
TAUGHT, STEPS = 40, 5
CHOSEN = runs.build(
    config.Config,
    SMALL
    | PROCESS
    | {
        "stages": ("sft", "online"),
        "data.name": "chains",
        "model.tiny.max_length": 96,
        "sft.steps": TAUGHT,
        "sft.batch_size": 8,
        "sft.learning_rate": 0.03,
        "training.steps": STEPS,
        "sampling.max_new": 32,
        "keep.samples": 1,
        "algorithm.beta": 0.0,
        "algorithm.minibatches": 2,
        "algorithm.advantage.whiten": "tokens",
        "rewards.truncated": "dropped",
        "groups.mixed": True,
        "evaluation.questions": 4,
    },
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The same run twice, with all that goes with steps."""
    results, own = [], {"lucky": lucky_steps}
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        given = {"rewards": {"lucky": lucky}, "step_rewards": own, "model": None}
        results.append(runs.train(CHOSEN, folder, **given))
    return results


def online(result):
    rows = workdir.rows(result.folder / workdir.METRICS)
    return [row for row in rows if row["stage"] == "online"]


def tables(result):
    folder = result.folder / workdir.SAMPLES
    return {p.name: list(workdir.rows(p)) for p in sorted(folder.iterdir())}


def test_nothing_compiles_once_the_first_steps_are_through(made):
    rows = online(made[0])
    compiled = [row["perf/compiled"] for row in rows]
    assert compiled[0] > 0 and compiled[2:] == [0] * (STEPS - 2)
    count = [len(row["steps"]) for table in tables(made[0]).values() for row in table]
    assert min(count) == 1 and max(count) > 4 and len(set(count)) > 3


def test_the_tables_hold_what_the_rows_say(made):
    for row, table in zip(online(made[0]), tables(made[0]).values(), strict=True):
        given = [step["reward"] for one in table for step in one["steps"]]
        assert row["steps/reward"] == pytest.approx(np.mean(given))
        assert row["samples/steps"] == pytest.approx(len(given) / len(table))
        assert row["reward/lucky"] == pytest.approx(
            np.mean([one["rewards"]["lucky"] for one in table])
        )
        assert row["steps/left_out"] == 0 == row["rows/unscorable"]
        for one in table:
            ends = [step["end"] for step in one["steps"]]
            assert ends == sorted(set(ends)) and ends[-1] == one["tokens"] - 1
            texts = [step["text"] for step in one["steps"]]
            asked = one["question"], texts, one["answer"]
            assert lucky_steps(*asked) == [step["reward"] for step in one["steps"]]


def test_the_same_command_gives_the_same_rows_tables_and_parameters(made):
    one, two = made
    assert runs.rows(one.folder) == runs.rows(two.folder)
    assert tables(one) == tables(two)
    jax.tree.map(np.testing.assert_array_equal, one.model.params, two.model.params)
