"""The memory of arms: bytes by hand, what is refused, and what the table says of it."""

import json

import jax
import pytest
from jax.experimental import topologies

from grpo_jax import cli, experiment, sharding
from grpo_jax.bench import compile as bench
from grpo_jax.bench import sampling
from grpo_jax.models import sizes
from grpo_jax.models.memory import GIB
from tests.models import examples

table = experiment.load("experiments/deepseekmath/table_memory.py")
memory = table.memory
SPEC = examples.SPECS["qwen2"]
SHORT = {"sampling.max_new": 8, "sampling.min_new": 8}


def settings_of(arm, **more):
    """Of a few rows on one device."""
    given = {"algorithm.group_size": 8} | table.ARMS[arm] | table.HERE
    given |= {"data.name": "cpu", "model.name": table.SMALL} | SHORT | more
    preset = given.pop("preset", None)
    return experiment.changed(experiment.preset(table.get_config(), preset), given)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(sampling, "SPEC", SPEC)


def held(arm, model="smollm2-135m", devices=1):
    mesh = sharding.mesh(1, devices, 1, jax.devices()[:devices])
    return memory.held(bench.spec_of(model), settings_of(arm), mesh)


@pytest.mark.parametrize(
    ("arm", "numbers"),
    [
        ("GRPO", {"parameters": 4, "moments": 8, "reference": 4}),
        ("GRPO, no KL", {"parameters": 4, "moments": 8}),
        (
            "PPO",
            {"parameters": 4, "moments": 8, "reference": 4}
            | {"critic": 4, "its moments": 8},
        ),
        ("PPO, no KL", {"parameters": 4, "moments": 8, "critic": 4, "its moments": 8}),
        ("PPO, shared trunk", {"parameters": 4, "moments": 8, "reference": 4}),
    ],
)
def test_bytes_of_a_parameter_by_hand(arm, numbers):
    """Embeddings are tied: a critic has all the policy's parameters, and one row."""
    found, P = held(arm), sizes.parameters(sizes.SPECS["smollm2-135m"])
    expected = {name: n * P / GIB for name, n in (numbers | {"copy": 4}).items()}
    some = {name: x for name, x in found["held"].items() if x}
    assert some == pytest.approx(expected, rel=1e-4)
    assert found["gradients"] == pytest.approx(4 * P / GIB, rel=1e-4)


def test_adapters_need_no_reference_and_few_moments():
    spec = sizes.SPECS["smollm2-135m"]
    P = sizes.parameters(spec)
    # rank 16: (in + out) numbers of q and o, k and v, and three of the MLP, 30 layers
    sums = 2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)
    adapters = 30 * 16 * sums
    alone, beside = held("LoRA GRPO"), held("LoRA PPO")
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
    one, four = held("PPO"), held("PPO", devices=4)
    assert four["held"]["copy"] == pytest.approx(one["held"]["copy"])
    for name in ("moments", "reference", "its moments"):
        assert four["held"][name] == pytest.approx(one["held"][name] / 4, rel=1e-3)


def test_the_arithmetic_is_what_the_compiler_is_given(monkeypatch):
    """Apart from the rows, which are few."""
    monkeypatch.setattr(bench, "spec_of", lambda name: SPEC)
    chosen = settings_of("PPO", **{"training.batch_size": 2})
    found = memory.compiled(chosen, "learning")
    assert found["programs"].keys() == {"score", "critic", "update"}
    for name, one in found["programs"].items():
        own = sum(found["held"][part] for part in table.GIVEN[name])
        assert own < one["arguments_gib"] < 1.1 * own
        assert one["in_all_gib"] > own
    found = memory.compiled(chosen, "sampling")
    assert found["programs"].keys() == table.SAMPLER.keys() - {"decode fewer"} or (
        found["programs"].keys() == table.SAMPLER.keys()
    )
    assert found["programs"]["decode"]["arguments_gib"] > found["held"]["copy"]


@pytest.mark.parametrize("arm", ["PPO, shared trunk", "LoRA GRPO"])
def test_every_arm_runs_a_whole_step_here(arm, tiny, tmp_path):
    """A head and adapters are no parameters to sample with."""
    chosen = settings_of(arm, **{"data.subset": "resident"})
    memory.check(chosen)
    memory.run(chosen, tmp_path)
    found = table.keep(tmp_path)["found"]
    assert 0 < found["before"] < found["peak"] <= found["compiling"] * 1.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.subset", "speed"], "data.subset is 'speed'; it must be one of"),
        (["--data.subset", "resident"], "only llama-50m on this machine's CPU is run"),
        (["--data.name", "v5q-16"], "'v5q-16' is not a machine known here"),
        (["--model.name", "gpt-9"], "'gpt-9' is no model known by name"),
    ],
)
def test_what_it_cannot_say_is_refused(words, message, tmp_path, capsys):
    folder = tmp_path / "run"
    command = ["train", "experiments/deepseekmath/memory.py", "--workdir", str(folder)]
    assert cli.main([*command, *words]) == 2
    assert message in capsys.readouterr().err and not folder.exists()


