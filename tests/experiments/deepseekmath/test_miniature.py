"""What the figures have in common."""

import pytest

from grpo_jax import experiment

miniature = experiment.load("experiments/deepseekmath/miniature.py")


@pytest.mark.parametrize("said", ["12", "13"])
def test_noise_turns_a_share_of_what_is_right_and_of_what_is_wrong(said):
    text = f"7+5=12\n\\boxed{{{said}}}"
    for name, share in (("noisy", 0.29), ("noisier", 0.4)):
        reward = miniature.REWARDS[name]
        found = [reward(f"question {i}", text, "12") for i in range(4000)]
        turned = sum(x != (said == "12") for x in found) / 4000
        assert turned == pytest.approx(share, abs=0.03)  # four deviations
        assert found[:9] == [reward(f"question {i}", text, "12") for i in range(9)]
