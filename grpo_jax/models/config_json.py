"""config.json ↔ Spec. What it says and we do not implement is refused by name.

Hugging Face's own config classes bring old files to the new form and fill in what a
file leaves out; here their fields are read, each one exactly once.
"""

import copy
import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from grpo_jax.models.spec import Rope, Spec
from grpo_jax.section import Refused

CLASSES = {  # model_type → the class in transformers that knows its defaults
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "gemma3_text": "Gemma3TextConfig",
}
ARCHITECTURES = {  # model_type → the class of a causal language model
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
SAME = {  # ours → theirs, where no more is to be said
    "vocab": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "ffw": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "max_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
}
REQUIRED = ("vocab", "layers", "width", "ffw", "heads")
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
ROPE = {  # the same, within rope_parameters
    "theta": "rope_theta",
    "scaling": "rope_type",
    "factor": "factor",
    "original_length": "original_max_position_embeddings",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "truncate": "truncate",
    "attention_factor": "attention_factor",
}
# These do not change what the model computes.
IGNORED = {
    "architectures", "_attn_implementation_autoset", "auto_map", "bos_token_id",
    "cache_implementation", "chunk_size_feed_forward", "dtype", "eos_token_id",
    "gradient_checkpointing", "id2label", "initializer_range", "is_llama_config",
    "label2id", "max_sequence_length", "max_window_layers", "model_type",
    "_name_or_path", "output_attentions", "output_hidden_states", "pad_token_id",
    "pretraining_tp", "problem_type", "return_dict", "seq_length",
    "sliding_window_pattern", "_sliding_window_pattern", "tokenizer_class",
    "torch_dtype", "transformers.js_config", "transformers_version", "unsloth_fixed",
    "unsloth_version", "use_cache", "use_sliding_window",
}  # fmt: skip
# These would; but what they say here is that they do not.
HARMLESS = {
    "sliding_window": (None,),  # of Llama, which has none
    "use_mrope": (False,),  # of Qwen2.5: positions of images
    "quantization_config": (None,),
    "is_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "torchscript": (False,),
    "use_bfloat16": (False,),
    "pruned_heads": ({},),
    "attention_dropout": (0.0, None),
    "is_encoder_decoder": (False,),
    "rope_interleaved": (False, None),
    "rope_scaling": (None,),
    "partial_rotary_factor": (1.0, None),
    "use_bidirectional_attention": (False, None),
}


# What libraries raise at a file that says what it must not.
DAMAGE = (AttributeError, KeyError, TypeError, ValueError)


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The fields of a folder's config.json."""
    path = folder / "config.json"
    if not path.is_file():
        raise Refused(f"there is no {path}. A model's folder holds one.")
    return read_object(path)


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """A JSON file that holds one object."""
    try:
        fields = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not JSON: {error}. Fetch it again.") from None
    if not isinstance(fields, dict):
        raise Refused(f"{path} holds no JSON object. Fetch it again.")
    return fields


def to_spec(fields: Mapping[str, Any]) -> Spec:
    """The description that the fields of a config.json give."""
    config = _complete(fields)
    take = config.pop
    family = take("model_type")
    is_sliding, window = _sliding(config, family)
    biased = take("attention_bias", False)
    activation = take("hidden_act", None) or take("hidden_activation")
    if activation not in ACTIVATIONS:
        raise Refused(
            f"config.json says {activation!r} for the activation; implemented are "
            f"{', '.join(ACTIVATIONS)}."
        )
    is_gemma = family == "gemma3_text"
    scale = take("query_pre_attn_scalar", None)
    head_size = take("head_dim", None)
    values = {ours: take(theirs) for ours, theirs in SAME.items()}
    rope, local_rope = _ropes(take("rope_parameters"), values["max_length"])
    spec = Spec(
        **values,
        family=family,
        head_size=head_size or values["width"] // values["heads"],
        qkv_bias=biased or family == "qwen2",
        out_bias=biased,
        mlp_bias=take("mlp_bias", False),
        qk_norm=family in ("qwen3", "gemma3_text"),
        post_norms=is_gemma,
        norm_plus_one=is_gemma,
        scaled_embedding=is_gemma,
        activation=ACTIVATIONS[activation],
        attention_scale=scale and scale**-0.5,
        attention_softcap=take("attn_logit_softcapping", None),
        logit_softcap=take("final_logit_softcapping", None),
        rope=rope,
        local_rope=local_rope if is_sliding else None,
        window=window if is_sliding else None,
        is_sliding=is_sliding,
    )
    _check_nothing_left(config)
    return spec


def _sliding(config: dict[str, Any], family: str) -> tuple[tuple[bool, ...], Any]:
    """Which layers slide, () if none does, and how much of the past they see."""
    kinds = config.pop("layer_types", None)
    known = ["full_attention", "sliding_attention"]
    if family == "llama":  # has no window: a field that sets one is left, and refused
        known, window = known[:1], None
    else:
        window = config.pop("sliding_window", None)
    if kinds is None:  # Mistral: all layers or none
        kinds = [known[bool(window)]] * config["num_hidden_layers"]
    unknown = set(kinds) - set(known)
    if unknown:
        raise Refused(
            f"config.json says {unknown.pop()!r} among layer_types; implemented for "
            f"{family} are {', '.join(known)}. Take another model."
        )
    is_sliding = tuple(kind == "sliding_attention" for kind in kinds)
    return (is_sliding if any(is_sliding) else ()), window


def from_spec(spec: Spec) -> dict[str, Any]:
    """The fields of a config.json that gives this description back."""
    fields = {theirs: getattr(spec, ours) for ours, theirs in SAME.items()}
    fields |= {"model_type": spec.family, "head_dim": spec.head_size}
    theirs = {ours: name for name, ours in ACTIVATIONS.items()}[spec.activation]
    is_gemma = spec.family == "gemma3_text"
    fields["hidden_activation" if is_gemma else "hidden_act"] = theirs
    if is_gemma:
        fields |= {
            "query_pre_attn_scalar": round(spec.query_scale**-2),
            "attn_logit_softcapping": spec.attention_softcap,
            "final_logit_softcapping": spec.logit_softcap,
        }
    if spec.family in ("llama", "qwen3", "gemma3_text"):
        fields["attention_bias"] = spec.out_bias
    if spec.family == "llama":
        fields["mlp_bias"] = spec.mlp_bias
    slides = spec.is_sliding or (False,) * spec.layers
    if spec.family != "llama":
        fields["sliding_window"] = spec.window
    if spec.family in ("qwen2", "qwen3"):
        fields["use_sliding_window"] = any(slides)
    if spec.family not in ("llama", "mistral"):
        kinds = {True: "sliding_attention", False: "full_attention"}
        fields["layer_types"] = [kinds[x] for x in slides]
    fields["rope_parameters"] = rope_fields(spec.rope)
    if is_gemma:
        local = spec.local_rope or spec.rope
        fields["rope_parameters"] = {
            "full_attention": rope_fields(spec.rope),
            "sliding_attention": rope_fields(local),
        }
    if to_spec(fields) != spec:
        raise Refused(
            f"a {spec.family} config.json cannot say what this description says: "
            f"{_differences(to_spec(fields), spec)}. Choose another family."
        )
    return fields


def _complete(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Old names brought to new ones, and the family's defaults filled in."""
    family = fields.get("model_type")
    if not isinstance(family, str) or family not in CLASSES:
        raise Refused(
            f"config.json says model_type = {family!r}; implemented are "
            f"{', '.join(CLASSES)}. Take a model of one of these families."
        )
    missing = [SAME[name] for name in REQUIRED if fields.get(SAME[name]) is None]
    if missing:
        raise Refused(f"config.json lacks {', '.join(missing)}. Fetch it again.")
    for name in (SAME[name] for name in REQUIRED):
        if type(fields[name]) is not int or fields[name] <= 0:
            raise Refused(
                f"config.json says {name} = {fields[name]!r}; it must be a positive "
                "whole number. Fetch it again."
            )
    import transformers  # slow: 5 s, so only where a file is read
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = getattr(transformers, CLASSES[family]).from_dict(
            copy.deepcopy(dict(fields))
        )
    except (StrictDataclassError, *DAMAGE) as error:
        text = " ".join(str(error).split())
        raise Refused(f"config.json is not a {family} model's: {text}.") from None
    return config.to_dict()


def _ropes(parameters: Mapping[str, Any], length: int) -> tuple[Rope, Rope | None]:
    if "full_attention" not in parameters:
        return _rope(parameters, length), None
    local = parameters.get("sliding_attention")
    return _rope(parameters["full_attention"], length), local and _rope(local, length)


def _rope(parameters: Mapping[str, Any], length: int) -> Rope:
    rest = dict(parameters)
    rest.pop("type", None)  # the older name of rope_type, which is there as well
    values = {ours: rest.pop(theirs, None) for ours, theirs in ROPE.items()}
    values = {name: value for name, value in values.items() if value is not None}
    for name, value in values.items():
        if name != "scaling" and not isinstance(value, int | float):
            raise Refused(f"config.json says {ROPE[name]} = {value!r}, not a number.")
    if values["scaling"] == "yarn":
        values.setdefault("factor", length / values["original_length"])
        scales = rest.pop("mscale", None), rest.pop("mscale_all_dim", None)
        implied = attention_factor(values["factor"], *scales)
        values.setdefault("attention_factor", implied)
    _check_nothing_left(rest)
    return Rope(**values)


def attention_factor(factor: float, mscale: float | None, all_dim: float | None):
    """What yarn multiplies cosine and sine by, unless the file gives it."""

    def scale(by):
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    return scale(mscale) / scale(all_dim) if mscale and all_dim else scale(1.0)


def rope_fields(rope: Rope) -> dict[str, Any]:
    """What the chosen scaling reads."""
    return {
        theirs: getattr(rope, ours)
        for ours, theirs in ROPE.items()
        if ours not in rope.read_by or rope.scaling in rope.read_by[ours][1]
    }


def _check_nothing_left(config: Mapping[str, Any]):
    for name, value in config.items():
        if name not in IGNORED and value not in HARMLESS.get(name, ()):
            raise Refused(
                f"config.json says {name} = {value!r}, which is not implemented. "
                "Nothing that may change a model is ignored: take another model."
            )


def _differences(theirs: Spec, ours: Spec) -> str:
    return ", ".join(
        f"{field.name} {getattr(ours, field.name)!r}"
        for field in dataclasses.fields(Spec)
        if getattr(theirs, field.name) != getattr(ours, field.name)
    )
