"""Safetensors folders: what is written is read back, what is wrong is listed."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from grpo_jax import programs, sharding
from grpo_jax.models import hf, transformer, weights
from grpo_jax.section import Refused
from tests.models import examples

SPEC = examples.SPECS["llama"]


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.fixture
def folder(tmp_path):
    """The llama's tensors in two files with an index."""
    hf.save(tmp_path, SPEC, examples.params_of(SPEC))
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    write(tmp_path, tensors)
    return tmp_path


def write(folder, tensors):
    names = sorted(tensors)
    places = {}
    for number, half in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        values = {name: np.ascontiguousarray(tensors[name]) for name in half}
        safetensors.numpy.save_file(values, folder / file)
        places |= dict.fromkeys(half, file)
    (folder / hf.INDEX).write_text(json.dumps({"weight_map": places}))


def tensors_of(folder):
    out = {}
    for file in folder.glob("*.safetensors"):
        out |= safetensors.numpy.load_file(file)
    return out


@pytest.mark.parametrize("name", sorted(examples.SPECS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_written_is_read_back_to_the_bit(name, dtype, tmp_path):
    spec = examples.SPECS[name]
    params = examples.params_of(spec, dtype)
    hf.save(tmp_path, spec, params)
    assert same(weights.load(spec, hf.source(tmp_path), dtype), params)
    wider = weights.load(spec, hf.source(tmp_path), "float32")
    assert same(wider, jax.tree.map(lambda x: x.astype("float32"), params))


def test_large_models_are_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(hf, "FILE_BYTES", 20_000)
    params = examples.params_of(SPEC)
    hf.save(tmp_path, SPEC, params)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert (
        len(files) > 2
        and files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    )
    assert all(file.stat().st_size < 25_000 for file in files)
    index = json.loads((tmp_path / hf.INDEX).read_text())
    total = sum(x.nbytes for x in jax.tree.leaves(params))
    assert index["metadata"]["total_size"] == total
    assert same(weights.load(SPEC, hf.source(tmp_path)), params)


def test_weights_come_straight_into_their_shards(folder):
    mesh = sharding.mesh(1, 2, 2)
    layout, _ = sharding.of_params(transformer.abstract(SPEC), mesh)
    params = weights.load(SPEC, hf.source(folder), "float32", layout)
    wq = params["layers"]["wq"]
    assert wq.sharding == NamedSharding(mesh, P(None, "fsdp", "model", None))
    assert {shard.data.shape for shard in wq.addressable_shards} == {(3, 16, 2, 8)}
    assert same(params, examples.params_of(SPEC))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2)])
def test_a_stacked_parameter_is_filled_in_place(shape):
    """Each layer goes into the memory that is there: no second copy on any device."""
    mesh = sharding.mesh(*shape, jax.devices()[: math.prod(shape)])
    layout = NamedSharding(mesh, P(None, "fsdp", "model"))
    stacked = jnp.zeros((3, 4, 8), device=layout)
    layer = jax.device_put(jnp.ones((4, 8)), sharding.of_layer(layout))
    compiled = programs.put_layer.lower(stacked, layer, 1).compile()
    part = stacked.nbytes // math.prod(shape)
    assert compiled.memory_analysis().alias_size_in_bytes == part
    out = programs.put_layer(stacked, layer, 1)
    assert stacked.is_deleted() and out.sharding == layout
    np.testing.assert_array_equal(out[:, 0, 0], [0, 1, 0])


def test_a_tensor_is_read_once_whatever_the_mesh(folder):
    source, reads = hf.source(folder), []

    def counted(name):
        reads.append(name)
        return source.read(name)

    layout, _ = sharding.of_params(transformer.abstract(SPEC), sharding.mesh(2, 2, 1))
    weights.load(SPEC, source._replace(read=counted), "float32", layout)
    assert sorted(reads) == sorted(source.shapes)


def test_all_that_does_not_fit_is_listed_at_once(folder):
    tensors = tensors_of(folder)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = np.zeros(7, np.float32)
    tensors["model.vision.weight"] = np.zeros(2, np.float32)
    write(folder, tensors)
    with pytest.raises(Refused) as error:
        weights.load(SPEC, hf.source(folder))
    text = str(error.value)
    assert "missing: model.layers.1.mlp.up_proj.weight" in text
    assert "model.norm.weight is [7], expected [32]" in text
    assert "not expected: model.vision.weight" in text


def test_buffers_of_older_files_are_no_parameters(folder):
    tensors = tensors_of(folder)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)
    write(folder, tensors)
    assert same(weights.load(SPEC, hf.source(folder)), examples.params_of(SPEC))


def test_a_tied_model_may_hold_its_embedding_twice_but_not_two_of_them(tmp_path):
    spec = examples.SPECS["qwen3"]
    hf.save(tmp_path, spec, examples.params_of(spec))
    file = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    safetensors.numpy.save_file(tensors, file)
    assert same(weights.load(spec, hf.source(tmp_path)), examples.params_of(spec))
    tensors["lm_head.weight"] += 1
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(Refused, match="holds both and they differ"):
        weights.load(spec, hf.source(tmp_path))


def test_a_tensor_in_two_files_is_refused(folder):
    (folder / hf.INDEX).unlink()
    values = {"model.norm.weight": np.zeros(32, np.float32)}
    safetensors.numpy.save_file(values, folder / "other.safetensors")
    with pytest.raises(Refused, match=r"holds model.norm.weight twice"):
        hf.source(folder)


@pytest.mark.parametrize("size", [4, 100, 20_000])
def test_a_file_that_was_cut_off_is_named(folder, size):
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(Refused, match=r"model-00002-of-00002.*not complete"):
        hf.source(folder)


def test_a_file_that_is_not_there_yet_is_named(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Refused, match=r"lacks model-00002.*download is not complete"):
        hf.source(folder)


def test_folders_without_readable_weights(tmp_path):
    with pytest.raises(Refused, match="holds no weights"):
        hf.source(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Refused, match=r"pickled weights .*save_pretrained"):
        hf.source(tmp_path)
    values = {"model.norm.weight": np.zeros(32, np.int8)}
    safetensors.numpy.save_file(values, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match=r"model.norm.weight as I8; readable are F32"):
        hf.source(tmp_path)


def test_nothing_has_the_folders_name_before_it_is_whole(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(ZeroDivisionError), hf.writing(target) as partial:
        (partial / "half").write_text("")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with hf.writing(target) as partial:
        (partial / "whole").write_text("")
    assert [file.name for file in target.iterdir()] == ["whole"]
    with pytest.raises(Refused, match="exists already"), hf.writing(target):
        pass


def test_without_shardings_one_device_holds_everything(folder):
    params = weights.load(SPEC, hf.source(folder))
    one = SingleDeviceSharding(jax.local_devices()[0])
    assert all(x.sharding == one for x in jax.tree.leaves(params))
    assert jnp.all(params["norm"] == examples.params_of(SPEC)["norm"])


def test_a_damaged_index_is_named(folder):
    (folder / hf.INDEX).write_text("{")
    with pytest.raises(Refused, match=r"index.json is not JSON"):
        hf.source(folder)
    (folder / hf.INDEX).write_text("[]")
    with pytest.raises(Refused, match=r"index.json holds no JSON object"):
        hf.source(folder)
