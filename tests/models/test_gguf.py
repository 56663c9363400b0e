"""GGUF files made here: the description, the weights, the two things to change back."""

import dataclasses

import gguf
import jax
import numpy as np
import pytest

from grpo_jax.models import gguf as ours
from grpo_jax.models import names, weights
from grpo_jax.section import Refused
from tests.models import examples

ARCHITECTURE = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
}
QUANTISED = {"F16": 1e-3, "BF16": 8e-3, "Q8_0": 2e-2, "Q4_0": 0.3, "Q4_1": 0.2}


def interleaved(value, heads):
    """Rows of each head as llama.cpp orders them for Llama: x_0, x_{H/2}, x_1, ..."""
    size = len(value) // heads
    order = [
        h * size + part * size // 2 + i
        for h in range(heads)
        for i in range(size // 2)
        for part in (0, 1)
    ]
    return value[order]


def finish(out):
    """Writes what was added."""
    for step in ("header", "kv_data", "tensors"):
        getattr(out, f"write_{step}_to_file")()
    out.close()


def add(out, key, value):
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string"}
    getattr(out, f"add_{kinds.get(type(value), 'array')}")(key, value)


def write(path, spec, kind="F32", words=None, without=(), **more):
    """A file as llama.cpp's converter would write it; `more` of the model's metadata."""
    arch = spec.family.removesuffix("_text")
    out = gguf.GGUFWriter(path, arch)
    for key, value in (words or {}).items():
        add(out, f"tokenizer.ggml.{key}", value)
    for key, value in more.items():
        add(out, f"{arch}.{key}", value)
    numbers = {
        "block_count": spec.layers,
        "embedding_length": spec.width,
        "feed_forward_length": spec.ffw,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        "attention.key_length": spec.head_size,
        "context_length": spec.max_length,
    }
    for key, value in numbers.items():
        if key in without:
            continue
        out.add_uint32(f"{arch}.{key}", value)
    out.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", spec.norm_eps)
    out.add_float32(f"{arch}.rope.freq_base", spec.rope.theta)
    if spec.rope.scaling == "llama3":
        plain = spec.rope.theta ** -(np.arange(0, spec.head_size, 2) / spec.head_size)
        divisors = plain / spec.rope.frequencies(spec.head_size)
        out.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    elif spec.rope.scaling != "default":
        out.add_string(f"{arch}.rope.scaling.type", spec.rope.scaling)
        out.add_float32(f"{arch}.rope.scaling.factor", spec.rope.factor)
        length = spec.rope.original_length or 0
        out.add_uint32(f"{arch}.rope.scaling.original_context_length", length)
    if spec.window:
        out.add_uint32(f"{arch}.attention.sliding_window", spec.window)
    for tensor in weights.tensors(spec, examples.params_of(spec), names.GGUF):
        value = tensor.fetch()
        if arch == "llama" and "attn_q." in tensor.name:
            value = interleaved(value, spec.heads)
        if arch == "llama" and "attn_k." in tensor.name:
            value = interleaved(value, spec.kv_heads)
        if spec.norm_plus_one and "norm" in tensor.name:
            value = value + 1
        if value.ndim == 2 and kind != "F32":
            type_ = gguf.GGMLQuantizationType[kind]
            out.add_tensor(tensor.name, gguf.quantize(value, type_), raw_dtype=type_)
        else:
            out.add_tensor(tensor.name, np.ascontiguousarray(value))
    finish(out)
    return path


def sayable(name):
    """The example, where a GGUF file can say it: llama.cpp fixes what is left out."""
    spec = examples.SPECS[name]
    if name == "llama":
        rope = dataclasses.replace(spec.rope, theta=5e5, original_length=8192)
        return dataclasses.replace(spec, rope=rope)
    if name == "gemma3":
        return dataclasses.replace(
            spec,
            attention_scale=spec.head_size**-0.5,
            logit_softcap=None,
            is_sliding=(True,) * 3,
        )
    return spec


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3"])
def test_description_and_weights_are_read_back(name, tmp_path):
    spec = sayable(name)
    file = ours.File(write(tmp_path / "m.gguf", spec))
    assert ours.spec(file) == spec
    got, params = weights.load(spec, ours.source(file, spec)), examples.params_of(spec)
    close = jax.tree.map(lambda a, b: bool(np.allclose(a, b, atol=1e-6)), got, params)
    assert jax.tree.all(close)


def test_a_stretching_that_is_not_llama3s_is_refused(tmp_path):
    of_64_positions = examples.SPECS["llama"]
    file = ours.File(write(tmp_path / "m.gguf", of_64_positions))
    with pytest.raises(
        Refused, match=r"rope_freqs.weight in a way that is not Llama 3"
    ):
        ours.spec(file)


@pytest.mark.parametrize("kind", sorted(QUANTISED))
def test_quantised_weights_are_near_the_originals(kind, tmp_path):
    """Widths of 32 are one block of these formats."""
    blocks = dataclasses.replace(examples.SPECS["qwen3"], ffw=64)
    file = ours.File(write(tmp_path / "m.gguf", blocks, kind))
    spec = ours.spec(file)
    got = weights.load(spec, ours.source(file, spec))
    original = examples.params_of(spec)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(original), strict=True):
        assert np.abs(a - b).max() < QUANTISED[kind] * np.abs(b).max()


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_blocks_of_256_are_read_row_by_row(kind, tmp_path):
    """Nobody writes these in Python, so the blocks are random bytes."""
    type_ = gguf.GGMLQuantizationType[kind]
    block, size = gguf.quants.GGML_QUANT_SIZES[type_]
    rows = np.random.default_rng(0).integers(0, 60, (3, 2 * size), np.uint8)
    out = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3")
    out.add_tensor("token_embd.weight", rows, raw_dtype=type_)
    finish(out)
    file = ours.File(tmp_path / "m.gguf")
    got = file.dequantised("token_embd.weight")
    assert got.shape == file.shape("token_embd.weight") == (3, 2 * block)
    for row in range(3):  # a row is its own blocks, whatever its neighbours
        alone = gguf.dequantize(rows[row : row + 1], type_)
        np.testing.assert_array_equal(got[row], alone[0])
    assert len(np.unique(got[0])) > 8


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(Refused, match="is no GGUF file"):
        (tmp_path / "a.gguf").write_bytes(b"x" * 1000)
        ours.File(tmp_path / "a.gguf")
    whole = write(tmp_path / "b.gguf", examples.SPECS["qwen3"]).read_bytes()
    (tmp_path / "c.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refused, match="not complete"):
        ours.File(tmp_path / "c.gguf")
    out = gguf.GGUFWriter(tmp_path / "d.gguf", "mamba")
    out.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    finish(out)
    with pytest.raises(Refused, match="architecture 'mamba'; known are llama"):
        ours.spec(ours.File(tmp_path / "d.gguf"))
    out = gguf.GGUFWriter(tmp_path / "e.gguf", "llama")
    kind = gguf.GGMLQuantizationType.Q2_K
    block = np.zeros((1, gguf.quants.GGML_QUANT_SIZES[kind][1]), np.uint8)
    out.add_tensor("token_embd.weight", block, raw_dtype=kind)
    finish(out)
    with pytest.raises(Refused, match=r"1 tensors .*token_embd.weight as Q2_K"):
        ours.File(tmp_path / "e.gguf")


@pytest.mark.parametrize(
    ("key", "harmless", "harmful"),
    [
        ("rope.dimension_count", 8, 4),
        ("attention.value_length", 8, 16),
        ("expert_count", 0, 4),
        ("rope.scaling.factor", 1.0, 2.0),
        ("rope.scaling.attn_factor", 1.0, 2.0),
        ("embedding_scale", 1.0, 2.0),
        ("rope.scaling.yarn_ext_factor", 1.0, 0.5),
        ("attention.scale", None, 0.1),
        ("logit_scale", None, 0.1),
        ("attention.sliding_window", None, 64),
    ],
)
def test_metadata_that_would_change_the_model_are_refused(
    key, harmless, harmful, tmp_path
):
    spec = examples.SPECS["qwen3"]
    if harmless is not None:
        file = ours.File(write(tmp_path / "a.gguf", spec, **{key: harmless}))
        assert ours.spec(file) == spec
    file = ours.File(write(tmp_path / "b.gguf", spec, **{key: harmful}))
    with pytest.raises(Refused, match=rf"says qwen3.{key} = .*not implemented"):
        ours.spec(file)


def test_metadata_of_yarn_and_gemma_are_read(tmp_path):
    given = {"rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 2.0}
    given |= {"rope.scaling.attn_factor": 0.5}
    plain = examples.SPECS["qwen2"]
    rope = ours.spec(ours.File(write(tmp_path / "a.gguf", plain, **given))).rope
    assert (rope.beta_fast, rope.beta_slow) == (16.0, 2.0)
    assert rope.attention_factor == pytest.approx(plain.rope.attention_factor / 2)
    given = {"final_logit_softcapping": 20.0, "attn_logit_softcapping": 40.0}
    given |= {"rope.freq_base_swa": 500.0}
    gemma = ours.spec(ours.File(write(tmp_path / "b.gguf", sayable("gemma3"), **given)))
    assert (gemma.logit_softcap, gemma.attention_softcap) == (20.0, 40.0)
    assert gemma.local_rope.theta == 500.0


def test_metadata_that_are_lacking_are_listed(tmp_path):
    lost = ("embedding_length", "attention.head_count")
    file = ours.File(write(tmp_path / "a.gguf", examples.SPECS["qwen3"], without=lost))
    with pytest.raises(
        Refused, match=r"lacks embedding_length, attention.head_count\."
    ):
        ours.spec(file)


def test_a_part_of_a_split_file_is_refused(tmp_path):
    out = gguf.GGUFWriter(tmp_path / "m-00002-of-00003.gguf", "llama")
    out.add_uint16("split.no", 1)
    out.add_uint16("split.count", 3)
    out.add_tensor("output_norm.weight", np.zeros(4, np.float32))
    finish(out)
    with pytest.raises(Refused, match=r"is part 2 of 3. Merge them first: llama-gguf"):
        ours.File(tmp_path / "m-00002-of-00003.gguf")


def test_gemmas_pattern_of_sliding_layers(tmp_path):
    spec, key = sayable("gemma3"), "attention.sliding_window_pattern"
    for name, value in (("a", 6), ("b", [True, True, True])):
        assert (
            ours.spec(ours.File(write(tmp_path / name, spec, **{key: value}))) == spec
        )
    file = ours.File(write(tmp_path / "c", spec, **{key: [True, False, True]}))
    with pytest.raises(Refused, match="other layers slide than Gemma 3's"):
        ours.spec(file)


def test_a_number_for_each_layer_is_refused(tmp_path):
    spec, key = examples.SPECS["qwen3"], "attention.head_count"
    path = write(tmp_path / "a", spec, without=(key,), **{key: [4, 4, 2]})
    with pytest.raises(Refused, match=r"head_count = \[4, 4, 2\], not one number"):
        ours.spec(ours.File(path))
