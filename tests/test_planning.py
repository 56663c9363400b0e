"""The command `plan`: bytes by hand, what the compiler is given, and what is refused."""

import json
import types

import jax
import pytest
from jax.experimental import topologies

from grpo_jax import cli, config, experiment, planning, sharding
from grpo_jax.models import sizes
from grpo_jax.models.memory import GIB
from tests.models import examples

QUICKSTART, GSM8K = "experiments/quickstart.py", "experiments/gsm8k.py"
SPEC = examples.SPECS["qwen2"]
PPO, LORA = {"preset": "ppo"}, {"model.lora.rank": 16}
SMALL = {
    "algorithm.beta": 0.04,
    "algorithm.group_size": 8,
    "sampling.max_new": 8,
    "sampling.max_prompt": 16,
    "training.batch_size": 4,
}


def settings_of(own=None, **more):
    """Of a few rows."""
    given = SMALL | (own or {}) | more
    preset = given.pop("preset", None)
    return experiment.changed(experiment.preset(config.Config(), preset), given)


def held(own=None, devices=1):
    mesh = sharding.mesh(1, devices, 1, jax.devices()[:devices])
    return planning.held(sizes.SPECS["smollm2-135m"], settings_of(own), mesh)


@pytest.mark.parametrize(
    ("own", "numbers"),
    [
        ({}, {"parameters": 4, "moments": 8, "reference": 4}),
        ({"algorithm.beta": 0.0}, {"parameters": 4, "moments": 8}),
        (
            PPO,
            {"parameters": 4, "moments": 8, "reference": 4}
            | {"critic": 4, "its moments": 8},
        ),
        (
            PPO | {"algorithm.beta": 0.0, "algorithm.kl.placed": "loss"},
            {"parameters": 4, "moments": 8, "critic": 4, "its moments": 8},
        ),
        (
            PPO | {"critic.trunk": "shared"},
            {"parameters": 4, "moments": 8, "reference": 4},
        ),
    ],
)
def test_bytes_of_a_parameter_by_hand(own, numbers):
    """Embeddings are tied: a critic has all the policy's parameters, and one row."""
    found, P = held(own), sizes.parameters(sizes.SPECS["smollm2-135m"])
    expected = {name: n * P / GIB for name, n in (numbers | {"copy": 4}).items()}
    some = {name: x for name, x in found["held"].items() if x}
    assert some == pytest.approx(expected, rel=1e-4)
    assert found["gradients"] == pytest.approx(4 * P / GIB, rel=1e-4)


def test_adapters_need_no_reference_and_few_moments():
    P = sizes.parameters(sizes.SPECS["smollm2-135m"])
    # rank 16: (in + out) numbers of q and o, k and v, and three of the MLP, 30 layers
    sums = 2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)
    adapters = 30 * 16 * sums
    alone, beside = held(LORA | {"model.dtype": "bfloat16"}), held(PPO | LORA)
    parameters = 2 * P + 4 * adapters, 4 * P + 4 * adapters
    for found, bytes_ in zip((alone, beside), parameters, strict=True):
        assert found["held"]["reference"] == 0
        assert found["held"]["parameters"] == pytest.approx(bytes_ / GIB)
        moments = found["held"]["moments"]
        assert moments == pytest.approx(8 * adapters / GIB, rel=1e-4)
    assert alone["held"]["critic"] == 0
    assert beside["held"]["its moments"] == pytest.approx(8 * P / GIB, rel=1e-4)
    assert beside["gradients"] == pytest.approx(4 * P / GIB, rel=1e-4)


def test_what_is_cut_over_devices_and_what_is_whole():
    one, four = held(PPO), held(PPO, devices=4)
    assert four["held"]["copy"] == pytest.approx(one["held"]["copy"])
    for name in ("moments", "reference", "its moments"):
        assert four["held"][name] == pytest.approx(one["held"][name] / 4, rel=1e-3)


def test_the_arithmetic_is_what_the_compiler_is_given():
    """Apart from the rows, which are few."""
    chosen = settings_of(PPO, **{"training.batch_size": 2, "sampling.segment": 4})
    mesh, seen = planning.mesh_of("cpu"), {}
    parts = planning.held(SPEC, chosen, mesh)["held"]
    beside = planning.standing(SPEC, chosen, mesh)
    for name, program in planning.lowered(SPEC, chosen, mesh):
        own = sum(parts[part] for part in planning.GIVEN.get(name, ()))
        row, _ = planning.measured(program, "cpu")
        seen[name] = row["arguments_gib"] - own, row["in_all_gib"] - own
    assert {"prefill", "decode", "score", "critic", "update", "grow"} <= seen.keys()
    for name in ("score", "critic", "update"):
        more, in_all = seen[name]
        given = sum(parts[part] for part in planning.GIVEN[name])
        assert 0 < more < 0.1 * given and in_all > more
    # What is decoded stands in a cache, as it does when questions are read.
    assert seen["decode"][0] == pytest.approx(beside["prefill"], rel=0.05)
    assert beside["prefill"] > beside["grow"] > 0
    assert seen["prefill"][0] < 0  # reading needs no unembedding


