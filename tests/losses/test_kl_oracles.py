"""KL estimators and the controller against verl: value and gradient."""

import jax
import jax.numpy as jnp

from grpo_jax import config
from grpo_jax.losses import kl
from tests import oracle


@oracle.cases("kl")
def test_value_and_gradient(case, dtype, float64):
    options, x = case["options"], oracle.arrays(case, dtype)
    settings = config.KL(
        estimator=options["estimator"],
        gradient="straight_through" if options["gradient"] == "k2" else "own",
        log_limit=options["log_clamp"] and options["log_clamp"][1],
        limit=options["value_clamp"] and options["value_clamp"][1],
    )

    def total(logp):
        value = kl.estimate(settings, logp, x["ref_logp"], jnp.ones_like(logp))
        return value.sum(), value

    grad, value = jax.grad(total, has_aux=True)(x["logp"])
    oracle.assert_close(value[0], case["expected"]["value"], dtype)
    oracle.assert_close(grad[0], case["expected"]["grad_logp"], dtype)


@oracle.cases("kl_controller")
def test_controller(case, dtype, float64):
    options = case["options"]
    settings = config.KL(target=options["target"], horizon=options["horizon"])
    beta = jnp.asarray(options["initial"], dtype)
    for measured, expected in zip(
        case["inputs"]["kl"], case["expected"]["coef"], strict=True
    ):
        beta = kl.next_beta(
            settings, beta, jnp.asarray(measured, dtype), case["inputs"]["n"]
        )
        oracle.assert_close(beta, expected, dtype)
