"""A run's folder in place of a model: what it has learned, whole, and nothing else."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from grpo_jax import checkpoint, cli, config, learner, programs, runs, sharding, workdir
from grpo_jax.models import load, lora, transformer
from grpo_jax.models.settings import Lora, Model, Tiny
from grpo_jax.section import Refused

SMALL = Tiny(layers=1, width=16, heads=2, kv_heads=1, ffw=16, max_length=64)
PLAIN = config.Config(
    model=Model(tiny=SMALL),
    algorithm=config.Algorithm(beta=0.0),
    sampling=config.Sampling(max_new=4),
    keep=config.Keep(latest=3),
)
ADAPTED = dataclasses.replace(
    PLAIN,
    model=Model(tiny=SMALL, lora=Lora(rank=2, targets="wq|wd")),
    critic=config.Critic(trunk="shared"),
    algorithm=config.Algorithm(
        group_size=1,
        beta=0.0,
        advantage=config.Advantage(estimator="gae", scale_rewards="none"),
    ),
)


EXAMINED = dataclasses.replace(
    PLAIN,
    seed=3,
    data=config.Data(count=60, size=1, shots=2),
    evaluation=config.Evaluation(samples=2),
)


def written(folder, settings, accuracies, mesh=None, spec=None, **options):
    """A run's folder with a checkpoint of step 1, 2, ..., and the parameters in each.

    None: it was not examined at that step.
    """
    workdir.settle(folder, {"config": dataclasses.asdict(settings)}, ())
    kept = checkpoint.Checkpoints(folder / "checkpoints", settings.keep, print)
    spec, params = spec or runs.find(settings.model).base.spec, []
    run = learner.make(spec, settings, 1, mesh, **options)
    for step, accuracy in enumerate(accuracies, 1):
        keys = jax.random.split(jax.random.key(step))
        begun = programs.init(spec, "float32", None)(keys[0])
        params.append(jax.device_get(begun))
        state = learner.begin(run, begun, keys[1])
        shifted = jax.tree.map(lambda x: x + 0.1, state.policy.params)
        state = state._replace(policy=state.policy._replace(params=shifted))
        kept.save(step, state, {"leg": 0}, accuracy)
    kept.close()
    return params, jax.device_get(shifted)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    params, _ = written(folder, PLAIN, [0.5, 0.75, 0.25])
    return folder, params


def policy(name, which="latest", mesh=None, tell=print):
    found = runs.find(Model(name=str(name)))
    step = runs.step(found, which, tell)
    model = runs.read(found, "float32", jax.random.key(0), mesh, step=step)
    return step, model


def same(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("mark", "which", "step"),
    [("", "latest", 3), ("", "best", 2), ("", "1", 1), ("@1", "best", 1)],
)
def test_the_checkpoint_that_is_meant_is_loaded(plain, mark, which, step):
    folder, params = plain
    found, model = policy(f"{folder}{mark}", which)
    assert found == step
    expected = jax.tree.map(lambda x: x + np.float32(0.1), params[step - 1])
    assert (
        same(model.params, expected) and model.spec == runs.find(PLAIN.model).base.spec
    )


def test_the_latest_is_the_best_where_none_was_examined(tmp_path):
    written(tmp_path, dataclasses.replace(PLAIN, keep=config.Keep()), [None, None])
    assert runs.step(runs.find(Model(name=str(tmp_path))), "best", print) == 2


def test_a_critic_on_the_same_trunk_is_left_behind(tmp_path):
    settings = dataclasses.replace(ADAPTED, model=PLAIN.model)
    _, trained = written(tmp_path, settings, [None])
    assert trained.pop("head") and same(policy(tmp_path)[1].params, trained)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_reward_model_is_read_with_its_head_alone(adapted, tmp_path):
    """Without what an untied model says tokens by; also where adapters learned."""
    settings = dataclasses.replace(
        PLAIN,
        stages=("reward",),
        algorithm=config.Algorithm(),
        sampling=config.Sampling(),
        model=dataclasses.replace(PLAIN.model, lora=ADAPTED.model.lora)
        if adapted
        else PLAIN.model,
    )
    spec = dataclasses.replace(runs.find(PLAIN.model).base.spec, tied=False)
    ((begun,), left) = written(tmp_path, settings, [None], spec=spec, has_head=True)
    found = runs.find(Model(name=str(tmp_path)), "reward")
    found = found._replace(base=found.base._replace(spec=spec))
    params = runs.read(found, "float32", jax.random.key(0), step=1).params
    assert "unembed" in begun and begun.keys() - params.keys() == {"unembed"}
    assert same(params["head"], left["head"])
    assert same(params, left) or adapted


def test_adapters_are_multiplied_out(tmp_path):
    (params,), adapters = written(tmp_path, ADAPTED, [None])
    _, model = policy(tmp_path)
    merged = lora.merge(params, adapters, ADAPTED.model.lora)
    for a, b in zip(*map(jax.tree.leaves, (model.params, merged)), strict=True):
        np.testing.assert_allclose(a, b, 1e-6, 1e-6)
    assert not same(model.params["layers"]["wd"], params["layers"]["wd"])
    assert same(model.params["layers"]["wk"], params["layers"]["wk"])


def test_parameters_lie_on_the_mesh_that_is_given(plain):
    folder, _ = plain
    mesh = sharding.mesh(1, 2, 2)
    _, alone = policy(folder)
    _, spread = policy(folder, mesh=mesh)
    assert same(alone.params, spread.params)
    layout, _ = sharding.of_params(transformer.abstract(alone.spec), mesh)
    placed = jax.tree.map(lambda x: x.sharding, spread.params)
    assert jax.tree.leaves(placed) == jax.tree.leaves(layout)


def test_a_damaged_checkpoint_is_told_and_not_loaded(tmp_path):
    written(tmp_path, PLAIN, [None, None])
    (tmp_path / "digests/2.json").unlink()
    told = []
    step, _ = policy(tmp_path, tell=told.append)
    assert step == 1
    assert told == [f"{tmp_path}: checkpoint 2 is not used: it was not completed"]
    with pytest.raises(Refused, match=r"no whole checkpoint 2; there are 1, 2\. Give"):
        policy(tmp_path, "2")


def test_a_run_of_another_model_than_its_settings_say_is_refused(tmp_path):
    written(tmp_path, PLAIN, [None])
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"width": 16', '"width": 32'))
    with pytest.raises(Refused, match=r"the policy in .* is of another model"):
        policy(tmp_path)


def test_reading_leaves_alone_what_is_being_written(tmp_path):
    written(tmp_path, PLAIN, [None])
    under_way = tmp_path / "checkpoints/2.orbax-checkpoint-tmp"
    under_way.mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert policy(tmp_path)[0] == 1 and sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_checkpoints_is_refused_and_none_is_made(tmp_path):
    workdir.settle(tmp_path, {"config": dataclasses.asdict(PLAIN)}, ())
    with pytest.raises(Refused, match="a run without checkpoints yet"):
        policy(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"config": 3}', '{"model_type": "x"}'])
def test_what_is_no_runs_folder_is_taken_for_a_model(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Refused):
        runs.find(Model(name=str(tmp_path)))


def test_settings_come_back_from_json_as_they_were():
    for settings in (PLAIN, ADAPTED, config.Config(stages=("sft", "online"))):
        text = json.dumps(dataclasses.asdict(settings))
        assert config.of(json.loads(text)) == settings


def test_settings_of_another_version():
    assert config.of({"data": {"size": 3}}) == config.Config(data=config.Data(size=3))
    with pytest.raises(Refused, match=r"data\.colour is no setting of this version"):
        config.of({"data": {"colour": "red"}})
    with pytest.raises(Refused, match=r"data\.size is 0; it must be positive"):
        config.of({"data": {"size": 0}})


def test_a_run_is_sampled_converted_and_described(plain, tmp_path, capsys):
    folder, params = plain
    assert cli.main(["sample", str(folder), "2+3=", "--max-new", "2"]) == 0
    assert cli.main(["models", str(folder)]) == 0
    assert "width = 16" in capsys.readouterr().out
    assert cli.main(["convert", f"{folder}@best", str(tmp_path / "out")]) == 0
    again = load.load(Model(name=str(tmp_path / "out")), jax.random.key(0))
    expected = jax.tree.map(lambda x: x + np.float32(0.1), params[1])
    assert same(again.params, expected)


def test_a_run_is_asked_as_it_was_trained(plain):
    from grpo_jax import model_commands

    found = runs.find(Model(name=str(plain[0])))
    data = dataclasses.replace(found.settings.data, wrapping="paper")
    put = dataclasses.replace(found.settings, data=data)
    found = found._replace(settings=put)
    tell = lambda **way: bytes(model_commands._question(found, "2+3=", **way))  # noqa: E731
    assert tell(chat=False, raw=False) == b"User: 2+3=\n\nAssistant:"
    assert tell(chat=False, raw=True) == b"2+3="
    assert tell(chat=True, raw=False) == b"2+3=\n"
