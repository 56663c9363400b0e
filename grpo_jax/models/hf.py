"""Folders as Hugging Face lays them out: config.json and safetensors, in and out."""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from grpo_jax.models import config_json, names, transformer, weights
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

INDEX = "model.safetensors.index.json"
READABLE = ("F32", "F16", "BF16")
FILE_BYTES = 5 * 10**9  # at most, of one file


def source(folder: pathlib.Path) -> weights.Source:
    """The tensors of a folder's safetensors files; none has been read yet."""
    opened, shapes, kinds = {}, {}, set()
    for path in _files(folder):
        file = _open(path)
        for name in file.keys():  # noqa: SIM118  (not a dict)
            if name in opened:
                raise Refused(
                    f"{folder} holds {name} twice, the second time in {path.name}. One "
                    "of the files is left over from another model: remove it."
                )
            tensor = file.get_slice(name)
            if tensor.get_dtype() not in READABLE:
                raise Refused(
                    f"{path} holds {name} as {tensor.get_dtype()}; readable are "
                    f"{', '.join(READABLE)}. Convert the model to one of them."
                )
            opened[name], shapes[name] = file, tuple(tensor.get_shape())
            kinds.add(tensor.get_dtype())

    def read(name: str) -> np.ndarray:
        return opened[name].get_tensor(name)

    exact = "bfloat16" if kinds == {"BF16"} else "float32"
    return weights.Source(str(folder), names.HF, shapes, read, exact)


def save(
    folder: pathlib.Path,
    spec: Spec,
    params: transformer.Params,
    ids: Mapping[str, Any] | None = None,
):
    """config.json and the weights, in their own dtype, as `transformers` opens them.

    `ids` are the tokenizer's: without them the classes of `transformers` invent some.
    """
    fields = config_json.from_spec(spec) | {"dtype": str(params["embed"].dtype)}
    fields |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    fields |= ids or {}
    fields["architectures"] = [config_json.ARCHITECTURES[spec.family]]
    files = list(_split(weights.tensors(spec, params, names.HF)))
    places = {}
    for number, tensors in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        name = "model.safetensors" if len(files) == 1 else name
        values = {tensor.name: tensor.fetch() for tensor in tensors}
        safetensors.numpy.save_file(values, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(values, name)
    if len(files) > 1:
        size = sum(tensor.bytes for tensors in files for tensor in tensors)
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write into, which gets its name when all of it is written."""
    refuse_existing(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial)
        raise
    partial.rename(folder)


def refuse_existing(folder: pathlib.Path):
    if folder.exists():
        raise Refused(f"{folder} exists already. Give a folder that does not.")


def _split(
    tensors: Iterator[weights.Tensor],
) -> Iterator[list[weights.Tensor]]:
    """Runs of tensors that fit in one file."""
    run, size = [], 0
    for tensor in tensors:
        if run and size + tensor.bytes > FILE_BYTES:
            yield run
            run, size = [], 0
        run.append(tensor)
        size += tensor.bytes
    yield run


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The weight files: those of the index, or all there are."""
    if (folder / INDEX).is_file():
        places = config_json.read_object(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(
            isinstance(name, str) for name in places.values()
        ):
            raise Refused(f"{folder / INDEX} has no map of weights. Fetch it again.")
        files = [folder / name for name in sorted(set(places.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise Refused(
                f"{folder} lacks {', '.join(missing)}, which its {INDEX} lists. The "
                "download is not complete: fetch the model again."
            )
        return files
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    if list(folder.glob("*.bin")) or list(folder.glob("*.pt*")):
        raise Refused(
            f"{folder} holds pickled weights (.bin), which can run code when they are "
            "opened. Take a version of the model in safetensors: in Python, "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(another)."
        )
    raise Refused(f"{folder} holds no weights: no *.safetensors in it.")


def _open(path: pathlib.Path):
    try:
        return safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise Refused(
            f"{path} is damaged or not complete ({error}). Fetch it again."
        ) from None
