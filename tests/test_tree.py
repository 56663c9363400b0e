"""Rules by path, and settings as trees."""

import jax
import jax.numpy as jnp
import pytest

from grpo_jax import config, tree
from grpo_jax.section import Refused

PARAMS = {"embed": 0, "layers": {"wq": 1, "wo": 2, "norm": 3}, "final_norm": 4}


def test_paths_are_readable():
    assert tree.paths(PARAMS)["layers"]["wq"] == "layers/wq"
    assert tree.paths({"a": [5, 6]}) == {"a": ["a/0", "a/1"]}


def test_the_first_rule_that_matches_wins():
    rules = [
        (r"^layers/wq$", "q"),
        (r"^layers/w", "w"),
        (r"norm$", "n"),
        ("embed", "e"),
    ]
    assert tree.match(rules, PARAMS) == {
        "embed": "e",
        "layers": {"wq": "q", "wo": "w", "norm": "n"},
        "final_norm": "n",
    }


def test_none_and_containers_may_be_values():
    assert tree.match([("a", None)], {"a": 1}) == {"a": None}
    assert tree.match([("a", (1, 2))], {"a": 1}) == {"a": (1, 2)}


def test_every_path_without_a_rule_is_listed():
    with pytest.raises(
        Refused, match=r"no rule matches final_norm, layers/norm; .*embed"
    ):
        tree.match([("embed", 1), (r"/w[qo]$", 2)], PARAMS)
    with pytest.raises(Refused, match="the rules are: none"):
        tree.match([], PARAMS)


def test_floats_of_settings_are_leaves_and_choices_are_structure():
    made = config.Algorithm(beta=0.25, surrogate="vespo", gamma_positive=(2.0, 4.0))
    leaves = jax.tree.leaves(made)
    assert 0.25 in leaves and 4.0 in leaves and 8 not in leaves
    assert "vespo" not in leaves and None not in leaves
    doubled = jax.tree.map(lambda x: 2 * x, made)
    assert doubled.beta == 0.5 and doubled.surrogate == "vespo"
    assert doubled.kl.log_limit == 40.0 and doubled.advantage.eps == 2e-6


def test_a_program_is_traced_again_for_a_choice_and_not_for_a_number():
    traces = []

    @jax.jit
    def f(settings):
        traces.append(settings.surrogate)
        return settings.beta + settings.kl.horizon

    assert jnp.isclose(f(config.Algorithm(beta=0.5)), 10000.5)
    f(config.Algorithm(beta=0.25, clip_low=0.1))
    assert len(traces) == 1
    f(config.Algorithm(surrogate="sapo"))
    f(config.Algorithm(ratio_max=3.0))
    assert len(traces) == 3


def test_settings_survive_vmap_over_their_numbers():
    betas = jnp.array([0.1, 0.2])
    settings = jax.tree.map(jnp.asarray, config.Algorithm())
    many = jax.vmap(lambda b: jax.tree.map(lambda x: x * b, settings).clip_low)(betas)
    assert jnp.allclose(many, 0.2 * betas)
