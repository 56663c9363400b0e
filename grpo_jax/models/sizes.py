"""The models that people know by name, as descriptions: for plans, tests, and reading.

    sizes.SPECS["qwen2.5-1.5b"]

Loading a model reads its own config.json; nothing here is assumed about a file.
"""

import math

import jax

from grpo_jax.models import transformer
from grpo_jax.models.spec import Rope, Spec


def _llama(layers, width, heads, kv_heads, ffw, vocab, theta, **more) -> Spec:
    more = {"norm_eps": 1e-5, "head_size": width // heads} | more
    more.setdefault("rope", Rope(theta=theta))
    return Spec(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        ffw=ffw,
        vocab=vocab,
        **more,
    )


def _llama3(layers, width, heads, ffw, factor, tied) -> Spec:
    rope = Rope(theta=5e5, scaling="llama3", factor=factor, original_length=8192)
    more = {"rope": rope, "tied": tied, "max_length": 131_072}
    return _llama(layers, width, heads, 8, ffw, 128_256, 5e5, **more)


def _qwen2(layers, width, heads, kv_heads, ffw, tied, vocab=151_936) -> Spec:
    more = {"family": "qwen2", "qkv_bias": True, "norm_eps": 1e-6}
    more |= {"tied": tied, "max_length": 32_768}
    return _llama(layers, width, heads, kv_heads, ffw, vocab, 1e6, **more)


def _qwen3(layers, width, heads, ffw, tied) -> Spec:
    more = {"family": "qwen3", "qk_norm": True, "norm_eps": 1e-6, "head_size": 128}
    more |= {"tied": tied, "max_length": 40_960}
    return _llama(layers, width, heads, 8, ffw, 151_936, 1e6, **more)


def _gemma3(layers, width, heads, kv_heads, ffw, head_size, window, **more) -> Spec:
    stretched = Rope(theta=1e6, scaling="linear", factor=8.0)
    more = {"rope": stretched, "vocab": 262_208, "max_length": 131_072} | more
    return Spec(
        family="gemma3_text",
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        ffw=ffw,
        head_size=head_size,
        window=window,
        is_sliding=tuple(bool((i + 1) % 6) for i in range(layers)),
        local_rope=Rope(),
        qk_norm=True,
        post_norms=True,
        norm_plus_one=True,
        scaled_embedding=True,
        activation="gelu_tanh",
        **{"attention_scale": head_size**-0.5} | more,
    )


_SMOL = {"max_length": 8192}
SPECS: dict[str, Spec] = {
    "smollm2-135m": _llama(30, 576, 9, 3, 1536, 49_152, 1e5, **_SMOL),
    "smollm2-360m": _llama(32, 960, 15, 5, 2560, 49_152, 1e5, **_SMOL),
    "smollm2-1.7b": _llama(24, 2048, 32, 32, 8192, 49_152, 1.3e5, **_SMOL),
    "llama-2-7b": _llama(
        32, 4096, 32, 32, 11_008, 32_000, 1e4, tied=False, max_length=4096
    ),
    "llama-2-13b": _llama(
        40, 5120, 40, 40, 13_824, 32_000, 1e4, tied=False, max_length=4096
    ),
    "llama-3.2-1b": _llama3(16, 2048, 32, 8192, 32.0, tied=True),
    "llama-3.2-3b": _llama3(28, 3072, 24, 8192, 32.0, tied=True),
    "llama-3.1-8b": _llama3(32, 4096, 32, 14_336, 8.0, tied=False),
    "deepseek-math-7b": _llama(
        30,
        4096,
        32,
        32,
        11_008,
        102_400,
        1e4,
        tied=False,
        norm_eps=1e-6,
        max_length=4096,
    ),
    "mistral-7b-v0.3": _llama(
        32,
        4096,
        32,
        8,
        14_336,
        32_768,
        1e6,
        family="mistral",
        tied=False,
        max_length=32_768,
    ),
    "qwen2.5-0.5b": _qwen2(24, 896, 14, 2, 4864, tied=True),
    "qwen2.5-1.5b": _qwen2(28, 1536, 12, 2, 8960, tied=True),
    "qwen2.5-3b": _qwen2(36, 2048, 16, 2, 11_008, tied=True),
    "qwen2.5-7b": _qwen2(28, 3584, 28, 4, 18_944, tied=False, vocab=152_064),
    "qwen2.5-14b": _qwen2(48, 5120, 40, 8, 13_824, tied=False, vocab=152_064),
    "qwen2.5-32b": _qwen2(64, 5120, 40, 8, 27_648, tied=False, vocab=152_064),
    "qwen3-0.6b": _qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 6144, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 32, 9728, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 32, 12_288, tied=False),
    "qwen3-14b": _qwen3(40, 5120, 40, 17_408, tied=False),
    "qwen3-32b": _qwen3(64, 5120, 64, 25_600, tied=False),
    "gemma-3-1b": _gemma3(
        26,
        1152,
        4,
        1,
        6912,
        256,
        512,
        vocab=262_144,
        rope=Rope(theta=1e6),
        max_length=32_768,
    ),
    "gemma-3-4b": _gemma3(34, 2560, 8, 4, 10_240, 256, 1024),
    "gemma-3-12b": _gemma3(48, 3840, 16, 8, 15_360, 256, 1024),
    "gemma-3-27b": _gemma3(
        62, 5376, 32, 16, 21_504, 128, 1024, attention_scale=168**-0.5
    ),
}


def parameters(spec: Spec) -> int:
    """How many numbers a model of that description has."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(transformer.abstract(spec)))


def cache_bytes(spec: Spec, bytes_each: int) -> int:
    """Keys and values of one token, in all layers."""
    return 2 * spec.layers * spec.kv_heads * spec.head_size * bytes_each
