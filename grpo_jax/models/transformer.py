"""The decoder, for every family: three pure functions on a nested dict of arrays.

    init(spec, key) → params
    forward(spec, params, tokens[B,G,T], ...) → hidden[B,G,T,D], their keys and values
    unembed(spec, params, hidden) → logits

A question stands once: its keys and values are a `Segment` without a G axis, which all
samples of its group attend to. Attention is one softmax over the segments in view, each
with its own mask: the prefix (the question), the cache (what was decoded before), and
the tokens of this call. A query sees the keys at its own position and before, so the
same rule serves training, prefill and decoding, whatever the padding.

The only file that uses Linen. Layers are stacked on axis 0 and scanned; or, to decode,
they stand apart, `params["layers"]` being a tuple, and follow one another in the
program: a scan would copy each layer's parameters and keys for every token.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key

from grpo_jax import sharding
from grpo_jax.models import attention, kernels
from grpo_jax.models.settings import Numerics
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

Params = dict[str, Any]
# Of all layers: stacked, or one array for each if the layers stand apart.
Keys = Float[Array, "L ... K H S"] | tuple[Float[Array, "... K H S"], ...]
Values = Float[Array, "L ... K S H"] | tuple[Float[Array, "... K S H"], ...]
APART = "layer_"  # and a number: the name of a layer that stands apart


class Segment(NamedTuple):
    """Keys and values of tokens that queries may look at; `...` is B, or B G."""

    key: Keys
    value: Values
    position: Int[Array, "... S"]
    is_token: Bool[Array, "... S"]  # False: padding, or not written yet


class Bins(NamedTuple):
    """Several short rows one behind another: B is then bins, in lanes, and G is 1."""

    question: Int[Array, "lanes N"]  # of the lane's, whose prefix the bin looks at
    row: Int[Array, "B 1 T"]  # a token sees its own row only


def init(spec: Spec, key: Key[Array, ""]) -> Params:
    """Random parameters in float32: normal, 1/√fan-in, outputs of layers smaller."""
    tokens = jnp.zeros((1, 1, 1), int)
    return _Decoder(spec, Numerics()).init(key, tokens, tokens, tokens == 0)["params"]


def abstract(spec: Spec, dtype: str = "float32") -> Params:
    """The shapes of the parameters, without the parameters."""
    tree = jax.eval_shape(lambda: init(spec, jax.random.key(0)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), tree)


def forward(
    spec: Spec,
    params: Params,
    tokens: Int[Array, "B G T"],
    position: Int[Array, "B G T"],
    is_token: Bool[Array, "B G T"],
    prefix: Segment | None = None,  # of the questions, keys [L, B, K, H, P]
    cache: Segment | None = None,  # of these rows, keys [L, B, G, K, H, S]
    column: int | Int[Array, ""] = 0,  # of the cache, where the tokens go
    numerics: Numerics = Numerics(),
    bins: Bins | None = None,
) -> tuple[Float[Array, "B G T D"], Segment]:
    """Hidden states ready for `unembed`; and the cache with these tokens in it.

    Without a cache, the tokens' own segment.
    """
    _need_float64(numerics)
    if cache is None:
        kernels.need_served(spec, numerics, has_bins=bins is not None)
    inputs = tokens, position, is_token, prefix, cache, column, bins
    if isinstance(params["layers"], tuple):
        by_name = {f"{APART}{i}": layer for i, layer in enumerate(params["layers"])}
        params = {k: x for k, x in params.items() if k != "layers"} | by_name
    with jax.default_matmul_precision(numerics.products):
        return _Decoder(spec, numerics).apply({"params": params}, *inputs)


def unembed(
    spec: Spec,
    params: Params,
    hidden: Float[Array, "*N D"],
    numerics: Numerics = Numerics(),
) -> Float[Array, "*N V"]:
    """Logits over the vocabulary."""
    _need_float64(numerics)
    weight = params[spec.unembedding].astype(hidden.dtype)
    dtype = attention.at_least(numerics, numerics.logits)
    with jax.default_matmul_precision(numerics.products):
        rows = hidden.reshape(-1, hidden.shape[-1])
        logits = jnp.einsum("nd,vd->nv", rows, weight, preferred_element_type=dtype)
        logits = logits.reshape(*hidden.shape[:-1], -1)
    return attention.softcap(logits, spec.logit_softcap)


def _need_float64(numerics: Numerics):
    if numerics.has_float64 and not jax.config.jax_enable_x64:
        raise Refused(
            "model.numerics asks for float64, which JAX computes only if the "
            "environment has JAX_ENABLE_X64=1. Set it, or take float32."
        )


def prefill(
    spec: Spec,
    params: Params,
    question: Int[Array, "B P"],
    is_question: Bool[Array, "B P"],
    numerics: Numerics = Numerics(),
) -> Segment:
    """The questions as a prefix, without their last token: rows begin with that."""
    position = jnp.cumsum(is_question, -1) - 1
    shared = (x[:, None, :-1] for x in (question, position, is_question))
    _, segment = forward(spec, params, *shared, numerics=numerics)
    return as_prefix(segment)


def as_prefix(segment: Segment) -> Segment:
    """A segment of one row per question, without its G axis of size 1."""
    stored = jax.tree.map(lambda x: x.squeeze(-4), (segment.key, segment.value))
    return Segment(*stored, segment.position[:, 0], segment.is_token[:, 0])


class _Decoder(nn.Module):
    spec: Spec
    numerics: Numerics

    @nn.compact
    def __call__(
        self,
        tokens,
        position,
        is_token,
        prefix=None,
        cache=None,
        column=None,
        bins=None,
    ):
        spec, numerics = self.spec, self.numerics
        shape = spec.vocab, spec.width
        embed = self.param("embed", nn.initializers.normal(0.02), shape)
        if not spec.tied and self.is_initializing():
            self.param("unembed", nn.initializers.normal(0.02), shape)
        # Rows first, then their precision: a gradient of thousands of tokens is
        # summed in the table's own.
        x = sharding.lookup(embed, tokens).astype(numerics.compute)
        if spec.scaled_embedding:
            x = x * jnp.asarray(spec.width**0.5, x.dtype)
        own = position, is_token
        if cache is not None:
            own = _write(cache[2:], own, column, (-1, -1))
        before = [] if prefix is None else [prefix]
        source, part = (None, None) if bins is None else bins
        seen = [
            (_of_bins(s.position, source), _of_bins(s.is_token, source)) for s in before
        ]
        surroundings = (
            [
                attention.rotation(rope, spec, position, numerics)
                for rope in _ropes(spec)
            ],
            [
                attention.visible(spec, position, *segment, part)
                for segment in [*seen, own]
            ],
            [is_token for _, is_token in [*seen, own]],
            column,
            source,
        )
        before += [] if cache is None else [cache]
        stored = [(s.key, s.value) for s in before]
        if self.has_variable("params", f"{APART}0"):
            x, kv = self.one_by_one(x, stored, surroundings)
        else:
            layers = _stack(spec, numerics)(spec, numerics, name="layers")
            is_sliding = jnp.asarray(_is_sliding(spec))
            x, kv = layers(x, (is_sliding, stored), surroundings)
        x = _norm(self, "norm", x, spec, numerics)
        return x, Segment(*kv, *own)

    def one_by_one(self, x, stored, surroundings):
        own = []
        for i, is_sliding in enumerate(_is_sliding(self.spec)):
            layer = _Layer(self.spec, self.numerics, name=f"{APART}{i}")
            of_layer = [(key[i], value[i]) for key, value in stored]
            x, kv = layer(x, (is_sliding, of_layer), surroundings)
            own.append(kv)
        return x, tuple(zip(*own, strict=True))


def _is_sliding(spec: Spec) -> tuple[bool, ...]:
    return spec.is_sliding or (False,) * spec.layers


def _stack(spec: Spec, numerics: Numerics):
    """The layer, scanned over its stacked parameters."""
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
    layer = _Layer
    if numerics.remat != "none":
        policy = policies.get(numerics.remat)
        layer = nn.remat(layer, prevent_cse=False, policy=policy)
    return nn.scan(
        layer,
        length=spec.layers,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),
    )


class _Layer(nn.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    spec: Spec
    numerics: Numerics

    @nn.compact
    def __call__(self, x, by_layer, surroundings):
        spec, numerics = self.spec, self.numerics
        update, stored = self.attend(
            _norm(self, "attn_norm", x, spec, numerics), by_layer, surroundings
        )
        if spec.post_norms:
            update = _norm(self, "attn_post_norm", update, spec, numerics)
        x = x + update
        update = self.mlp(_norm(self, "mlp_norm", x, spec, numerics))
        if spec.post_norms:
            update = _norm(self, "mlp_post_norm", update, spec, numerics)
        return sharding.by_rows(x + update), stored

    def attend(self, x, by_layer, surroundings):
        """The attention's output, and the keys and values of these tokens."""
        spec, numerics = self.spec, self.numerics
        is_sliding, stored = by_layer
        rotations, visible, is_token, column, source = surroundings
        q = self.project("wq", x, 1, (spec.heads, spec.head_size), spec.qkv_bias)
        k = self.project("wk", x, 1, (spec.kv_heads, spec.head_size), spec.qkv_bias)
        v = self.project("wv", x, 1, (spec.kv_heads, spec.head_size), spec.qkv_bias)
        if spec.qk_norm:
            q = _norm(self, "q_norm", q, spec, numerics)
            k = _norm(self, "k_norm", k, spec, numerics)
        rotation = rotations[0]
        if spec.local_rope:
            choose = lambda far, near: jnp.where(is_sliding, near, far)  # noqa: E731
            rotation = jax.tree.map(choose, *rotations)
        q, k = attention.rotate(q, rotation), attention.rotate(k, rotation)
        own = jnp.moveaxis(k, 2, 4), jnp.moveaxis(v, 2, 3)  # as they are stored
        has_cache = len(stored) == len(visible)
        if has_cache:  # the last of them
            # Written before it is read: so it needs no second buffer.
            *stored, cache = stored
            own = _write(cache, own, column, (-1, -2))
        # Picked here, layer by layer: never are all of them there twice.
        stored = [tuple(_of_bins(x, source) for x in kv) for kv in stored]
        masks = [jnp.where(is_sliding, near, far) for far, near in visible]
        given = spec, numerics, q, [*stored, own], masks
        if has_cache or numerics.attention == "xla":
            out = attention.attend(*given)
        else:
            out = kernels.attend(*given, is_token)
        return self.project("wo", out, 2, (spec.width,), spec.out_bias), own

    def mlp(self, x):
        spec = self.spec
        gate = self.project("wg", x, 1, (spec.ffw,), spec.mlp_bias)
        up = self.project("wu", x, 1, (spec.ffw,), spec.mlp_bias)
        act = {"silu": nn.silu, "gelu_tanh": nn.gelu}[spec.activation]
        return self.project("wd", act(gate) * up, 1, (spec.width,), spec.mlp_bias)

    def project(self, name, x, inputs, out, bias):
        """x · w over its last `inputs` axes, plus x · a · b if there is an adapter.

        An adapter is two more parameters of the same dict (see `lora`).
        """
        compute = self.numerics.compute
        shape = (*x.shape[-inputs:], *out)
        depth = 2 * self.spec.layers if name in ("wo", "wd") else 1
        initial = _normal_by_fan_in(inputs, depth)
        y = product(x, self.param(name, initial, shape).astype(compute), inputs)
        if self.has_variable("params", f"{name}_a"):
            params = self.variables["params"]
            a, b = (params[f"{name}_{part}"].astype(compute) for part in "ab")
            y = y + product(product(x, a, inputs), b, 1)
        if bias:
            b = self.param(f"b{name[1:]}", nn.initializers.zeros, out).astype(compute)
            y = y + b.reshape((1,) * (y.ndim - b.ndim) + b.shape)
        return y


