"""Each way of learning, killed once (see `chaos`, which does it more often)."""

import random

import pytest

from tests import chaos


@pytest.mark.slow
@pytest.mark.parametrize("method", chaos.METHODS)
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(method, tmp_path):
    assert chaos.torment(method, 1, random.Random(method), tmp_path) >= 1
