"""Advantages against verl, ragged groups included."""

import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import algorithm, config
from grpo_jax.advantages import estimate, tokens
from grpo_jax.records import Rewards
from tests import oracle

ESTIMATOR = {
    "group_mean": "mean",
    "length_weighted_mean": "length_weighted",
    "given_baseline": "given",
    "discounted_return": "none",
}


def settings_of(options):
    scale = "group" if options["divide_by_std"] else "none"
    spread = {"ddof": options["ddof"], "eps": options["eps"]}
    if options.get("scale"):
        scale = "nonzero"
    if options["whiten"]:
        spread = {"ddof": options["whiten_ddof"], "eps": options["whiten_eps"]}
        spread |= {"eps_at": "under_root", "whiten": "tokens"}
    if options["group_of_one"] == "error":
        options = options | {"group_of_one": "zero"}
    estimator = ESTIMATOR.get(options["estimator"], options["estimator"])
    if estimator in algorithm.CENTRED:
        spread["group_of_one"] = options["group_of_one"]
    return config.Algorithm(
        advantage=config.Advantage(
            estimator=estimator,
            scale_rewards=scale,
            gamma=options["gamma"],
            group_by="group" if estimator in algorithm.COMPARING else "question",
            **{k: v for k, v in spread.items() if v is not None},
        )
    )


@oracle.cases("advantage")
def test_advantage(case, dtype, float64):
    options, inputs = case["options"], case["inputs"]
    expected = np.array(case["expected"]["advantage"])
    # Their groups are ragged: one question per row, pooled by the group's label.
    reward = jnp.asarray(inputs["reward"], dtype)[:, None, None]
    length = jnp.array(inputs["length"])[:, None, None]
    mask = jnp.arange(expected.shape[1])[None, None] < length
    labels = {"group": jnp.array([ord(label) for label in inputs["group"]])}
    baseline = jnp.asarray(inputs.get("baseline", np.zeros(len(mask))), dtype)
    rewards = Rewards(reward, mask, mask.any(-1), baseline=baseline, columns=labels)
    settings = settings_of(options)
    got = estimate.estimate(settings, rewards, beta=0.0).advantage[:, 0]
    # verl's whitening adds 1e-8 to its counts.
    oracle.assert_close(got, expected, "float32" if options["whiten"] else dtype)


@oracle.cases("gae")
def test_generalized_advantage_with_holes_in_the_mask(case, dtype, float64):
    options, x = case["options"], oracle.arrays(case, dtype)
    mask = x["mask"]
    reward, value = x["reward"][0], x["value"][0]
    rows = [
        tokens.generalized_advantage(
            reward[i], value[i], mask[0, i], options["gamma"], options["lam"]
        )
        for i in range(2)
    ]
    advantage, returns = (jnp.stack(z) for z in zip(*rows, strict=True))
    settings = config.Advantage(ddof=1, eps=1e-8, eps_at="under_root", whiten="tokens")
    whitened = tokens.whiten(advantage, mask[0], settings)
    where = np.array(mask[0])
    expected = {k: np.array(v)[where] for k, v in case["expected"].items()}
    oracle.assert_close(whitened[where], expected["advantage"], "float32")
    oracle.assert_close(returns[where], expected["returns"], dtype)
    assert not np.any(np.array(advantage)[~where])


@oracle.cases("whiten")
def test_whiten(case, dtype, float64):
    x = oracle.arrays(case, dtype)
    settings = config.Advantage(ddof=1, eps=1e-8, eps_at="under_root", whiten="tokens")
    got = tokens.whiten(x["x"][0], x["mask"][0], settings)
    where = np.array(x["mask"][0])
    expected = np.array(case["expected"]["value"])
    oracle.assert_close(got[where], expected[where], "float32")
    assert not np.any(np.array(got)[~where])


def test_every_kind_of_case_but_rewards_is_checked_somewhere():
    checked = {
        *("policy_loss", "kl", "kl_controller", "reduce", "value_loss"),
        *("sampler_weight", "rejection", "mismatch_metrics"),
        *("advantage", "gae", "whiten"),
    }
    kinds = {c["kind"] for c in oracle.CASES if c.get("match", True)}
    assert kinds == checked | {"reward"}
    with pytest.raises(AssertionError):
        oracle.cases("nothing")
