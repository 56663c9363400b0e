"""The commands about models: sample from one, list them, write one elsewhere."""

import sys
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from grpo_jax import (
    display,
    experiment,
    line,
    prng,
    programs,
    rollout,
    runs,
    selftest,
)
from grpo_jax.models import hf, load, memory, settings, sizes
from grpo_jax.models.spec import Spec
from grpo_jax.pool import Question, Sampler
from grpo_jax.sampling.settings import Sampling
from grpo_jax.section import Refused
from grpo_jax.text import prompts

# Of a description, what is shown even if it is the default.
SHAPE = {"family", "vocab", "layers", "width", "ffw", "heads", "kv_heads", "head_size"}
DType = Literal["float32", "bfloat16"]


class Sample(NamedTuple):
    """What a model answers."""

    model: line.Model  # tiny, smollm2-135m, a folder, a .gguf, a hub id, or a run's
    text: line.Text  # the question
    n: int = 1  # answers
    temperature: float = 0.7  # 0: the likeliest token each time
    top_k: int | None = None  # draw from the k likeliest tokens
    top_p: float | None = None  # from the likeliest that reach this share
    min_p: float | None = None  # from those with this share of the likeliest's
    max_new: int = 256  # tokens of an answer
    stop: tuple[str, ...] = ()  # texts that end an answer
    seed: int = 0  # every draw follows from it
    chat: bool = False  # write the text as the model's chat template has it ...
    # ... or not; by default as a run put its questions, or as a template that is there
    raw: bool = False
    dtype: DType = "float32"  # of parameters and computation
    self_test: bool = False  # instead: are draws distributed as they should be?


def sample(words: list[str]) -> int:
    given = line.parse("sample", Sample, words)
    if given.chat and given.raw:
        raise Refused("--chat and --raw contradict each other. Give one.")
    if given.n < 1:
        raise Refused(f"--n is {given.n}; it must be at least one answer.")
    chosen = Sampling(
        temperature=given.temperature,
        top_k=given.top_k,
        top_p=given.top_p,
        min_p=given.min_p,
        max_new=given.max_new,
        stop_strings=given.stop,
        segment=8,  # a glance at the text every few tokens
        cache=given.dtype,
    )
    numerics = settings.Numerics(compute=given.dtype)
    wanted = settings.Model(name=given.model, dtype=given.dtype, numerics=numerics)
    root = prng.root(given.seed)
    found = runs.find(wanted)
    step = runs.step(found, "latest", _warn)
    key = prng.step_key(root, prng.Stream.INIT, 0)
    model = runs.read(found, given.dtype, key, step=step)
    question = _question(found, given.text, given.chat, given.raw)
    params = programs.publish(model.params, given.dtype, spends=True)
    model = model._replace(params=params)
    if given.self_test:
        return _self_test(model, question, numerics)
    text = model.tokenizer
    sampler = Sampler(model.spec, chosen, given.n, text.stop_ids, text.size, numerics)
    key = prng.step_key(root, prng.Stream.SAMPLE, 0)
    _show(model, sampler, [Question(0, question)], key)
    return 0


def _show(model: load.Model, sampler: Sampler, questions: list[Question], key):
    """One answer as it comes, several in a table."""
    decode, strings = model.tokenizer.decode, sampler.settings.stop_strings
    stop = rollout.stop_strings(strings, decode) if strings else lambda *row: None
    stream = _Stream(decode) if sampler.group_size == 1 else None

    def watch(number, sample, tokens):
        keep = stop(number, sample, tokens)
        if stream:
            stream.show(tokens[:keep])
        return keep

    (answers,) = rollout.answers(sampler, model.params, questions, key, watch)
    if stream:
        stream.end()
        return
    table = Table("answer", "tokens", "text")
    for number, n in enumerate(answers.length):
        text = decode(answers.tokens[number, :n].tolist())
        table.add_row(str(number), str(n), display.plain(text))
    Console(highlight=False, markup=False).print(table)


class _Stream:
    """Writes what is certain: bytes of a character that is not whole have to wait."""

    def __init__(self, decode: Callable[[list[int]], str]):
        self.decode, self.text, self.written = decode, "", 0

    def show(self, tokens: np.ndarray):
        self.text = self.decode(tokens.tolist())
        if not self.text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._write("")

    def end(self):
        self._write("\n")

    def _write(self, end: str):
        print(display.plain(self.text[self.written :]), end=end, flush=True)
        self.written = len(self.text)


def _self_test(model: load.Model, question: list[int], numerics) -> int:
    """0: draws are as they should be; 1: they are not."""
    wrong = 0
    for verdict in selftest.run(model, question, numerics):
        wrong += not verdict.is_right
        wrongly = "WRONG" if verdict.bins > 1 else "CANNOT TELL"
        word = "as it should be" if verdict.is_right else wrongly
        print(
            f"{verdict.name:24} {verdict.draws:9,} draws in {verdict.bins:2} bins, "
            f"p = {verdict.p:.2g}: {word}",
            flush=True,
        )
    return min(wrong, 1)


def _question(found: runs.Found, text: str, chat: bool, raw: bool) -> list[int]:
    tokenizer, instruction = found.base.tokenizer, "none"
    wrapping = "chat" if chat or (not raw and tokenizer.has_template) else "raw"
    if found.settings is not None and not (chat or raw):
        asked = found.settings.data
        instruction, wrapping = asked.instruction, asked.wrapping
    how = {"instruction": instruction, "wrapping": wrapping}
    return prompts.prompt(text, tokenizer, **how)


class Models(NamedTuple):
    """The models known by name, what is on this machine; or one of them in detail."""

    name: Annotated[str | None, tyro.conf.Positional] = None  # all, or one, or a run


def models(words: list[str]) -> int:
    (name,) = line.parse("models", Models, words)
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
    return runs.find(settings.Model(name=name)).base.spec


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


class Convert(NamedTuple):
    """Writes a model as a folder that transformers opens."""

    source: line.Model  # a folder, a .gguf, smollm2-135m, tiny, a hub id, or a run's
    folder: line.Folder  # must not exist yet
    dtype: DType | None = None  # of the written weights; by default, unrounded


def convert(words: list[str]) -> int:
    name, folder, dtype = line.parse("convert", Convert, words)
    if folder.suffix == ".gguf":
        raise Refused(
            f"{folder}: GGUF files are read, not written. Give the name of a folder; "
            "llama.cpp's convert_hf_to_gguf.py makes a GGUF file of it."
        )
    hf.refuse_existing(folder)
    key = prng.step_key(prng.root(0), prng.Stream.INIT, 0)
    found = runs.find(settings.Model(name=name))
    step = runs.step(found, "latest", _warn)
    exact = found.exact
    dtype = dtype or exact
    model = runs.read(found, dtype, key, step=step)
    load.save(folder, model)
    size = sum(x.nbytes for x in jax.tree.leaves(model.params)) / memory.GIB
    rounded = ", rounded" if (dtype, exact) == ("bfloat16", "float32") else ""
    print(f"{name} → {folder}: {size:.2f} GiB of {dtype}{rounded}")
    return 0


def _warn(text: str):
    print(text, file=sys.stderr)
