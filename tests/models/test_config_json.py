"""config.json both ways, and what is refused by name."""

import dataclasses
import json

import numpy as np
import pytest

from grpo_jax.models import config_json, sizes
from grpo_jax.models.spec import Rope, Spec
from grpo_jax.section import Refused
from tests.models import examples

LLAMA32 = {  # as the file of Llama-3.2-1B has it, in the older form
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}


@pytest.mark.parametrize("name", sorted(examples.SPECS))
def test_a_description_survives_the_way_through_a_file(name):
    spec = examples.SPECS[name]
    fields = json.loads(json.dumps(config_json.from_spec(spec)))
    assert config_json.to_spec(fields) == spec


def test_every_model_known_by_name_can_be_said_in_a_file():
    for spec in sizes.SPECS.values():
        assert config_json.to_spec(config_json.from_spec(spec)) == spec


def test_an_older_file_says_the_same():
    assert config_json.to_spec(LLAMA32) == sizes.SPECS["llama-3.2-1b"]


QWEN25 = {  # as the file of Qwen2.5-1.5B has it
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_fields_that_change_nothing_are_no_obstacle():
    known = dataclasses.replace(sizes.SPECS["qwen2.5-1.5b"], max_length=131_072)
    assert config_json.to_spec(QWEN25) == known
    old = {"is_decoder": False, "pruned_heads": {}, "quantization_config": None}
    assert config_json.to_spec(QWEN25 | old | {"seq_length": 8192}) == known
    with pytest.raises(Refused, match="says use_mrope = True"):
        config_json.to_spec(QWEN25 | {"use_mrope": True})


def test_the_fields_that_were_given_are_left_as_they_are():
    before = json.dumps(LLAMA32)
    config_json.to_spec(LLAMA32)
    assert json.dumps(LLAMA32) == before


def test_published_numbers_of_parameters():
    published = {
        "llama-2-7b": 6_738_415_616,
        "llama-3.1-8b": 8_030_261_248,
        "llama-3.2-1b": 1_235_814_400,
        "deepseek-math-7b": 6_910_365_696,
        "smollm2-135m": 134_515_008,
        "qwen2.5-0.5b": 494_032_768,
        "qwen2.5-7b": 7_615_616_512,
        "qwen3-0.6b": 596_049_920,
        "gemma-3-1b": 999_885_952,
    }
    for name, count in published.items():
        assert sizes.parameters(sizes.SPECS[name]) == count
    # 2 · 28 layers · 4 heads · 128, in two bytes each
    assert sizes.cache_bytes(sizes.SPECS["qwen2.5-7b"], 2) == 57_344


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type = 'mamba'; implemented are llama"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"new_kind_of_attention": 3}, "says new_kind_of_attention = 3, which is not"),
        ({"hidden_act": "relu"}, "'relu' for the activation"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1, which is not"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers = 'two'; it must be a pos"),
        ({"rms_norm_eps": "small"}, "is not a llama model's.*rms_norm_eps"),
        (
            {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}},
            r"config.json is not a llama|rope.scaling is 'longrope'",
        ),
        (
            {"rope_scaling": LLAMA32["rope_scaling"] | {"factor": "32"}},
            "is not a llama model's|factor = '32', not a number",
        ),
        ({"quantization_config": {"bits": 4}}, "says quantization_config"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0; it must be a positive"),
        ({"model_type": ["llama"]}, r"model_type = \['llama'\]; implemented are"),
        ({"sliding_window": 64}, "says sliding_window = 64, which is not implemented"),
        (
            {"layer_types": ["sliding_attention"] * 16},
            "'sliding_attention' among layer_types; implemented for llama are full",
        ),
        ({"num_key_value_heads": 5}, "spec.heads is 32; .*multiple of spec.kv_heads"),
    ],
)
def test_what_would_change_the_model_is_refused_by_name(changes, message):
    fields = {k: v for k, v in (LLAMA32 | changes).items() if v is not None}
    with pytest.raises(Refused, match=message):
        config_json.to_spec(fields)


def test_a_folder_without_a_readable_config_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"there is no .*config.json"):
        config_json.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Refused, match=r"config.json is not JSON"):
        config_json.read(tmp_path)


def test_a_description_that_no_file_of_its_family_can_say_is_refused():
    spec = Spec(family="mistral", qkv_bias=True)
    with pytest.raises(
        Refused, match=r"mistral config.json cannot say .*qkv_bias True"
    ):
        config_json.from_spec(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_size": 7}, "spec.head_size is 7; it must be even"),
        ({"is_sliding": (True,), "window": 3}, "an entry for each of spec.layers, 2"),
        ({"window": 3}, "spec.window is 3; sliding layers need a window"),
        ({"local_rope": Rope()}, "spec.local_rope .*no layer slides"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(Refused, match=message):
        Spec(**changes)


# Rotary positions -----------------------------------------------------------------------
def test_llama3_stretches_slow_turns_and_leaves_fast_ones():
    rope = Rope(theta=100.0, scaling="llama3", factor=8.0, original_length=64)
    plain = Rope(theta=100.0).frequencies(8)
    turns = 64 * plain / (2 * np.pi)  # 10.2, 3.2, 1.02, 0.32
    keep = np.array([1, (turns[1] - 1) / 3, (turns[2] - 1) / 3, 0])
    expected = plain * (keep + (1 - keep) / 8)
    np.testing.assert_allclose(rope.frequencies(8), expected, rtol=1e-12)


def test_linear_divides_every_frequency():
    rope = Rope(scaling="linear", factor=4.0)
    np.testing.assert_allclose(rope.frequencies(8) * 4, Rope().frequencies(8))


def test_yarn_ramps_between_its_two_dimensions():
    rope = Rope(
        theta=10_000.0, scaling="yarn", factor=4.0, original_length=4096, truncate=False
    )
    share = rope.frequencies(64) / Rope().frequencies(64)

    def index(turns):
        return 64 * np.log(4096 / (turns * 2 * np.pi)) / (2 * np.log(10_000.0))

    low, high = index(32), index(1)
    assert np.all(share[: int(low)] == 1)
    np.testing.assert_allclose(share[int(np.ceil(high)) :], 0.25)
    stretch = (20 - low) / (high - low)
    np.testing.assert_allclose(share[20], 1 - stretch + stretch / 4)
