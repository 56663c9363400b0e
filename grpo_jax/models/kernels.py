"""Attention by fused kernels: splash attention on TPUs, cuDNN's on GPUs.

They compute what `attention.attend` does, and no table of scores is in memory. Their
keys are those of all segments one behind another: in attention alone a question's are
repeated for its group.

A kernel sees one device. On a mesh, that of `sharding.on_mesh`, each has its rows and
heads. Beside each kernel stands the same for other platforms, to be tested
there; which one a program has is decided when it is lowered, not by what is here.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from grpo_jax import sharding
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

TILE = 128  # queries or keys: blocks are a multiple
LARGEST = 512  # block of queries or keys


def serves_bins(numerics: Numerics) -> bool:
    """Whether rows may share a bin: a splash mask is the same for all rows."""
    return numerics.attention != "splash"


def need_served(spec: Spec, numerics: Numerics, *, has_bins: bool):
    """Refuses what the kernel cannot compute."""
    window, cap, size = spec.window, spec.attention_softcap, spec.head_size
    fits = size % 8 == 0 and size <= 256
    apart = serves_bins(numerics) or not has_bins
    rules = {
        "xla": [],
        "splash": [
            (not window, f"it has no sliding windows, and spec.window is {window}"),
            (apart, "it cannot keep apart the rows of a bin, and there are bins"),
            (not jax.config.jax_enable_x64, "it does not run under JAX_ENABLE_X64"),
        ],
        "cudnn": [
            (cap is None, f"it has no softcap, and spec.attention_softcap is {cap}"),
            (fits, f"it has heads of 8, 16, ... 256, and spec.head_size is {size}"),
        ],
    }
    for holds, reason in rules[numerics.attention]:
        if not holds:
            raise Refused(
                f"model.numerics.attention is {numerics.attention!r}; {reason}. "
                "Leave it at 'xla'."
            )


def attend(spec: Spec, numerics: Numerics, q: Array, stored, masks, is_token) -> Array:
    """As `attention.attend`, told besides which keys of each segment are tokens.

    On a mesh, rows are cut over data and fsdp, and heads over model; what these do not
    divide is computed whole on each device.
    """
    kernel = {"splash": _splash, "cudnn": _cudnn}[numerics.attention]
    kernel = functools.partial(kernel, spec, numerics)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel(q, stored, masks, is_token)
    rows = sharding.ROWS if len(q) % sharding.lanes(mesh) == 0 else None
    heads = "model" if spec.kv_heads % mesh.shape["model"] == 0 else None
    queries, own = P(rows, None, None, heads), P(rows, None, heads)
    keys = [P(rows, heads) if key.ndim == 4 else own for key, _ in stored]
    on_each = jax.shard_map(
        kernel,
        in_specs=(queries, keys, P(rows), P(rows)),
        out_specs=queries,
        check_vma=False,  # a kernel does not say along which axes its results vary
    )
    return on_each(q, stored, masks, is_token)


def _cudnn(spec, numerics, q, stored, masks, is_token) -> Array:
    """cuDNN adds the mask to the scores, one for all heads: so any will do.

    Keys come in whole tiles: in half a tile at the end its backward pass may make NaN
    (pytorch issue 196678). Gradients beside a mask are there for even lengths only.
    """
    T, S = q.shape[2], sum(key.shape[-1] for key, _ in stored)
    queries, columns = T + T % 2, S + -S % TILE
    key, value = (_filled(jnp.moveaxis(x, 1, 2), 1, columns) for x in _joined(stored))
    mask = _filled(_filled(_behind(masks, -1), 1, queries), 2, columns)[:, None]
    given = _filled(_rows(q), 1, queries), key, value, None, mask
    by = functools.partial(jax.nn.dot_product_attention, scale=spec.query_scale)
    fused, plain = (functools.partial(by, implementation=x) for x in ("cudnn", "xla"))
    if _has_cudnn():
        out = jax.lax.platform_dependent(*given, cuda=fused, default=plain)
    else:  # so that lowering for CUDA fails
        out = jax.lax.platform_dependent(*given, cpu=plain, tpu=plain)
    return out[:, :T].reshape(q.shape)


def _has_cudnn() -> bool:
    """Whether it is installed: without it JAX does not even trace a call."""
    x = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
    call = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    try:
        jax.eval_shape(call, x, x, x)
    except RuntimeError:
        return False
    return True


def _splash(spec, numerics, q, stored, masks, is_token) -> Array:
    """Causal, with the question before the row; and padding sees padding alone.

    So every query sees its own key, if what fills up the last block stands at the end.
    """
    T, S = q.shape[2], sum(key.shape[-1] for key, _ in stored)
    block_q, queries = _blocks(T)
    block_kv, columns = _blocks(S - T + queries)
    scaled = _rows(q * jnp.asarray(spec.query_scale, q.dtype)).swapaxes(1, 2)
    key, value = (_filled(x, 2, columns) for x in _joined(stored))
    of_key = _filled(_behind(is_token, -1).astype(jnp.int32), 1, columns)
    of_query = of_key[:, S - T : S - T + queries]
    mask = splash_attention.CausalMask((queries, columns), S - T)
    sizes = splash_attention.BlockSizes(
        **{f"block_q{of}": block_q for of in ("", "_dkv", "_dq")},
        **{f"block_kv{of}": block_kv for of in ("", "_dkv", "_dq")},
    )

    def by(interpret: bool, q, key, value, of_query, of_key):
        kernel = splash_attention.make_splash_mha_single_device(
            splash_attention.MultiHeadMask([mask] * q.shape[1]),
            block_sizes=sizes,
            attn_logits_soft_cap=spec.attention_softcap,
            interpret=interpret,
        )
        ids = splash_attention.SegmentIds(of_query, of_key)
        return jax.vmap(kernel)(q, key, value, ids)

    fused, plain = (functools.partial(by, interpret) for interpret in (False, True))
    on_any = functools.partial(jax.lax.platform_dependent, tpu=fused, default=plain)
    # Rounded numbers have no more bits to multiply.
    products = numerics.products if q.dtype == jnp.float32 else "default"
    given = _filled(scaled, 2, queries), key, value, of_query, of_key
    out = _in_precision(on_any, products)(*given)[:, :, :T]
    return out.swapaxes(1, 2).reshape(q.shape)


def _in_precision(function: Callable, products: str) -> Callable:
    """With products in this precision, also when it is traced to go backward.

    A context around the call is no longer there then.
    """
    inside = jax.default_matmul_precision(products)
    call = jax.custom_vjp(inside(function))
    call.defvjp(
        inside(lambda *given: jax.vjp(function, *given)),
        inside(lambda pull, slope: pull(slope)),
    )
    return call


def _blocks(length: int) -> tuple[int, int]:
    """The size of equal blocks for so many, and what they are together."""
    count = -(-length // LARGEST)
    size = -(-length // (count * TILE)) * TILE
    return size, size * count


def _joined(stored) -> tuple[Array, Array]:
    """Keys and values of all segments, [B·G, K, S, H]."""
    keys, values = zip(*stored, strict=True)
    return _behind(keys, -1).swapaxes(-1, -2), _behind(values, -2)


def _behind(parts, axis: int) -> Array:
    """Segments one behind another, [B·G, ...]; the question's may lack a G axis."""
    *_, own = parts
    parts = [x if x.ndim == own.ndim else x[:, None] for x in parts]
    parts = [jnp.broadcast_to(x, (*own.shape[:2], *x.shape[2:])) for x in parts]
    return _rows(jnp.concatenate(parts, axis))


def _rows(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _filled(x: Array, axis: int, length: int) -> Array:
    """With zeros at the end."""
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, padding)
