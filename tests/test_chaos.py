"""Each way of learning, killed once (see `chaos`, which does it more often)."""

import random

import pytest

from tests import chaos

# Rounds go through SFT, GRPO and the stage reward, one after another.
METHODS = [name for name in chaos.METHODS if name not in ("sft", "grpo", "reward")]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(method, tmp_path):
    assert chaos.torment(method, 1, random.Random(method), tmp_path) >= 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moments") / "whole"
    return folder, chaos.start("grpo", folder)


@pytest.mark.slow
@pytest.mark.parametrize("events", chaos.EVENTS, ids=" ".join)
def test_a_run_may_be_killed_at_any_kind_of_moment(events, whole):
    expected, found = whole
    folder = expected.with_name(events[0])
    for event in events:
        assert chaos.start("grpo", folder, event) is None, event
    assert chaos.start("grpo", folder)["params"] == found["params"]
    assert chaos.left(folder) == chaos.left(expected)
