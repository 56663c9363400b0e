"""Attention of queries to the segments in view, and how positions enter it.

A query sees the keys at its own position and before, so the same rule serves training,
prefill and decoding, whatever the padding.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Rope, Spec


def at_least(numerics: Numerics, dtype: str) -> jnp.dtype:
    """The wider of that and the precision of products."""
    return jnp.promote_types(dtype, numerics.compute)


def rotation(rope: Rope, spec: Spec, position: Array, numerics: Numerics):
    """cos and sin [B, G, T, 1, H/2] of every position."""
    dtype = at_least(numerics, numerics.norm)
    frequency = jnp.asarray(rope.frequencies(spec.head_size), dtype)
    angle = position[..., None, None].astype(dtype) * frequency.reshape(1, 1, 1, 1, -1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return cos * rope.attention_factor, sin * rope.attention_factor


def rotate(x: Array, rotation) -> Array:
    """Turns each pair (x_i, x_{i+H/2}) by its position's angle."""
    cos, sin = rotation
    a, b = jnp.split(x.astype(cos.dtype), 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def visible(spec: Spec, query: Array, key: Array, is_token: Array, part: Array | None):
    """The keys each query sees, [B, (G or 1), T, S]: in full and in sliding layers.

    Of its own tokens a query sees those of its `part` only.
    """
    if key.ndim == 2:  # the question's, shared by its group
        key, is_token, part = key[:, None], is_token[:, None], None
    back = query[..., :, None] - key[..., None, :]
    full = is_token[..., None, :] & (back >= 0)
    if part is not None:
        full &= part[..., :, None] == part[..., None, :]
    return full, full & (back < spec.window) if spec.window else full


def attend(spec: Spec, numerics: Numerics, q: Array, stored, masks) -> Array:
    """One softmax over all segments; keys without a G axis serve a whole group.

    Scores of such keys stand as [B, K, G, T, R, S], of others as [B, G, K, T, R, S]:
    what the products give, so that no cache and no table of scores is transposed.
    """
    dtype = at_least(numerics, numerics.softmax)
    q = q * jnp.asarray(spec.query_scale, q.dtype)
    q = q.reshape(*q.shape[:3], spec.kv_heads, -1, spec.head_size)
    lowest = jnp.finfo(dtype).min
    scores = []
    for (key, _), mask in zip(stored, masks, strict=True):
        is_shared = key.ndim == 4
        product = jnp.einsum(
            "bgtkrh,bkhs->bkgtrs" if is_shared else "bgtkrh,bgkhs->bgktrs",
            q,
            key.astype(q.dtype),
            preferred_element_type=dtype,
        )
        product = softcap(product, spec.attention_softcap)
        mask = jnp.expand_dims(mask, (1, 4) if is_shared else (2, 4))
        scores.append(jnp.where(mask, product, lowest))
    # What all segments share stands as [B, G, K, T, R].
    turns = [_turned if key.ndim == 4 else _as_it_is for key, _ in stored]
    tops = [turn(x.max(-1)) for turn, x in zip(turns, scores, strict=True)]
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, tops))
    powers = [
        jnp.exp(x - turn(top)[..., None]) for turn, x in zip(turns, scores, strict=True)
    ]
    total = sum(turn(x.sum(-1)) for turn, x in zip(turns, powers, strict=True))
    out = 0.0
    for turn, (_, value), power in zip(turns, stored, powers, strict=True):
        product = jnp.einsum(
            "bkgtrs,bksh->bkgtrh" if value.ndim == 4 else "bgktrs,bgksh->bgktrh",
            power.astype(q.dtype),
            value.astype(q.dtype),
            preferred_element_type=dtype,
        )
        out += turn(product)
    out = jnp.moveaxis(out / total[..., None], 2, 3).astype(q.dtype)
    return out.reshape(*out.shape[:3], spec.heads, spec.head_size)


def _turned(x: Array) -> Array:
    """[B, K, G, ...] ↔ [B, G, K, ...]."""
    return jnp.swapaxes(x, 1, 2)


def _as_it_is(x: Array) -> Array:
    return x


def softcap(x: Array, cap: float | None) -> Array:
    return x if cap is None else cap * jnp.tanh(x / cap)
