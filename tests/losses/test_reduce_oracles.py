"""Reductions against verl, whole and as one of two equal shares."""

import jax
import jax.numpy as jnp

from grpo_jax import config
from grpo_jax.losses import reduce
from tests import oracle
from tests.losses.test_objective_oracles import LOSS_MEAN


@oracle.cases("reduce")
def test_loss_and_gradient(case, dtype, float64):
    options, x = case["options"], oracle.arrays(case, dtype)
    settings = config.Algorithm(
        loss_mean=LOSS_MEAN[options["reduce"]],
        loss_constant=options["constant"],
        empty_rows=options["empty_rows"] or "counted",
    )
    mask = x["mask"]
    # A share of two: the other one has the same numbers of tokens and rows.
    whole = jnp.concatenate([mask] * options["parts"], 1)
    weight = reduce.row_weights(
        settings,
        whole,
        jnp.ones(whole.shape[:2], bool),
        rollout_tokens=whole.sum(),
        parts=1,
    )[:, : mask.shape[1]]
    if options["global_tokens"]:
        assert int(whole.sum()) == options["global_tokens"]

    def loss(x):
        return reduce.weighted_sum(x, mask, weight) * options["parts"]

    value, grad = jax.value_and_grad(loss)(x["loss"])
    # verl multiplies its plain sum by the shares too, and adds 1e-8 to its counts.
    dtype = "float32" if options["count_eps"] else dtype
    oracle.assert_close(value, case["expected"]["loss"], dtype)
    oracle.assert_close(grad[0], case["expected"]["grad_loss"], dtype)
