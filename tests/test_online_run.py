"""Three real steps of a tiny model: what is left in the folder, and the same again."""

import dataclasses
import json
import weakref

import jax
import numpy as np
import pytest

from grpo_jax import (
    cli,
    config,
    crossing,
    evaluate,
    learner,
    pool,
    presets,
    run,
    stage,
    trainer,
    workdir,
)
from grpo_jax.models import load
from tests import runs

STEPS, B, G = 3, 4, 4
SETTINGS = runs.build(
    config.Config,
    runs.SMALL
    | {
        "training.steps": STEPS,
        "sampling.max_new": 4,
        "optimizer.learning_rate": 0.01,
        "rewards.functions": ("even", "last"),
        "keep.samples": 2,
        "keep.every": 1,
        "evaluation.questions": 8,
    },
)


def even(question, completion, answer):
    """Something that a model can find by chance; not every sample can be scored."""
    if not completion:
        return None
    return float(sum(completion.encode()) % 2 == 0)


class Counts(dict):
    """How often the two ways and what they stand for are taken, within steps alone."""

    within = False

    def watch(self, patch, place, name, is_counted=lambda *_: True):
        way, self[name] = getattr(place, name), 0

        def call(*given, **options):
            self[name] += self.within and is_counted(*given)
            return way(*given, **options)

        patch.setattr(place, name, call)

    def switch(self, patch, place, name, within):
        way = getattr(place, name)

        def call(*given):
            before, self.within = self.within, within
            try:
                return way(*given)
            finally:
                self.within = before

        patch.setattr(place, name, call)


def is_of_host(arrays, *_):
    return any(isinstance(x, np.ndarray) for x in jax.tree.leaves(arrays))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of the same settings, and the counts of both."""
    counts, results = Counts(), []
    with pytest.MonkeyPatch.context() as patch:
        counts.watch(patch, crossing, "up")
        counts.watch(patch, crossing, "down")
        counts.watch(patch, jax, "device_get")
        counts.watch(patch, jax, "device_put", is_of_host)
        counts.watch(patch, pool.Pool, "dispatch")
        counts.switch(patch, trainer.Online, "step", True)
        counts.switch(patch, run._Driver, "_glance", False)
        for name in ("one", "two"):
            folder = tmp_path_factory.mktemp(name)
            given = {"rewards": {"even": even}, "model": None}
            results.append(runs.train(SETTINGS, folder, **given))
    return *results, counts


def table(result, step):
    path = result.folder / workdir.SAMPLES / f"{step:06}.jsonl"
    return list(workdir.rows(path))


def test_there_is_a_row_for_each_step_and_one_before_the_first(made):
    rows = runs.rows(made[0].folder)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert {row["stage"] for row in rows} == {"online"}
    examined = ["eval/accuracy" in row for row in rows]
    assert examined == [True, False, False, True]
    assert [row.get("questions") for row in rows] == [None, 4, 8, 12]
    for row in rows[1:]:
        assert row["samples/drawn"] == B * G and row["samples/faults"] == 0
        assert np.isfinite(
            [row["loss_before_entropy"], row["kl"], row["grad_norm"]]
        ).all()
    text = (made[0].folder / workdir.METRICS).read_text()
    assert "time/rollout" in text and "perf/tokens_per_second" in text


def test_nothing_compiles_after_the_second_step(made):
    rows = list(workdir.rows(made[0].folder / workdir.METRICS))
    compiled = [row["perf/compiled"] for row in rows[1:]]
    assert compiled[0] > 0 and compiled[2:] == [0] * (STEPS - 2)


def test_the_table_holds_what_the_row_says(made):
    """The mean reward of the devices, of the host, and of the file are one."""
    rows = runs.rows(made[0].folder)
    names = sorted(p.name for p in (made[0].folder / workdir.SAMPLES).iterdir())
    assert names == ["000002.jsonl", "000003.jsonl"]
    for step in (2, 3):
        told = table(made[0], step)
        assert len(told) == B * G
        for one in told:
            rewards = one["rewards"]
            assert rewards["even"] == even("", one["completion"], "")
            assert rewards["last"] == (one["completion"].strip() == one["answer"])
        known = [one["rewards"]["even"] for one in told]
        known = [x for x in known if x is not None]
        assert rows[step]["reward/even"] == pytest.approx(np.mean(known))
        assert rows[step]["samples/tokens"] == sum(one["tokens"] for one in told)
        assert rows[step]["length_mean"] == pytest.approx(
            np.mean(
                [one["tokens"] for one in told if one["rewards"]["even"] is not None]
            )
        )


def test_each_group_is_compared_with_itself(made):
    told = table(made[0], 3)
    for number in {one["number"] for one in told}:
        group = [one for one in told if one["number"] == number]
        group = [one for one in group if one["rewards"]["even"] is not None]
        reward = np.array([sum(one["rewards"].values()) for one in group])
        expected = (reward - reward.mean()) / (reward.std() + 1e-6)
        found = [one["advantage"] for one in group]
        np.testing.assert_allclose(found, expected, 1e-4, 1e-6)


def test_what_is_left_is_the_model_of_the_last_step(made):
    """The checkpoint's, and no longer that of the beginning."""
    result = made[0]
    kept = sorted(p.name for p in (result.folder / "checkpoints").iterdir())
    assert set(kept) >= {"2", "3"}
    assert result.metrics["step"] == STEPS and "eval/accuracy" in result.metrics
    assert (result.folder / "figures" / "learning.png").stat().st_size > 1000
    described = json.loads((result.folder / workdir.CONFIG).read_text())
    assert described["config"]["training"]["steps"] == STEPS
    before = crossing.down(runs.model(SETTINGS.model).params)
    after = crossing.down(result.model.params)
    for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        assert np.abs(x - y).max() > 1e-3


