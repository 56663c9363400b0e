"""The critic's clipped loss against verl."""

import jax

from grpo_jax.losses import statistics, value
from tests import oracle


@oracle.cases("value_loss")
def test_loss_gradient_and_clip_fraction(case, dtype, float64):
    x = oracle.arrays(case, dtype)

    def loss(v):
        return value.value_loss(
            v,
            x["old_value"],
            x["returns"],
            x["mask"],
            clip=case["options"]["clip"],
            token_weight=1 / x["mask"].sum(),
        )

    (got, measured), grad = jax.value_and_grad(loss, has_aux=True)(x["value"])
    oracle.assert_close(got, case["expected"]["loss"], dtype)
    oracle.assert_close(grad[0], case["expected"]["grad_value"], dtype)
    share = statistics.values(measured)["value/clipped"]
    assert abs(share - case["expected"]["metrics"]["clip_fraction"]) < 1e-6
