"""Tensors of a file → parameters in their sharded layout, and back, one at a time.

Nothing is read before every name and every shape in the file has been compared with
what the description expects. Then each tensor is read once and goes to the devices that
this process has, into its layer of a stacked parameter: beyond the parameters, memory
holds one tensor of the file.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import programs, sharding, tree
from grpo_jax.models import names, transformer
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused


class Source(NamedTuple):
    """A file, or several: which tensors there are, and how one is read."""

    where: str  # for messages
    form: Mapping[str, str]  # names.HF or names.GGUF
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    exact: str  # the narrowest of our dtypes that holds all of them unrounded


def load(
    spec: Spec, source: Source, dtype: str = "float32", shardings: Any = None
) -> transformer.Params:
    """The parameters, each on the devices that its sharding names."""
    table = names.table(spec, source.form)
    check(spec, source)
    _check_twin(spec, source)
    shapes = transformer.abstract(spec, dtype)

    def one(path, whole, target):
        layers = whole.shape[0] if _is_stacked(path) else None
        ours = whole.shape[1:] if layers else whole.shape

        def tensor(layer=None):
            value = source.read(table[path].format(layer))
            return names.to_ours(path, value, ours).astype(whole.dtype)

        if layers is None:
            return _place(tensor(), target)
        stacked = jnp.zeros(whole.shape, whole.dtype, device=target)
        inner = sharding.of_layer(target)
        for layer in range(layers):
            value = _place(tensor(layer), inner)
            stacked = programs.put_layer(stacked, value, layer)
        return stacked

    shardings = sharding.one_device(shapes) if shardings is None else shardings
    return jax.tree.map(one, tree.paths(shapes), shapes, shardings)


def _place(value: np.ndarray, target: jax.sharding.Sharding) -> jax.Array:
    """On the devices of this process, each its own part."""
    return jax.make_array_from_callback(value.shape, target, lambda at: value[at])


class Tensor(NamedTuple):
    """One tensor of a file to be written; its values are fetched when it is."""

    name: str
    bytes: int
    fetch: Callable[[], np.ndarray]


def tensors(
    spec: Spec, params: transformer.Params, form: Mapping[str, str]
) -> Iterator[Tensor]:
    """The tensors of a file of that form, layer by layer."""
    for path, value, layer, name in _places(spec, params, form):
        fetch = functools.partial(_fetch, path, value, layer)
        share = 1 if layer is None else spec.layers
        yield Tensor(name, value.nbytes // share, fetch)


def _fetch(path: str, value: jax.Array, layer: int | None = None) -> np.ndarray:
    return names.to_theirs(path, np.asarray(value if layer is None else value[layer]))


def check(spec: Spec, source: Source):
    """Refuses missing, extra and misshapen tensors, all of them in one message."""
    expected = {
        name: names.their_shape(path, leaf.shape[_is_stacked(path) :])
        for path, leaf, _, name in _places(
            spec, transformer.abstract(spec), source.form
        )
    }
    found = {
        n: s for n, s in source.shapes.items() if not names.NO_PARAMETERS.search(n)
    }
    if spec.tied:
        found.pop(names.HF["unembed"], None)
    faults = [f"missing: {name}" for name in expected.keys() - found.keys()]
    faults += [f"not expected: {name}" for name in found.keys() - expected.keys()]
    faults += [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if faults:
        listed = "\n  ".join(sorted(faults))
        raise Refused(
            f"{source.where} does not hold this {spec.family} model's tensors:\n  "
            f"{listed}\nIts description and its weights do not belong together."
        )


def _check_twin(spec: Spec, source: Source):
    """A tied model's file may hold its embedding twice, if it is the same."""
    if spec.tied and names.HF["unembed"] in source.shapes:
        embed, unembed = (source.read(names.HF[n]) for n in ("embed", "unembed"))
        if not np.array_equal(embed, unembed):
            raise Refused(
                f"{source.where} ties embedding and unembedding, but holds both and "
                "they differ. Set tie_word_embeddings to false in its config.json."
            )


def _places(
    spec: Spec, params: transformer.Params, form: Mapping[str, str]
) -> Iterator[tuple[str, Any, int | None, str]]:
    """(path, parameter, layer or None, name) of every tensor of a file of that form."""
    table = names.table(spec, form)
    paths = jax.tree.leaves(tree.paths(params))
    for path, leaf in zip(paths, jax.tree.leaves(params), strict=True):
        for layer in range(spec.layers) if _is_stacked(path) else (None,):
            yield path, leaf, layer, table[path].format(layer)


def _is_stacked(path: str) -> bool:
    return path.startswith("layers/")
