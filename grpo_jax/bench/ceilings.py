"""What this machine can do at most, measured beside what is compared with it."""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from grpo_jax import programs
from grpo_jax.models import transformer
from grpo_jax.models.spec import Spec


def seconds(runs: int, function: Callable) -> float:
    """Median of several runs, after one that compiles."""
    jax.block_until_ready(function())
    measured = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(function())
        measured.append(time.perf_counter() - start)
    return statistics.median(measured)


def matmul(runs: int, dtype: str, size: int = 2048) -> float:
    """Operations a second in a large product of two matrices."""
    x = jnp.ones((size, size), dtype)
    program = programs.forward(lambda x: x @ x)
    return 2 * size**3 / seconds(runs, lambda: program(x))


def bandwidth(runs: int, size: int = 2**27) -> float:
    """Bytes a second in reading an array that no cache holds."""
    x = jnp.ones(size, "float32")
    program = programs.forward(lambda x: x.sum())
    return x.nbytes / seconds(runs, lambda: program(x))


def products(
    runs: int, spec: Spec, params: transformer.Params, rows: int, steps: int
) -> float:
    """Seconds of the matrix products of so many decoding steps, and nothing else."""
    x = jnp.ones((rows, spec.width), params["embed"].dtype)
    program = programs.forward(_products, static_argnames=("spec", "steps"))
    return seconds(runs, lambda: program(spec, params, x, steps))


def _products(spec: Spec, params, x, steps: int):
    def step(_, x):
        for weights in params["layers"]:
            q, k, v = (jnp.tensordot(x, weights[f"w{name}"], 1) for name in "qkv")
            some = q.mean() + k.mean() + v.mean()
            x = x + jnp.tensordot(q, weights["wo"], 2) + some
            gate, up = (jnp.tensordot(x, weights[f"w{name}"], 1) for name in "gu")
            x = jnp.tensordot(gate + up, weights["wd"], 1) * 1e-3
        logits = jnp.einsum("bd,vd->bv", x, params[spec.unembedding])
        return x + logits.max(-1, keepdims=True) * 1e-3

    return jax.lax.fori_loop(0, steps, step, x)


def operations_a_token(spec: Spec, params: transformer.Params) -> int:
    """Of all its matrix products, without attention's own."""
    matrices = [
        x for layer in params["layers"] for n, x in layer.items() if n[0] == "w"
    ]
    matrices.append(params[spec.unembedding])
    return 2 * sum(x.size for x in matrices)


def bytes_a_step(
    spec: Spec, params: transformer.Params, prefixes: int, own: float, dtype: str
) -> float:
    """What a decoding step must read: parameters, keys and values.

    Of `prefixes` tokens of all questions, and `own` of all rows, as it is on average.
    """
    read = params["layers"], params["norm"], params[spec.unembedding]
    a_token = 2 * spec.layers * spec.kv_heads * spec.head_size
    stored = jnp.dtype(dtype).itemsize * a_token * (prefixes + own)
    return sum(x.nbytes for x in jax.tree.leaves(read)) + stored