def product(x: Array, w: Array, inputs: int) -> Array:
    """x · w over the last axes of x and the first of w, as one of two matrices.

    Its gradient is one, too: over several axes a CPU would take half as long again.
    """
    size = math.prod(w.shape[:inputs])
    y = jnp.dot(x.reshape(-1, size), w.reshape(size, -1))
    return y.reshape(*x.shape[: x.ndim - inputs], *w.shape[inputs:])


def _normal_by_fan_in(inputs: int, depth: int):
    """A layer's outputs are made smaller, so that their sum keeps its size."""

    def initial(key, shape):
        fan_in = math.prod(shape[:inputs])
        return jax.random.normal(key, shape) / (fan_in * depth) ** 0.5

    return initial


def _of_bins(x, source):
    """Of each bin's question, from those of its lane."""
    if source is None:
        return x
    x = x.reshape(len(source), -1, *x.shape[1:])
    x = jax.vmap(lambda x, i: x[i])(x, source)
    return x.reshape(-1, *x.shape[2:])


def _write(cache, own, column, axes):
    """The cache with the tokens' own from `column` on, along the axis of columns."""

    def write(old, new, axis):
        new = new.astype(old.dtype)
        return jax.lax.dynamic_update_slice_in_dim(old, new, column, axis)

    return tuple(map(write, cache, own, axes))


def _norm(module: nn.Module, name: str, x: Array, spec: Spec, numerics: Numerics):
    """x / √(mean x² + ε) · weight over the last axis."""
    initial = nn.initializers.zeros if spec.norm_plus_one else nn.initializers.ones
    weight = module.param(name, initial, x.shape[-1:])
    dtype = attention.at_least(numerics, numerics.norm)
    y = x.astype(dtype)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + spec.norm_eps)
    weight = weight.astype(dtype) + spec.norm_plus_one
    return (y * weight.reshape((1,) * (y.ndim - 1) + weight.shape)).astype(x.dtype)


def _ropes(spec: Spec) -> list:
    return [spec.rope, spec.local_rope] if spec.local_rope else [spec.rope]