@pytest.mark.parametrize(("machine", "extra"), [("v5p-16", "tpu"), ("h200x8", "cuda")])
def test_without_a_compiler_nothing_begins(
    machine, extra, monkeypatch, tmp_path, capsys
):
    """The first point says what to install, and all others need it."""

    def absent(**_):
        raise RuntimeError("not installed")

    monkeypatch.setattr(topologies, "get_topology_desc", absent)
    first, *others = table.get_points(1, smoke=False).items()
    name, point = first
    assert machine in point.settings["data.name"].split("+")
    assert all(other.needs == {name} for _, other in others)
    folder = tmp_path / "run"
    words = ["--workdir", str(folder), "--data.name", machine]
    words += ["--data.subset", "machines"]
    assert cli.main(["train", point.subject, *words]) == 2
    said = capsys.readouterr().err
    assert f'needs the packages of ".[{extra}]"' in said and not folder.exists()


def test_a_smoke_run_needs_no_compiler_for_other_machines():
    for _, point in table.get_points(1, smoke=True).items():
        assert "cpu" in str(point.settings["data.name"])


def test_the_machines_are_described_for_those_who_need_them(tmp_path):
    chosen = settings_of("GRPO", **{"data.subset": "machines"})
    memory.run(chosen, tmp_path)
    found = table.keep(tmp_path)["found"]
    assert found.keys() == {"cpu"} and found["cpu"]["devices"] == 1
    assert json.loads((tmp_path / "cpu.json").read_text()) == found["cpu"]
    again = settings_of("GRPO", **{"data.name": str(tmp_path / "cpu.json")})
    assert memory.machines(again) == ["cpu"]


def records(smoke=True):
    """As a sweep would keep them: state 16 and 28, copy 4, and 20 on top of both."""
    parts = {"parameters": 4.0, "moments": 8.0, "reference": 4.0}
    nothing = {"critic": 0.0, "its moments": 0.0, "copy": 4.0}
    of = {
        "GRPO": parts | nothing,
        "PPO": parts | nothing | {"critic": 4.0, "its moments": 8.0},
        "LoRA GRPO": nothing | {"parameters": 3.0, "moments": 1.0, "reference": 0.0},
    }
    sampler = {"decode": {"in_all_gib": 4.0 + 3.0, "room_gib": 90.0}}
    found = {f"{table.NAME}/machines": {"cpu": {"devices": 1}}}
    for place in table.places(1, smoke):
        one = {"held": of[place.arm], "gradients": 4.0}
        if place.kind == "sampling":
            one["programs"] = sampler
        elif place.kind == "learning":
            own = of[place.arm]["parameters"] + of[place.arm]["moments"]
            update = {"in_all_gib": own + 20.0, "room_gib": 90.0}
            critic = {"in_all_gib": 12.0 + 19.0, "room_gib": 90.0}
            one["programs"] = {"update": update}
            one["programs"] |= {"critic": critic} if place.arm == "PPO" else {}
        else:
            one |= {"before": 1.0, "compiling": 60.0, "peak": 31.0}
            one["peak"] += 12.0 if place.arm == "PPO" else 0.0
        found[str(place)] = one
    same = {"seconds": 1.0, "code": "abc"}
    return {name: {"found": one} | same for name, one in found.items()}


def test_savings_by_hand():
    found = {
        (x["kind"], x["arm"], x["against"]): x
        for x in table.saved(table.rows(records(), 1))
    }
    ours = found["learning", "GRPO", "PPO"]
    expected = {
        "state": 12 / 28,
        "updated": 12 / 32,
        "all_held": 12 / 32,
        "peak": 12 / 52,
    }
    assert {k: ours[k] / 100 for k in expected} == pytest.approx(expected)
    measured = found["resident", "GRPO", "PPO"]
    assert measured["peak"] / 100 == pytest.approx(12 / 42)
    assert found["learning", "LoRA GRPO", "GRPO"]["state"] == pytest.approx(75)
    assert ("learning", "GRPO", "PPO, shared trunk") not in found  # it was not compiled


def test_the_most_is_that_of_the_program_that_adds_most():
    rows = {
        x.place.arm: x for x in table.rows(records(), 1) if x.place.kind == "learning"
    }
    ppo = rows["PPO"]
    assert ppo.added == {"update": 20.0, "critic": 19.0, "decode": 3.0}
    assert ppo.most == "update" and ppo.peak == 28 + 4 + 20
    assert ppo.stack["gradients"] == 4.0 and ppo.stack["all else"] == 16.0
    assert sum(ppo.stack.values()) == pytest.approx(ppo.peak)
    sampling = ppo._replace(added=ppo.added | {"decode": 30.0})
    assert sampling.stack["gradients"] == 0 and sampling.stack["all else"] == 30.0


def test_what_it_writes(tmp_path):
    table.report(records(), 1, tmp_path)
    said = json.loads((tmp_path / "table_memory.json").read_text())
    assert {"told", "by", "machines", "GiB", "saved, %"} == said.keys()
    picture = (tmp_path / "table_memory.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    readme = (tmp_path / "README.md").read_text()
    assert "GRPO saves 43 to 43% of PPO's state" in readme
    assert "23 to 23% at the peak; 29 to 29% of resident memory" in readme


def test_each_part_of_the_picture_has_a_look_of_its_own():
    """In grey as well: no two have both the same lightness and the same hatch."""
    seen = set()
    for look in table.LOOKS.values():
        r, g, b = (int(look["color"][i : i + 2], 16) for i in (1, 3, 5))
        grey = round((0.299 * r + 0.587 * g + 0.114 * b) / 255, 1)
        assert (grey, look.get("hatch")) not in seen
        seen.add((grey, look.get("hatch")))
    parts = table.rows(records(), 1)[0].stack
    assert parts.keys() == table.LOOKS.keys()