def test_the_same_command_gives_the_same_rows_tables_and_parameters(made):
    one, two, _ = made
    assert runs.rows(one.folder) == runs.rows(two.folder)
    assert table(one, 3) == table(two, 3)
    for x, y in zip(
        *(jax.tree.leaves(r.model.params) for r in (one, two)), strict=True
    ):
        np.testing.assert_array_equal(x, y)


def test_a_step_copies_in_the_two_stated_ways_alone(made):
    """Down: what each segment drew, and once a step, whether gradients were finite."""
    counts = made[2]
    assert counts["dispatch"] > 0
    assert counts["down"] == counts["device_get"] == counts["dispatch"] + 2 * STEPS
    assert counts["up"] == counts["device_put"] > 0


def test_examined_questions_are_none_that_are_trained_on(made):
    asked = {one["question"] for step in (2, 3) for one in table(made[0], step)}
    found = load.find(SETTINGS.model)
    known = run.task.make(SETTINGS, found.spec, found.tokenizer)
    assert not asked & {p.question for p in known.held_out}
    assert evaluate.PREFIX + "format" in made[0].metrics


NAMED = (
    "grpo", "grpo_process", "online_rft", "rloo", "reinforce_pp", "remax", "dr_grpo",
    "dapo", "gspo", "cispo", "ppo", "softmax",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("preset", NAMED)
def test_the_methods_learn_as_values_of_one_trainer(preset, tmp_path):
    """Two steps of each: what is learned is finite, and moves the policy."""
    algorithm = {f"algorithm.{k}": x for k, x in presets.PRESETS[preset].items()}
    more = {"training.steps": 2, "rewards.functions": ("even",)} | algorithm
    if algorithm.get("algorithm.advantage.supervision") == "process":
        more["rewards.steps"] = "even"
    values = runs.SMALL | more
    values |= {"sampling.max_new": 4, "optimizer.learning_rate": 0.01}
    values |= {"evaluation.questions": 4, "sampling.temperature": 1.0}
    chosen = runs.build(config.Config, values)
    steps = {"even": lambda question, lines, answer: [even("", x, "") for x in lines]}
    found = runs.train(chosen, tmp_path, rewards={"even": even}, step_rewards=steps)
    _, *rows = runs.rows(tmp_path)
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        known = [x for k, x in row.items() if k.startswith(("loss", "grad"))]
        assert known and all(np.isfinite(x) for x in known), row
    before = jax.device_get(jax.tree.leaves(runs.model(chosen.model).params))
    after = jax.device_get(jax.tree.leaves(found.model.params))
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_another_set_is_examined_as_evaluate_asks_it(made, tmp_path):
    """And nothing else changes by it."""
    changed = {"evaluation": dataclasses.replace(SETTINGS.evaluation, others=(OTHER,))}
    settings = dataclasses.replace(SETTINGS, **changed)
    result = runs.train(settings, tmp_path / "a", rewards={"even": even}, model=None)
    rows, before = runs.rows(tmp_path / "a"), runs.rows(made[0].folder)
    prefix = f"eval/{OTHER}/"
    for row, plain in zip(rows, before, strict=True):
        of_other = {key for key in row if key.startswith(prefix)}
        assert bool(of_other) == ("eval/accuracy" in plain)
        assert {k: x for k, x in row.items() if k not in of_other} == plain
    words = ["--data", OTHER, "--questions", "8", "--out", str(tmp_path / "b.json")]
    words += ["--checkpoint", "latest"]
    assert cli.main(["evaluate", str(result.folder), *words]) == 0
    metrics = json.loads((tmp_path / "b.json").read_text())["metrics"]
    assert metrics == {
        key.replace(prefix, "eval/"): x
        for key, x in rows[-1].items()
        if key.startswith(prefix)
    }


OTHER = "sums-2"


def test_another_set_is_examined_where_nothing_is_held_out(tmp_path):
    changed = {
        "data": dataclasses.replace(SETTINGS.data, held_out=0.0),
        "evaluation": dataclasses.replace(SETTINGS.evaluation, others=(OTHER,)),
    }
    settings = dataclasses.replace(SETTINGS, **changed)
    runs.train(settings, tmp_path / "a", rewards={"even": even}, model=None)
    first, *_, last = runs.rows(tmp_path / "a")
    for row in (first, last):
        assert f"eval/{OTHER}/accuracy" in row and "eval/accuracy" not in row


def test_the_copy_to_sample_with_is_gone_when_it_learns(tmp_path, monkeypatch):
    """Of a large model it is most of what there is to free; nothing holds on to it."""
    copies, gone = [], []
    publish, learn = stage.published, learner.learn

    def published(*given):
        copy = publish(*given)
        copies[:] = map(weakref.ref, jax.tree.leaves(copy))
        return copy

    def learns(*given, **more):
        gone.append([copy() is None for copy in copies])
        return learn(*given, **more)

    monkeypatch.setattr(stage, "published", published)
    monkeypatch.setattr(learner, "learn", learns)
    runs.train(SETTINGS, tmp_path, rewards={"even": even}, model=None)
    assert len(gone) == STEPS and all(map(len, gone)) and all(map(all, gone))
