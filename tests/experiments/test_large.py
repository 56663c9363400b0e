"""Experiments that no machine here could run: all their programs are lowered, for the
models that they name; and those that compare themselves with the quickstart."""

import dataclasses

import jax
import pytest

from grpo_jax import config, experiment, learner, plan, pool, sharding
from grpo_jax.models import sizes

LARGE = {"gsm8k": "qwen2.5-0.5b", "math_cot": "deepseek-math-7b"}


def of(name):
    return experiment.load(f"experiments/{name}.py").get_config()


@pytest.mark.parametrize("name", LARGE)
def test_every_program_of_it_is_lowered(name):
    chosen, spec = of(name), sizes.SPECS[LARGE[name]]
    assert LARGE[name] in chosen.model.name.lower()
    assert chosen.sampling.max_prompt + chosen.sampling.max_new <= spec.max_length
    mesh = sharding.of_axes(chosen.training.mesh)
    G, dtype = chosen.algorithm.group_size, chosen.model.numerics.compute
    known = G, (0,), spec.vocab, chosen.model.numerics, mesh
    sampler = pool.Sampler(spec, chosen.sampling, *known)
    asked = chosen.training.batch_size, chosen.sampling.max_prompt
    size = plan.Size(*asked, chosen.sampling.max_new)
    run = learner.make(spec, chosen, chosen.training.steps, mesh)
    lowered = dict(plan.sampling(sampler, dtype, *asked)) | dict(
        plan.learning(run, size)
    )
    rollout = {"prefill", "decode", "decode fewer", "grow"}
    assert lowered.keys() == rollout | {"score", "update"}
    assert all(isinstance(x, jax.stages.Lowered) for x in lowered.values())


def test_the_paper_s_own_numbers():
    chosen = of("math_cot")
    assert chosen.algorithm == config.Algorithm(group_size=64, beta=0.04)
    assert chosen.optimizer == config.Optimizer(learning_rate=1e-6)
    assert chosen.training.batch_size * chosen.algorithm.group_size == 1024
    assert chosen.sampling.max_new == 1024


@pytest.mark.parametrize("name", ["sft", "dpo", "ppo"])
def test_the_others_differ_from_the_quickstart_in_how_they_learn_alone(name):
    ours, base = map(dataclasses.asdict, (of(name), of("quickstart")))
    same = "seed", "model", "data", "sampling", "rewards", "evaluation"
    assert {k: ours[k] for k in same} == {k: base[k] for k in same}
    assert ours["stages"] != base["stages"] or ours["algorithm"] != base["algorithm"]


def test_ppo_draws_as_many_samples():
    ours, base = of("ppo"), of("quickstart")
    count = lambda c: c.training.batch_size * c.algorithm.group_size  # noqa: E731
    assert count(ours) == count(base) and ours.training.steps == base.training.steps