def test_the_copy_counts_while_samples_are_drawn_and_then_no_more():
    held = {"parameters": 4.0, "moments": 8.0, "copy": 2.0}
    adds = {"decode": 3.0, "update": 3.5}
    found = {"held": held, "adds": adds, "room": 17.0}
    assert planning.peaks(found) == {"decode": 17.0, "update": 15.5}
    said = "17 GiB at the peak, which is decode"
    assert planning.verdict(found).startswith(f"It fits, of decode, update: {said};")
    told = planning.verdict(found | {"room": 16.0})
    assert told.startswith(f"It does NOT fit: {said}; a device has 16. Try fewer samp")
    more = planning.verdict(found | {"adds": {"decode": 3.0, "update": 6.0}})
    assert "18 GiB at the peak, which is update" in more and "remat full" in more
    assert planning.verdict(found | {"room": None}) == f"Of decode, update: {said}."


def test_what_hosts_hold_is_here_while_it_scores():
    spec, mesh = sizes.SPECS["smollm2-135m"], planning.mesh_of("cpu")
    there = settings_of({"reference.held": "host"})
    parts = planning.held(spec, there, mesh)["held"]
    assert parts["reference"] == 0 < parts["parameters"]
    beside = planning.standing(spec, there, mesh)
    assert beside["score"] == pytest.approx(parts["parameters"])
    assert planning.standing(spec, settings_of(), mesh)["score"] == 0


def test_adapters_are_multiplied_out_before_they_are_copied():
    spec, mesh = sizes.SPECS["smollm2-135m"], planning.mesh_of("cpu")
    beside = planning.standing(spec, settings_of(LORA), mesh)
    assert beside["publish"] == pytest.approx(4 * sizes.parameters(spec) / GIB)
    assert planning.standing(spec, settings_of(), mesh)["publish"] == 0


@pytest.mark.parametrize("name", ["a run", None])
def test_a_reward_model_is_held_all_the_time(name, monkeypatch):
    """Of a run, or that of the run itself: of two bytes a parameter."""
    spec, mesh = sizes.SPECS["smollm2-135m"], planning.mesh_of("cpu")
    asks = {"rewards.functions": ("model",), "reward_model.name": name}
    asks |= {"stages": ("online",) if name else ("reward", "online")}
    asks |= {"model.numerics.compute": "bfloat16"}
    base = types.SimpleNamespace(spec=spec)
    found = types.SimpleNamespace(base=base, settings=settings_of(asks))
    monkeypatch.setattr(planning.runs, "find", lambda model, kind: found)
    parts = planning.held(spec, settings_of(asks), mesh)["held"]
    expected = 2 * sizes.parameters(spec) / GIB
    assert parts["reward model"] == pytest.approx(expected, rel=1e-4)
    assert planning.held(spec, settings_of(), mesh)["held"]["reward model"] == 0


def test_it_says_what_a_step_here_would_take(tmp_path, capsys):
    out = tmp_path / "not yet" / "plan.json"
    words = ["plan", QUICKSTART, "--topology", "cpu", "--out", str(out)]
    words += ["--sampling.max-prompt", "32", "--sampling.max-new", "16"]
    assert cli.main([*words, "--algorithm.beta", "0.04"]) == 0
    (found,) = json.loads(out.read_text())
    assert {"machine", "device", "devices", "room", "held", "adds"} <= found.keys()
    learning = {"score", "update"}
    assert learning | {"publish", "prefill", "decode"} <= found["adds"].keys()
    assert found["held"]["reference"] == found["held"]["parameters"] > 0
    said = capsys.readouterr().out
    assert "update adds" in said and "at the peak, which is" in said
    assert cli.main([*words, "--programs", "sampling"]) == 0
    (found,) = json.loads(out.read_text())
    assert found["adds"].keys() <= set(planning.SAMPLING)
    assert found["held"]["reference"] == 0
    assert cli.main([*words, "--programs", "learning"]) == 0
    (found,) = json.loads(out.read_text())
    assert found["adds"].keys() == {"update"}


SHORT = ["--sampling.max-prompt", "32"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([QUICKSTART, "--topology", "cpu"], "sampling.max_prompt is None, and shapes"),
        ([QUICKSTART, *SHORT, "--topology", "v5q-16"], "'v5q-16' is not a machine"),
        ([QUICKSTART, *SHORT], "--topology names no machine"),
        (
            [GSM8K, *SHORT, "--topology", "cpu", "--model.name", "nowhere.gguf"],
            "Or plan for one that is known by name",
        ),
        (["--topology", "cpu"], "plan needs an experiment file first"),
        (
            ["experiments/sft.py", "--topology", "cpu"],
            "are those of online learning",
        ),
    ],
)
def test_what_it_cannot_say_is_refused(words, message, tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert cli.main(["plan", *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(("machine", "extra"), [("v5p-16", "tpu"), ("h200x8", "cuda")])
def test_without_a_compiler_nothing_begins(
    machine, extra, monkeypatch, tmp_path, capsys
):
    def absent(**_):
        raise RuntimeError("not installed")

    monkeypatch.setattr(topologies, "get_topology_desc", absent)
    out = tmp_path / "plan.json"
    words = [QUICKSTART, *SHORT, "--topology", machine, "--out", str(out)]
    assert cli.main(["plan", *words]) == 2
    said = capsys.readouterr().err
    assert f'needs the packages of ".[{extra}]"' in said and not out.exists()
