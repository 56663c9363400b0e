"""What only a GPU can show: JAX_PLATFORMS=cuda python -m pytest -m gpu -n 0."""

import random

import jax
import jax.numpy as jnp
import pytest

from tests import chaos, runs, test_online_run


@pytest.mark.gpu
def test_a_run_copies_in_the_two_stated_ways_alone(tmp_path):
    """The guard of its steps sees copies to the host here, which it does not on CPUs."""
    x = jnp.ones(())
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="transfer"):
        float(x)
    runs.train(
        test_online_run.SETTINGS, tmp_path, rewards={"even": test_online_run.even}
    )
    assert [row["step"] for row in runs.rows(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.gpu
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    """Bit for bit, with training.deterministic."""
    assert chaos.torment("grpo", 3, random.Random(0), tmp_path) >= 1
