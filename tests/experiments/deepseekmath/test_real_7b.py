"""Figure 5 at its real size: the same arms, the paper's numbers, and its report."""

import json

import numpy as np
import pytest

from grpo_jax import config, experiment, learner, plan, reproduce, sharding, workdir
from grpo_jax.models import sizes
from grpo_jax.sampling import shapes

real = experiment.load("experiments/deepseekmath/real_7b.py")
table_memory = experiment.load("experiments/deepseekmath/table_memory.py")
figure5 = real.figure5
ONLINE = [arm for arm, own in real.ARMS.items() if "stages" not in own]
OFFLINE = {"RFT": "rft", "DPO": "dpo"}


def chosen(arm, points=None):
    """The settings of an arm's first run."""
    points = points or real.get_points(1, smoke=False)
    point = points[real.miniature.place(real.NAME, arm, 0)]
    return config.of(config.nested(reproduce.settings(real, point)))


def test_the_arms_are_figure_5_s_but_for_sizes():
    of_sizes = {"algorithm.group_size", "training.steps", "training.batch_size"}
    of_sizes |= {"critic.learning_rate", "reward_model.name", "dpo.beta"}
    names = "steps", "questions", "samples", "batch_size", "learning_rate"
    of_sizes |= {f"{stage}.{name}" for stage in OFFLINE.values() for name in names}
    for arm, own in real.ARMS.items():
        theirs = figure5.ARMS[arm]
        assert theirs.keys() <= own.keys()
        assert {k for k in own if own[k] != theirs.get(k, own)} <= of_sizes
    left_out = {arm for arm in figure5.ARMS if figure5.AGAIN not in arm}
    noise = {f"GRPO+OS, {x}" for x in figure5.NOISE}
    assert left_out - real.ARMS.keys() == {"GRPO+PS"} | noise
    pairs = [[(x.ours, x.theirs) for x in y] for y in (real.PAPER, figure5.PAPER)]
    assert real.CLAIMS["paper"] == real.PAPER and pairs[0] == pairs[1]
    assert [one.paper for one in real.PAPER] == [1.16, 0.59, 0.21]


def test_every_arm_draws_as_many_samples():
    drawn = {}
    for arm in real.ARMS:
        one = chosen(arm)
        if arm in OFFLINE:
            stage = one.of_stage(OFFLINE[arm])
            drawn[arm] = stage.questions * stage.samples
            assert stage.steps == 500 and stage.learning_rate == 1e-6
        else:
            batch = one.training.batch_size * one.algorithm.group_size
            drawn[arm] = one.training.steps * batch
            assert batch == 1024 and one.optimizer.learning_rate == 1e-6
    assert set(drawn.values()) == {500 * 16 * 64}


def test_the_paper_s_own_numbers():
    plain = experiment.load("experiments/math_cot.py").get_config()
    ours = real.get_config()
    assert ours.algorithm == config.Algorithm(group_size=64, beta=0.04)
    same = "model", "data", "algorithm", "optimizer", "rewards"
    assert [x for x in same if getattr(ours, x) != getattr(plain, x)] == []
    assert (ours.sampling.max_new, ours.sampling.temperature) == (1024, 1.0)
    assert {chosen(arm).algorithm.beta for arm in ("PPO", "GRPO+PS, model")} == {0.04}


def test_what_was_compiled_is_of_its_size():
    theirs, ours = table_memory.get_config(), real.get_config()
    assert theirs.algorithm == ours.algorithm
    assert theirs.model.numerics == ours.model.numerics
    for section, names in (
        ("sampling", ("max_new", "max_prompt", "rows", "cache")),
        ("training", ("batch_size", "parts")),
    ):
        for name in names:
            both = (getattr(getattr(x, section), name) for x in (theirs, ours))
            assert len(set(both)) == 1


