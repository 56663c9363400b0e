"""Our path of a parameter ↔ the names that files give it, and the layout there.

Theirs is always a matrix [outputs, inputs] or a vector; ours keeps heads apart and puts
inputs first. One rule serves every parameter, so a name is all that a table has to say.
"""

import math
import re

import numpy as np

from grpo_jax.models.spec import Spec

MODULES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj"}
MODULES |= {"o": "self_attn.o_proj", "g": "mlp.gate_proj", "u": "mlp.up_proj"}
MODULES |= {"d": "mlp.down_proj"}
GGUF_MODULES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
GGUF_MODULES |= {"g": "ffn_gate", "u": "ffn_up", "d": "ffn_down"}


def _linear(layers: str, modules: dict[str, str]) -> dict[str, str]:
    """Weights and biases of the linear maps in a layer."""
    return {
        f"layers/{kind}{letter}": f"{layers}.{{}}.{module}.{word}"
        for letter, module in modules.items()
        for kind, word in {"w": "weight", "b": "bias"}.items()
    }


HF = {
    "embed": "model.embed_tokens.weight",
    "unembed": "lm_head.weight",
    "norm": "model.norm.weight",
    "layers/attn_norm": "model.layers.{}.input_layernorm.weight",
    "layers/mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
    "layers/q_norm": "model.layers.{}.self_attn.q_norm.weight",
    "layers/k_norm": "model.layers.{}.self_attn.k_norm.weight",
    **_linear("model.layers", MODULES),
}
# With four norms in a layer, the second name means another norm.
POST_NORMS = {
    "layers/attn_post_norm": "model.layers.{}.post_attention_layernorm.weight",
    "layers/mlp_norm": "model.layers.{}.pre_feedforward_layernorm.weight",
    "layers/mlp_post_norm": "model.layers.{}.post_feedforward_layernorm.weight",
}
GGUF = {
    "embed": "token_embd.weight",
    "unembed": "output.weight",
    "norm": "output_norm.weight",
    "layers/attn_norm": "blk.{}.attn_norm.weight",
    "layers/attn_post_norm": "blk.{}.post_attention_norm.weight",
    "layers/mlp_norm": "blk.{}.ffn_norm.weight",
    "layers/mlp_post_norm": "blk.{}.post_ffw_norm.weight",
    "layers/q_norm": "blk.{}.attn_q_norm.weight",
    "layers/k_norm": "blk.{}.attn_k_norm.weight",
    **_linear("blk", GGUF_MODULES),
}
# Old files carry these beside the parameters; they follow from config.json.
NO_PARAMETERS = re.compile(r"rotary_emb\.inv_freq$|^rope_freqs\.weight$")


def table(spec: Spec, form: dict[str, str]) -> dict[str, str]:
    """Path → name in files of that form, for this family."""
    return form | (POST_NORMS if form is HF and spec.post_norms else {})


def is_matrix(path: str) -> bool:
    return path.split("/")[-1][0] == "w"


def inputs(path: str) -> int:
    """How many leading axes of our matrix are summed over: (Q, H) of the output's."""
    return 2 if path.endswith("/wo") else 1


def their_shape(path: str, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Of one layer: [outputs, inputs] of a matrix, the length of a vector."""
    if not is_matrix(path):
        return ours if path in ("embed", "unembed") else (math.prod(ours),)
    n = inputs(path)
    return math.prod(ours[n:]), math.prod(ours[:n])


def to_ours(path: str, value: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    return (value.T if is_matrix(path) else value).reshape(ours)


def to_theirs(path: str, value: np.ndarray) -> np.ndarray:
    """Contiguous: a file's writer copies memory, and does not look at strides."""
    rows, columns = (*their_shape(path, value.shape), 1)[:2]
    if is_matrix(path):
        return np.ascontiguousarray(value.reshape(columns, rows).T)
    return np.ascontiguousarray(value.reshape(their_shape(path, value.shape)))
