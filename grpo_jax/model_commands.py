"""The commands about models: sample from one, list them, write one elsewhere."""

import pathlib
from typing import Annotated, Literal

import jax
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from grpo_jax import experiment, generate, prng
from grpo_jax.models import hf, load, memory, settings, sizes
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

# Of a description, what is shown even if it is the default.
SHAPE = {"family", "vocab", "layers", "width", "ffw", "heads", "kv_heads", "head_size"}
DType = Literal["float32", "bfloat16"]
Word = Annotated[str, tyro.conf.Positional]


def sample(words: list[str]) -> int:
    def options(
        model: Word,  # tiny, smollm2-135m, a folder, a .gguf file, or a hub id
        text: Word,  # the question
        n: int = 1,  # answers
        temperature: float = 0.7,  # 0: the likeliest token each time
        top_p: float = 1.0,  # draw from the likeliest tokens that reach this share
        max_new: int = 256,  # tokens of an answer
        seed: int = 0,  # every draw follows from it
        chat: bool = False,  # write the text as the model's chat template has it ...
        raw: bool = False,  # ... or not; by default, if there is a template
        dtype: DType = "float32",  # of parameters and computation
    ):
        return locals()

    given = _parse("sample", options, words)
    if given["chat"] and given["raw"]:
        raise Refused("--chat and --raw contradict each other. Give one.")
    numerics = settings.Numerics(compute=given["dtype"])
    chosen = settings.Model(
        name=given["model"], dtype=given["dtype"], numerics=numerics
    )
    key = prng.step_key(prng.root(given["seed"]), prng.Stream.INIT, 0)
    model = load.load(chosen, key)
    question = _question(model, given["text"], given["chat"], given["raw"])
    picked = generate.Options(*(given[name] for name in generate.Options._fields))
    steps = generate.tokens(model, question, picked, numerics)
    (_stream if picked.n == 1 else _table)(model, steps)
    return 0


def _question(model: load.Model, text: str, chat: bool, raw: bool) -> list[int]:
    if chat or (not raw and model.tokenizer.has_template):
        text = model.tokenizer.chat([{"role": "user", "content": text}])
        return model.tokenizer.encode(text)
    return [*model.tokenizer.start_ids, *model.tokenizer.encode(text)]


def _stream(model: load.Model, steps):
    """Writes what is certain: bytes of a character that is not whole have to wait."""
    console, ids, shown = Console(highlight=False, markup=False), [], ""
    for token in steps:
        ids.append(int(token[0]))
        text = model.tokenizer.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            console.print(text[len(shown) :], end="", soft_wrap=True)
            shown = text
    console.print(model.tokenizer.decode(ids)[len(shown) :])


def _table(model: load.Model, steps):
    rows = [[int(i) for i in row if i >= 0] for row in zip(*steps, strict=True)]
    table = Table("answer", "tokens", "text")
    for number, ids in enumerate(rows):
        text = model.tokenizer.decode(ids)
        table.add_row(str(number), str(len(ids)), text)
    Console(highlight=False, markup=False).print(table)


def models(words: list[str]) -> int:
    def options(
        name: Annotated[str | None, tyro.conf.Positional] = None,  # or all
    ):
        return name

    name = _parse("models", options, words)
    if name is not None:
        print(_described(name))
        return 0
    table = Table("model", "family", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("parameters", "GiB fp32", "GiB bf16", "KV bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    for title, spec in sizes.SPECS.items():
        table.add_row(title, spec.family, *_numbers(spec))
    Console(highlight=False).print(table)
    print(f"KV: keys and values of one token, in bf16\n{_here()}")
    return 0


def _spec(name: str) -> Spec:
    if name in sizes.SPECS:
        return sizes.SPECS[name]
    return load.find(settings.Model(name=name)).spec


def _numbers(spec: Spec) -> list[str]:
    gib = [
        f"{memory.parameter_bytes(spec, dtype) / memory.GIB:.2f}"
        for dtype in ("float32", "bfloat16")
    ]
    return [f"{sizes.parameters(spec):,}", *gib, f"{sizes.cache_bytes(spec, 2):,}"]


def _described(name: str) -> str:
    """One model, a line for each thing that is not at its default."""
    spec = _spec(name)
    numbers, full, half, cache = _numbers(spec)
    lines = [
        f"{name}: {numbers} parameters, {full} GiB in float32, {half} in bfloat16",
        f"  keys and values of one token in bfloat16: {cache} bytes",
    ]
    plain = experiment.flat(Spec())
    for key, value in experiment.flat(spec).items():
        if key in SHAPE or value != plain.get(key):
            lines.append(f"  {key} = {value!r}")
    return "\n".join(lines)


def _here() -> str:
    """What this machine has."""
    devices, first = jax.devices(), jax.local_devices()[0]
    own, host = memory.of_device(first), memory.of_host()
    left = host if own is None else own
    free = "unknown" if left is None else f"{left / memory.GIB:.1f} GiB"
    free += "" if own is None else " on each"
    lines = [f"devices: {len(devices)} × {first.device_kind}; free memory: {free}"]
    try:
        lines.append(f"smollm2-135m: {load.smollm2()}")
    except Refused as error:
        lines.append(str(error))
    return "\n".join(lines)


def convert(words: list[str]) -> int:
    def options(
        source: Word,  # a folder, a .gguf file, smollm2-135m, tiny, or a hub id
        folder: Annotated[pathlib.Path, tyro.conf.Positional],  # must not exist yet
        dtype: DType | None = None,  # of the written weights; by default, unrounded
    ):
        return source, folder, dtype

    name, folder, dtype = _parse("convert", options, words)
    if folder.suffix == ".gguf":
        raise Refused(
            f"{folder}: GGUF files are read, not written. Give the name of a folder; "
            "llama.cpp's convert_hf_to_gguf.py makes a GGUF file of it."
        )
    hf.refuse_existing(folder)
    key = prng.step_key(prng.root(0), prng.Stream.INIT, 0)
    found = load.find(settings.Model(name=name))
    exact = found.source.exact if found.source else "float32"
    dtype = dtype or exact
    model = load.read(found, dtype, key)
    load.save(folder, model)
    size = sum(x.nbytes for x in jax.tree.leaves(model.params)) / memory.GIB
    rounded = ", rounded" if (dtype, exact) == ("bfloat16", "float32") else ""
    print(f"{name} → {folder}: {size:.2f} GiB of {dtype}{rounded}")
    return 0


def _parse(command: str, options, words: list[str]):
    return tyro.cli(options, args=words, prog=f"python -m grpo_jax {command}")
