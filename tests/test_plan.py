"""Programs lowered for devices that are not here are those that a rollout runs."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys

import jax
import pytest

from grpo_jax import cli, learner, plan, pool, programs, sharding
from grpo_jax.models.memory import GIB
from grpo_jax.models.settings import Numerics
from grpo_jax.sampling.settings import Sampling
from tests import test_learner
from tests.models import examples

SPEC = examples.SPECS["qwen2"]


def sampler_on(mesh):
    chosen = Sampling(temperature=1.0, max_new=16, segment=16, cache="bfloat16")
    numerics = Numerics(compute="bfloat16")
    return pool.Sampler(SPEC, chosen, 4, (1, 2), SPEC.vocab, numerics, mesh)


class Noted:
    """Stands before a program and remembers what it is called, or lowered, with."""

    def __init__(self, program):
        self.program = program

    def __call__(self, *args, **fixed):
        self.args, self.fixed = jax.tree.leaves(args), fixed
        return self.program(*args, **fixed)

    def lower(self, *args, **fixed):
        self.args, self.fixed = jax.tree.leaves(args), fixed
        return self.program.lower(*args, **fixed)


@pytest.mark.parametrize("stops", [(1, 2), ()])
def test_the_plan_is_what_a_rollout_runs(stops, monkeypatch):
    """Same shapes, same places, same choices; the rollout itself is the reference."""
    sampler = sampler_on(sharding.mesh(2, 1, 2))._replace(stop_ids=stops)
    real = programs.decoding(sampler.spec, sampler.numerics, sampler.mesh)

    def noting(*_):
        return real._replace(prefill=Noted(real.prefill), segment=Noted(real.segment))

    planned = noting()
    monkeypatch.setattr(programs, "decoding", lambda *_: planned)
    ahead = plan.sampling(sampler, "bfloat16", 5, 20)
    assert [name for name, _ in itertools.islice(ahead, 2)] == ["prefill", "decode"]
    run = noting()
    monkeypatch.setattr(programs, "decoding", lambda *_: run)
    params = programs.publish(examples.params_of(SPEC), "bfloat16", sampler.mesh)
    asked = [pool.Question(i, [5] * 20) for i in range(5)]
    rollout = pool.Pool(sampler, params, asked, jax.random.key(0))
    rollout.arrange()
    rollout.dispatch()
    for name in ("prefill", "segment"):
        ahead, real = getattr(planned, name), getattr(run, name)
        assert ahead.fixed == real.fixed
        for a, b in zip(ahead.args, real.args, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


def test_bytes_of_a_device_by_hand():
    """Parameters are whole on each device, the rows' keys and values are cut."""
    sampler = sampler_on(sharding.mesh(4, 1, 1))
    planned = dict(plan.sampling(sampler, "bfloat16", questions=8, longest=33))
    found = plan.memory(planned["decode"].compile())
    parameters = sum(x.size for x in jax.tree.leaves(examples.params_of(SPEC)))
    token = SPEC.layers * 2 * SPEC.kv_heads * SPEC.head_size
    rows, questions, width = 8 * 4 / 4, 8 / 4, 48 - 1  # 33 tokens stand in 48
    expected = 2 * (parameters + token * (16 * rows + width * questions))
    assert expected == pytest.approx(found["arguments"] * GIB, rel=0.02)
    assert found["in all"] > found["arguments"] + 0.9 * found["temporary"]
    fewer = plan.memory(planned["decode fewer"].compile())
    assert fewer["temporary"] > found["temporary"]  # rows are picked out of all


@pytest.mark.parametrize("selects", [False, True])
def test_the_plan_is_what_a_learner_runs(selects, float64):
    chosen = test_learner.settings(
        2, minibatches=2, top_entropy=0.5 if selects else None
    )
    mesh = sharding.mesh(2, 1, 2)
    run = learner.make(test_learner.SPEC, chosen, 10, mesh)
    given = test_learner.rollout(lengths=(12, 12, 12, 12))
    planned = [Noted(run.programs.score), Noted(run.policy.update)]
    noting = run._replace(
        programs=run.programs._replace(score=planned[0]),
        policy=run.policy._replace(update=planned[1]),
    )
    width = given[0].question.shape[1]
    ahead = plan.learning(noting, plan.Size(test_learner.B, width, test_learner.C))
    assert [name for name, _ in ahead] == ["score", "update"]
    expected = [(program.args, program.fixed) for program in planned]
    params = examples.params_of(test_learner.SPEC)
    state = learner.begin(noting, programs.copy(params), jax.random.key(1))
    learner.learn(noting, state, *given, test_learner.key(), beta=0.04)
    for program, (args, fixed) in zip(planned, expected, strict=True):
        assert program.fixed == fixed
        for a, b in zip(args, program.args, strict=True):
            if not isinstance(a, int):
                assert a.shape == b.shape
                assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["v5e-9"], "'v5e-9' is not a machine known here"),
        (["h100"], "'h100' is not a machine known here"),
        (["h100x0"], "'h100x0' is not a machine known here"),
        (["v5e-8", "--model", "gpt-9"], "'gpt-9' is no model known by name"),
    ],
)
def test_what_is_refused(words, message, capsys):
    assert cli.main(["bench", "compile", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "package"),
    [("v5e-8", "libtpu"), ("v5p-8", "libtpu"), ("h100x8", "jax_cuda13_plugin")],
)
def test_a_run_compiles_for_a_machine_that_is_not_here(machine, package):
    """In a process of its own: a compiler may crash, and must not take pytest along."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package}, the compiler for {machine}, is not installed")
    size = ["--prompts", "16", "--group", "2", "--new", "16", "--prompt-tokens", "16"]
    size += ["--remat", "full"]
    words = ["bench", "compile", machine, "--model", "smollm2-135m", *size]
    quick = os.environ | {"JAX_EXEC_TIME_OPTIMIZATION_EFFORT": "-1.0"}
    done = subprocess.run(
        [sys.executable, "-m", "grpo_jax", *words],
        capture_output=True,
        text=True,
        env=quick,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["compiled"]
    found = {row["program"]: row for row in rows}
    # 134.5M parameters in bfloat16, and few keys and values
    decode, update = found["decode"], found["update"]
    assert 0.25 < decode["arguments_gib"] < decode["in_all_gib"] < 0.4
    # Parameters and two moments in float32, cut over all devices. A TPU lays them in
    # tiles of 128 columns: attention's matrices use 72 of each 128 (144 of 256).
    devices = 4 if machine == "v5p-8" else 8
    attention = 30 * 576 * (2 * 576 + 2 * 192)
    numbers = 134.5e6 + attention * (128 / 72 - 1)
    parameters = numbers * 12 / 2**30 / devices
    assert parameters == pytest.approx(update["arguments_gib"], rel=0.05)
    assert update["in_all_gib"] < 0.5 * update["room_gib"]
