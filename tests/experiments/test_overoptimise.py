"""The experiment with a weak reward model: its arms, and what it says of their runs."""

import dataclasses
import json

import pytest

from grpo_jax import experiment, hacking, iterative, workdir

module = experiment.load("experiments/overoptimise.py")
ACCURACY = [0.1, 0.6, 0.3]  # of the first arm's first seed; what follows is a bit more


def test_arms_differ_in_what_they_name_alone(tmp_path):
    """And learn for as many steps."""
    base = module.get_config()
    made = {
        name: experiment.flat(module.arm(base, name, tmp_path)) for name in module.ARMS
    }
    whole = made["β 0.1, both renewed"]
    for name, named in module.ARMS.items():
        changed = {k: x for k, x in made[name].items() if x != whole[k]}
        assert changed.items() <= named.items()
        rounds = made[name]["iterative.rounds"] + 1
        assert rounds * made[name]["training.steps"] == 90
    assert [x["algorithm.beta"] for x in made.values()] == [0.1, 0.4, 0.1, 0.1]
    assert [x["iterative.rounds"] for x in made.values()] == [0, 0, 5, 5]


def test_it_begins_with_what_demonstrations_taught(tmp_path):
    chosen = module.get_config()
    for name in module.ARMS:
        made = module.arm(chosen, name, tmp_path / "start")
        assert made.stages == ("reward", "online")
        assert made.model.name == str(tmp_path / "start")
        assert iterative.of_verdicts(made) == iterative.of_verdicts(chosen)


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    """Where, what it trained, what it said; each policy leaves three rows."""
    trained = []

    def train(settings, folder):
        trained.append((folder.name, settings))
        if folder.name.startswith("start"):
            return
        _, arm, seed = folder.name.split("-")
        for policy in range(settings.iterative.rounds + 1):
            more = 0.01 * (int(arm) + int(seed) + policy)
            rows = [
                {
                    "step": step,
                    "eval/accuracy": share + more,
                    hacking.RIGHT: share,
                    hacking.REWARD: -share,
                    hacking.PARTED: float(arm == "0" and seed == "5" and step == 2),
                }
                for step, share in enumerate(ACCURACY)
            ]
            place = folder / f"policy-{policy}"
            place.mkdir(parents=True)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (place / workdir.METRICS).write_text(lines)

    monkeypatch.setattr(iterative, "train", train)
    chosen = dataclasses.replace(module.get_config(), seed=4)
    monkeypatch.setitem(list(module.ARMS.values())[2], "iterative.rounds", 10)
    monkeypatch.setenv("COLUMNS", "200")
    module.run(chosen, tmp_path)
    return tmp_path, trained, capsys.readouterr().out


def test_each_seed_has_a_start_that_all_arms_share(made):
    folder, trained, _ = made
    expected = [(4, x) for x in ("start", 0, 1, 2, 3)] + [(5, "start"), (5, 0)]
    for (name, settings), (seed, what) in zip(trained, expected, strict=False):
        assert settings.seed == seed
        if what == "start":
            assert name == f"start-{seed}" and settings.stages == ("sft",)
        else:
            assert name == f"arm-{what}-{seed}"
            assert settings.model.name == str(folder / f"start-{seed}")
    assert len(trained) == 5 * module.SEEDS
    assert (folder / "figures" / "learning.png").stat().st_size > 10_000


def test_the_table_is_of_the_last_policies(made):
    """Of arm 2 policy 10, which a list of names would have behind policy 1."""
    lines = made[2].splitlines()
    first, second, third = (
        next(line for line in lines if f" {name} " in line)
        for name in list(module.ARMS)[:3]
    )
    assert "14.0  15.0  16.0" in first and "64.0  65.0  66.0" in first
    assert "34.0  35.0  36.0" in first and "1 of 3" in first
    assert "35.0  36.0  37.0" in second and "0 of 3" in second
    assert "46.0  47.0  48.0" in third and third.split("│")[-2].strip() == "-"