def test_the_judge_holds_questions_out_that_labels_do_not_ask():
    """Labels are of the share that a run trains on, by the default of data."""
    points = real.get_points(1, smoke=False)
    labels, judge = points[real.LABELS], points[real.JUDGE]
    assert labels.settings["data"] == "math" and judge.needs == {real.LABELS}
    of_judge = experiment.load(judge.subject).get_config()
    assert of_judge.data.held_out > config.Data().held_out
    assert of_judge.reward.labels == "steps" and of_judge.stages == ("reward",)
    for arm in real.ARMS:
        point = points[real.miniature.place(real.NAME, arm, 0)]
        assert point.needs == ({real.JUDGE} if "model" in arm else set())
        assert chosen(arm).rewards.asks_a_model == ("model" in arm)


def test_every_program_of_ppo_is_lowered_at_7b():
    one, spec = chosen("PPO"), sizes.SPECS["deepseek-math-7b"]
    run = learner.make(spec, one, 500, sharding.of_axes(None))
    width = shapes.length(one.sampling.max_prompt)
    size = plan.Size(one.training.batch_size, width, one.sampling.max_new)
    assert dict(plan.learning(run, size)).keys() == {"score", "critic", "update"}


def rows(last, beside):
    """Three examinations, of which the first is the same everywhere."""
    accuracy = zip([0.2, 0.3, last], [0.5, 0.6, beside], strict=True)
    for step, (math, gsm8k) in enumerate(accuracy):
        yield {"step": step, "eval/accuracy": math, "eval/gsm8k/accuracy": gsm8k}


def records(tmp_path, seeds):
    found = {}
    for seed in range(seeds):
        for number, arm in enumerate(real.ARMS):
            place = real.miniature.place(real.NAME, arm, seed)
            gain = 0.01 * number + 0.001 * seed
            for row in rows(0.3 + gain, 0.7 - gain):
                workdir.append(tmp_path / place / workdir.METRICS, row)
            kept = real.keep(tmp_path / place)
            found[place] = {"seconds": 1.0, "code": "abc"} | kept
    return found


def test_it_keeps_both_sets_by_name(tmp_path):
    kept = records(tmp_path, 1)[real.miniature.place(real.NAME, "RFT", 0)]
    assert kept["MATH"]["value"] == [0.2, 0.3, 0.3]
    assert kept["GSM8K"]["value"] == [0.5, 0.6, 0.7]


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_it_writes(seeds, tmp_path):
    out = tmp_path / "results"
    out.mkdir()
    real.report(records(tmp_path, seeds), seeds, out)
    said = json.loads((out / "real_7b.json").read_text())
    assert (out / "real_7b.png").read_bytes().startswith(b"\x89PNG")
    last = said["curves"]["MATH"]["GRPO+OS, model"]["value"][0][-1]
    arms = list(real.ARMS)
    assert last == pytest.approx(30 + arms.index("GRPO+OS, model"))
    if seeds == 1:
        assert "one seed" in (out / "README.md").read_text()
        return
    verdicts = said["verdicts"]["MATH, paper"]  # whose questions are asked
    assert [one["claim"] for one in verdicts] == [x.name for x in figure5.PAPER]
    assert [one["paper"] for one in verdicts] == [1.16, 0.59, 0.21]
    gap = arms.index("Online RFT") - arms.index("RFT")
    assert verdicts[0]["mean"] == pytest.approx(gap / 3)  # mean of three points
    assert said["verdicts"]["GSM8K, paper"][0]["paper"] is None
    assert np.isfinite([one["p"] for one in verdicts]).all()


def test_a_smoke_run_begins_where_samples_are_right_by_chance():
    """The first start answers alike where it is cut short: RFT and DPO find nothing."""
    points = real.get_points(1, smoke=True)
    for arm in real.ARMS:
        point = points[real.miniature.place(real.NAME, arm, 0)]
        assert point.needs == {"second"} | ({real.JUDGE} if "model" in arm else set())
