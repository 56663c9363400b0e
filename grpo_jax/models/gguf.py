"""GGUF files: a description, weights (often quantised) and a vocabulary in one file.

Weights are dequantised tensor by tensor. llama.cpp's converters change two things that
are changed back here: the rows of Llama's queries and keys are reordered for another
form of rotary positions, and Gemma's norms are stored as 1 + weight.
"""

import pathlib
from typing import Any

import gguf
import numpy as np

from grpo_jax.models import config_json, names, weights
from grpo_jax.models.spec import Rope, Spec
from grpo_jax.section import Refused

FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
FAMILIES |= {"gemma3": "gemma3_text"}
READABLE = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K",
    "Q6_K",
)  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"
REQUIRED = {  # as config.json has it → as a GGUF file has it
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
# These change nothing that is computed: the length in training is read where a
# stretching needs it.
UNUSED = {"vocab_size", "rope.scaling.finetuned"}
UNUSED |= {"rope.scaling.original_context_length"}


class File:
    """An open GGUF file: its metadata by name, its tensors by name."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        try:
            reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, OSError) as error:
            raise Refused(
                f"{path} is no GGUF file, or not complete ({error}). Fetch it again."
            ) from None
        self.fields = reader.fields
        parts, number = self.get("split.count", 1), self.get("split.no", 0)
        if parts > 1:
            raise Refused(
                f"{path} is part {number + 1} of {parts}. Merge them first: "
                "llama-gguf-split --merge FIRST_PART WHOLE."
            )
        self.read = set()  # of the model's metadata, by name without the architecture
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        kinds = {t.name: t.tensor_type.name for t in reader.tensors}
        unreadable = {n: kind for n, kind in kinds.items() if kind not in READABLE}
        if unreadable:
            name, kind = next(iter(unreadable.items()))
            raise Refused(
                f"{path} holds {len(unreadable)} tensors in a form not readable here, "
                f"{name} as {kind}. Readable are {', '.join(READABLE)}."
            )

    def get(self, name: str, default: Any = None) -> Any:
        return self.fields[name].contents() if name in self.fields else default

    @property
    def architecture(self) -> str:
        return self.get("general.architecture", "none")

    def of_model(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return self.get(f"{self.architecture}.{name}", default)

    def shape(self, name: str) -> tuple[int, ...]:
        """As Hugging Face has it: GGUF names the fastest axis first."""
        return tuple(int(n) for n in reversed(self.tensors[name].shape))

    def dequantised(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        return value.reshape(self.shape(name))


def spec(file: File) -> Spec:
    """The file's metadata as a description, by way of the fields of a config.json."""
    family = FAMILIES.get(file.architecture)
    if family is None:
        raise Refused(
            f"{file.path} holds the architecture {file.architecture!r}; known are "
            f"{', '.join(FAMILIES)}. Take a model of one of these families."
        )
    lacking = [name for name in REQUIRED.values() if file.of_model(name) is None]
    lacking += [name for name in ("token_embd.weight",) if name not in file.tensors]
    if lacking:
        raise Refused(f"{file.path} lacks {', '.join(lacking)}. Fetch it again.")
    fields = {theirs: file.of_model(name) for theirs, name in REQUIRED.items()}
    for theirs, name in REQUIRED.items():
        if not isinstance(fields[theirs], int | float):
            raise Refused(
                f"{file.path} says {name} = {fields[theirs]!r}, not one number for all "
                "layers. Take another model."
            )
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    head_size = file.of_model("attention.key_length", width // max(heads, 1))
    fields |= {
        "model_type": family,
        "vocab_size": file.shape("token_embd.weight")[0],
        "num_key_value_heads": file.of_model("attention.head_count_kv", heads),
        "head_dim": head_size,
        "rms_norm_eps": _rounded(fields["rms_norm_eps"]),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    rope = config_json.rope_fields(_rope(file, head_size))
    if family == "llama":
        fields["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if family == "gemma3_text":
        rope = {"full_attention": rope} | _gemma(file, fields)
    _check_rest(file, head_size)
    return config_json.to_spec(fields | {"rope_parameters": rope})


def _gemma(file: File, fields: dict[str, Any]) -> dict[str, Any]:
    """Adds what only Gemma's files say; the rotation of the sliding layers."""
    # llama.cpp scales by the head's size, except in the model of 62 layers.
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    is_27b = fields["num_hidden_layers"] == 62
    fields["query_pre_attn_scalar"] = width // heads if is_27b else fields["head_dim"]
    fields["sliding_window"] = file.of_model("attention.sliding_window")
    for name in ("final_logit_softcapping", "attn_logit_softcapping"):
        fields[name] = file.of_model(name) or None  # 0: none
    _check_pattern(file, fields["num_hidden_layers"])
    local = Rope(theta=float(file.of_model("rope.freq_base_swa", 10_000.0)))
    return {"sliding_attention": config_json.rope_fields(local)}


def _check_pattern(file: File, layers: int):
    """Gemma 3's config class knows one pattern: every sixth layer sees everything."""
    pattern = file.of_model("attention.sliding_window_pattern", 6)
    slides = [bool((i + 1) % 6) for i in range(layers)]
    if pattern not in (6, slides, [int(x) for x in slides]):
        raise Refused(
            f"{file.path} says that other layers slide than Gemma 3's do: {pattern!r}. "
            "Take another model."
        )


def _check_rest(file: File, head_size: int):
    """What was not read must be without effect: nothing is ignored."""
    harmless = {
        "rope.dimension_count": (head_size,),
        "attention.value_length": (head_size,),
        "attention.causal": (True,),
        "tensor_data_layout": ("Meta AI original pth",),  # of Llama: as all have it
        "pooling_type": (0,),
        "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
        "expert_count": (0,),
        "expert_used_count": (0,),
        "expert_feed_forward_length": (0,),
        "nextn_predict_layers": (0,),
        "embedding_scale": (1.0,),
        "rope.scale_linear": (1.0,),
        "rope.scaling.factor": (1.0,),
        "rope.scaling.attn_factor": (1.0,),
        "rope.scaling.yarn_log_multiplier": (0.0,),
    }
    prefix = f"{file.architecture}."
    for name in file.fields:
        short = name.removeprefix(prefix)
        if not name.startswith(prefix) or short in file.read | UNUSED:
            continue
        value = file.of_model(short)
        if value not in harmless.get(short, ()):
            raise Refused(
                f"{file.path} says {name} = {value!r}, which is not implemented. "
                "Nothing that may change a model is ignored: take another model."
            )


def source(file: File, spec: Spec) -> weights.Source:
    def read(name: str) -> np.ndarray:
        value = file.dequantised(name)
        if file.architecture == "llama" and "attn_q." in name:
            return _halves(value, spec.heads)
        if file.architecture == "llama" and "attn_k." in name:
            return _halves(value, spec.kv_heads)
        if spec.norm_plus_one and name.endswith("norm.weight"):
            return value - 1
        return value

    shapes = {name: file.shape(name) for name in file.tensors if name != ROPE_FACTORS}
    return weights.Source(str(file.path), names.GGUF, shapes, read, "float32")


def _halves(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head from (x_0, x_{H/2}, x_1, ...) to (x_0, x_1, ..., x_{H/2}, ...)."""
    pairs = value.reshape(heads, -1, 2, *value.shape[1:])
    return pairs.swapaxes(1, 2).reshape(value.shape)


def _rope(file: File, head_size: int) -> Rope:
    theta = float(file.of_model("rope.freq_base", 10_000.0))
    scaling = file.of_model("rope.scaling.type", "none")
    if ROPE_FACTORS in file.tensors:
        return _llama3(file, theta, head_size)
    if scaling == "none":
        return Rope(theta=theta)
    factor = float(file.of_model("rope.scaling.factor", 1.0))
    if scaling == "linear":
        return Rope(theta=theta, scaling="linear", factor=factor)
    if scaling == "yarn":
        implied = config_json.attention_factor(factor, None, None)
        return Rope(
            theta=theta,
            scaling="yarn",
            factor=factor,
            original_length=file.of_model("rope.scaling.original_context_length"),
            attention_factor=implied * file.of_model("rope.scaling.attn_factor", 1.0),
            beta_fast=file.of_model("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=file.of_model("rope.scaling.yarn_beta_slow", 1.0),
        )
    raise Refused(
        f"{file.path} stretches its positions by {scaling!r}; implemented are linear, "
        "yarn and llama3. Take another model."
    )


def _llama3(file: File, theta: float, head_size: int) -> Rope:
    """Llama 3's stretching is stored as a divisor per frequency: which factor is it?"""
    divisors = file.dequantised(ROPE_FACTORS).ravel()
    factor = float(divisors.max())
    rope = Rope(theta=theta, scaling="llama3", factor=factor, original_length=8192)
    plain = Rope(theta=theta).frequencies(head_size)
    if not np.allclose(plain / rope.frequencies(head_size), divisors, rtol=1e-3):
        raise Refused(
            f"{file.path} stretches its positions by {ROPE_FACTORS} in a way that is "
            "not Llama 3's. Take another model."
        )
    return rope


def _rounded(eps: float) -> float:
    """1e-5 was written as the nearest float32."""
    return float(np.format_float_positional(np.float32(eps), unique=True))
