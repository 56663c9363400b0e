"""Every compiled program: the one file that says jit.

Static arguments and donation stand here, side by side. Settings are pytrees (see
`tree.register_settings`): a program is traced in their floats and compiled anew for
their choices. A model's description and its numerics are static.
"""

from collections.abc import Callable

import jax
import optax

from grpo_jax import sampling, scoring
from grpo_jax.models import transformer

prefill = jax.jit(transformer.prefill, static_argnames=("spec", "numerics"))
# The cache is written in place: the one that was given is gone after the call.
step = jax.jit(
    sampling.step, static_argnames=("spec", "numerics"), donate_argnames="cache"
)
draw = jax.jit(sampling.draw)
score = jax.jit(scoring.log_probs, static_argnames=("spec", "numerics", "with_entropy"))


def forward(function: Callable) -> Callable:
    """A function of parameters that leaves them where they are: sampling, scoring."""
    return jax.jit(function)


def update(loss: Callable, optimizer: optax.GradientTransformation) -> Callable:
    """One optimizer step on `loss(params, *batch) -> (value, statistics)`.

    Parameters and optimizer state are donated: the old ones are gone after the call.
    """

    def step(params, state, *batch):
        (_, measured), grads = jax.value_and_grad(loss, has_aux=True)(params, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, measured

    return jax.jit(step, donate_argnums=(0, 1))
