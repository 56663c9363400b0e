"""What a decoder is, in numbers: one frozen description for every family.

Llama, SmolLM2, DeepSeekMath, Mistral, Qwen2, Qwen3 and Gemma 3 differ only in what
stands here. `config_json.py` reads and writes it as Hugging Face's config.json.
"""

import dataclasses
from typing import Literal

import numpy as np

from grpo_jax.section import Section


@dataclasses.dataclass(frozen=True)
class Rope(Section):
    """Rotary positions: their base, and how they reach past the length in training."""

    path = "rope"

    theta: float = 10_000.0
    scaling: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: float = 1.0  # how much longer than in training
    original_length: int | None = None  # positions in training (llama3, yarn)
    low_freq_factor: float = 1.0  # llama3: wavelengths above original/low are stretched
    high_freq_factor: float = 4.0  # llama3: those below original/high are left alone
    beta_fast: float = 32.0  # yarn: turns in training above which nothing is stretched
    beta_slow: float = 1.0  # yarn: turns below which everything is
    truncate: bool = True  # yarn: round these two bounds to whole dimensions
    attention_factor: float = 1.0  # yarn: multiplies cosine and sine

    read_by = {  # noqa: RUF012
        "factor": ("scaling", {"linear", "llama3", "yarn"}),
        "original_length": ("scaling", {"llama3", "yarn"}),
        "low_freq_factor": ("scaling", {"llama3"}),
        "high_freq_factor": ("scaling", {"llama3"}),
        "beta_fast": ("scaling", {"yarn"}),
        "beta_slow": ("scaling", {"yarn"}),
        "truncate": ("scaling", {"yarn"}),
        "attention_factor": ("scaling", {"yarn"}),
    }

    def check(self):
        self.need_positive("theta", "factor", "original_length", "attention_factor")
        self.need_positive("low_freq_factor", "beta_slow")
        self.need_ordered("low_freq_factor", "high_freq_factor")
        self.need_ordered("beta_slow", "beta_fast")
        given = self.scaling not in ("llama3", "yarn") or self.original_length
        rule = f"rope.scaling {self.scaling!r} needs the length in training"
        self.need("original_length", bool(given), rule, "Set it.")

    def frequencies(self, head_size: int) -> np.ndarray:
        """Radians per position of each pair of dimensions, H/2 of them."""
        dims = np.arange(0, head_size, 2, dtype=np.float64)
        plain = self.theta ** -(dims / head_size)
        return SCALINGS[self.scaling](self, plain, head_size)


def _linear(rope: Rope, plain: np.ndarray, head_size: int) -> np.ndarray:
    return plain / rope.factor


def _llama3(rope: Rope, plain: np.ndarray, head_size: int) -> np.ndarray:
    """Few turns within the training length: stretched; many: left alone."""
    turns = rope.original_length * plain / (2 * np.pi)
    low, high = rope.low_freq_factor, rope.high_freq_factor
    keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return keep * plain + (1 - keep) * plain / rope.factor


def _yarn(rope: Rope, plain: np.ndarray, head_size: int) -> np.ndarray:
    """As llama3, but the ramp is linear in the dimension's index."""

    def index(turns):
        wavelength = rope.original_length / (turns * 2 * np.pi)
        return head_size * np.log(wavelength) / (2 * np.log(rope.theta))

    low, high = index(rope.beta_fast), index(rope.beta_slow)
    if rope.truncate:
        low, high = np.floor(low), np.ceil(high)
    low, high = max(low, 0), min(high, head_size - 1)
    span = high - low if high != low else 1e-3
    stretch = np.clip((np.arange(head_size // 2) - low) / span, 0.0, 1.0)
    return (1 - stretch) * plain + stretch * plain / rope.factor


SCALINGS = {
    "default": lambda rope, plain, head_size: plain,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}


@dataclasses.dataclass(frozen=True)
class Spec(Section):
    """The shape of a decoder: all that its functions need besides its parameters."""

    path = "spec"

    family: Literal["llama", "mistral", "qwen2", "qwen3", "gemma3_text"] = "llama"
    vocab: int = 256  # V, rows of the embedding
    layers: int = 2  # L
    width: int = 64  # D
    ffw: int = 256  # F
    heads: int = 4  # Q, of the queries
    kv_heads: int = 2  # K, of the keys and values
    head_size: int = 16  # H
    max_length: int = 2048  # positions that it was made for
    norm_eps: float = 1e-6
    tied: bool = True  # the embedding is the unembedding as well
    qkv_bias: bool = False
    out_bias: bool = False  # on the attention's output
    mlp_bias: bool = False
    qk_norm: bool = False  # an RMS norm of each head's queries and keys
    post_norms: bool = False  # norms behind attention and MLP, not only before
    norm_plus_one: bool = False  # norms multiply by 1 + weight
    activation: Literal["silu", "gelu_tanh"] = "silu"
    scaled_embedding: bool = False  # embeddings are multiplied by √D
    attention_scale: float | None = None  # of query · key; None: 1/√H
    attention_softcap: float | None = None  # c · tanh(logits / c)
    logit_softcap: float | None = None
    rope: Rope = dataclasses.field(default_factory=Rope)
    local_rope: Rope | None = None  # of the sliding layers; None: the same
    window: int | None = None  # positions that a sliding layer sees, its own included
    is_sliding: tuple[bool, ...] = ()  # by layer; (): none is

    def check(self):
        self.need_positive("vocab", "layers", "width", "ffw", "heads", "kv_heads")
        self.need_positive("head_size", "max_length", "norm_eps", "window")
        self.need_positive("attention_scale", "attention_softcap", "logit_softcap")
        shared = self.heads % self.kv_heads == 0
        rule = f"it must be a multiple of spec.kv_heads, {self.kv_heads}"
        self.need("heads", shared, rule, "Each key head serves as many query heads.")
        even = self.head_size % 2 == 0
        self.need("head_size", even, "it must be even", "Rotary positions pair halves.")
        complete = len(self.is_sliding) in (0, self.layers)
        rule = f"it must have an entry for each of spec.layers, {self.layers}"
        self.need("is_sliding", complete, rule, "Or be (): no layer slides.")
        slides = any(self.is_sliding)
        rule = "sliding layers need a window, and a window needs sliding layers"
        self.need("window", slides == bool(self.window), rule, "Set both or neither.")
        rule = "no layer slides"
        self.need_read("local_rope", slides, rule, "a spec.is_sliding with True")

    @property
    def unembedding(self) -> str:
        """The parameter that turns hidden states into logits."""
        return "embed" if self.tied else "unembed"

    @property
    def query_scale(self) -> float:
        return self.attention_scale or self.head_size**-0.5
