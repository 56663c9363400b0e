"""Every compiled program: the one file that says jit.

Static arguments and donation stand here, side by side. Settings are pytrees (see
`tree.register_settings`): a program is traced in their floats and compiled anew for
their choices. A model's description and its numerics are static.
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from grpo_jax import sampling, scoring
from grpo_jax.models import transformer
from grpo_jax.models.spec import Spec

prefill = jax.jit(transformer.prefill, static_argnames=("spec", "numerics"))
# The cache is written in place: the one that was given is gone after the call.
step = jax.jit(
    sampling.step, static_argnames=("spec", "numerics"), donate_argnames="cache"
)
draw = jax.jit(sampling.draw)
# A stacked parameter is filled in place, layer after layer.
put_layer = jax.jit(
    lambda stacked, value, layer: stacked.at[layer].set(value),
    donate_argnames="stacked",
)
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


def init(spec: Spec, dtype: str, shardings: Any) -> Callable:
    """A function of a key to random parameters, made where they will be."""

    def create(key):
        params = transformer.init(spec, key)
        return jax.tree.map(lambda x: x.astype(dtype), params)

    return jax.jit(create, out_shardings=shardings)
