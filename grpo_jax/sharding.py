"""Where each parameter lives on a mesh: rules by path, for ("data", "fsdp", "model").

fsdp cuts a parameter where it is only stored, and is gathered for use; model cuts
heads, the MLP's inner width and the vocabulary, which are computed in parts.
Layers, the leading axis of `layers/*`, are never cut. A dimension that its axis does
not divide (2 key heads on 4 devices) is kept whole on each device, and named.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    Sharding,
    SingleDeviceSharding,
)
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from grpo_jax import tree
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

AXES = ("data", "fsdp", "model")
ROWS = ("data", "fsdp")  # the axes that rows are cut over
RULES = [
    (r"^(un)?embed$", P("model", "fsdp")),
    (r"^layers/w[qkv]$", P(None, "fsdp", "model", None)),
    (r"^layers/wo$", P(None, "model", None, "fsdp")),
    (r"^layers/w[gu]$", P(None, "fsdp", "model")),
    (r"^layers/wd$", P(None, "model", "fsdp")),
    (r"^layers/b[qkv]$", P(None, "model", None)),
    (r"^layers/b[gu]$", P(None, "model")),
    (r"^layers/b[od]$", P(None, None)),
    # adapters: small, so only cut where the product would be
    (r"^layers/w[qkv]_a$", P(None, "fsdp", None)),
    (r"^layers/w[qkv]_b$", P(None, None, "model", None)),
    (r"^layers/wo_a$", P(None, "model", None, None)),
    (r"^layers/w[od]_b$", P(None, None, "fsdp")),
    (r"^layers/w[gu]_a$", P(None, "fsdp", None)),
    (r"^layers/w[gu]_b$", P(None, None, "model")),
    (r"^layers/wd_a$", P(None, "model", None)),
    (r"(^|/|_)norm$", P()),
    (r"^head/", P()),
]


def mesh(data: int, fsdp: int, model: int, devices: Any = None) -> Mesh:
    """A mesh over these devices, or over all there are."""
    shape = data, fsdp, model
    devices = jax.devices() if devices is None else devices
    if math.prod(shape) != len(devices):
        raise Refused(
            f"the mesh data × fsdp × model is {' × '.join(map(str, shape))} = "
            f"{math.prod(shape)}; there are {len(devices)} devices. Make them equal."
        )
    return jax.make_mesh(shape, AXES, devices=devices, axis_types=(AxisType.Auto,) * 3)


def of_axes(axes: tuple[int, int, int] | None) -> Mesh:
    """Over all devices there are; None: everything is cut over them (fsdp)."""
    return mesh(*(axes or (1, jax.device_count(), 1)))


def of_params(params: Any, on: Mesh | AbstractMesh) -> tuple[Any, dict[str, str]]:
    """A sharding for every parameter; and what could not be cut, by path."""
    whole = {}

    def one(path, spec, x):
        fitted = []
        for i, axis in enumerate(_full(path, spec, x.ndim)):
            if axis is not None and x.shape[i] % on.shape[axis]:
                whole[path] = f"axis {i}, {x.shape[i]} over {axis} = {on.shape[axis]}"
                axis = None
            fitted.append(axis)
        return NamedSharding(on, P(*fitted))

    specs = tree.match(RULES, params)
    return jax.tree.map(one, tree.paths(params), specs, params), whole


def placed(shapes: Any, on: Mesh) -> Any:
    """The same shapes of parameters, each in its place."""
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        shapes,
        of_params(shapes, on)[0],
    )


def _full(path: str, spec: P, ndim: int) -> tuple:
    """The rule's axes, or none for a rule that keeps everything whole."""
    if not spec:
        return (None,) * ndim
    if len(spec) != ndim:
        raise Refused(
            f"{path} has {ndim} axes; its sharding rule has {len(spec)}: {spec}. "
            "Mend sharding.RULES."
        )
    return tuple(spec)


def of_optimizer(
    optimizer: optax.GradientTransformation, params: Any, layout: Any
) -> Any:
    """Moments as their parameters, all else everywhere; `params` may be shapes only."""
    everywhere = NamedSharding(jax.tree.leaves(layout)[0].mesh, P())

    def one(x, param, where):
        return where if x.shape == param.shape else everywhere

    return optax.tree.map_params(
        optimizer,
        one,
        jax.eval_shape(optimizer.init, params),
        params,
        layout,
        transform_non_params=lambda _: everywhere,
    )


def of_layer(stacked: Sharding) -> Sharding:
    """How one layer of a stacked parameter lies; layers themselves are never cut."""
    if isinstance(stacked, NamedSharding):
        return NamedSharding(stacked.mesh, P(*stacked.spec[1:]))
    return stacked


def one_device(params: Any) -> Any:
    """Everything on the first device of this process."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: here, params)


def lanes(on: Mesh | AbstractMesh | None) -> int:
    """How many parts rows are cut into."""
    return 1 if on is None else math.prod(on.shape[axis] for axis in ROWS)


def own_lanes(on: Mesh) -> tuple[int, int]:
    """The first of those that this process has devices in, and so feeds; how many."""
    owners = np.vectorize(lambda device: device.process_index)(on.devices)
    own = np.flatnonzero((owners == jax.process_index()).any(-1))
    if len(own) != own[-1] - own[0] + 1:
        raise Refused(
            f"process {jax.process_index()} has devices in the lanes {own.tolist()}; "
            "they must follow one another. Let the mesh's first axes be over hosts."
        )
    return int(own[0]), len(own)


def own_mesh(on: Mesh) -> Mesh:
    """This process's part of it, to work on without the others."""
    if jax.process_count() == 1:
        return on
    first, count = own_lanes(on)
    devices = on.devices.reshape(-1, on.shape["model"])[first : first + count]
    others = {d.process_index for d in devices.flat} - {jax.process_index()}
    if others:
        raise Refused(
            f"a model is cut over the processes {sorted(others)} and this one; to "
            "sample, each needs a whole one. Make the mesh's model axis smaller."
        )
    return mesh(count, 1, on.shape["model"], devices.flatten().tolist())


def own(params: Any, on: Mesh) -> Any:
    """This process's copy of parameters that no other axis than model cuts."""
    if jax.process_count() == 1:
        return params
    order = {device: i for i, device in enumerate(on.devices.flat)}

    def one(x):
        shards = sorted(x.addressable_shards, key=lambda shard: order[shard.device])
        where = NamedSharding(on, x.sharding.spec)
        parts = [shard.data for shard in shards]
        return jax.make_array_from_single_device_arrays(x.shape, where, parts)

    return jax.tree.map(one, params)


def of_rows(on: Mesh) -> NamedSharding:
    """Rows, the first axis, in lanes."""
    return NamedSharding(on, P(ROWS))


def by_rows(x: Array) -> Array:
    """The first axis in lanes, all others as they come; where `on_mesh` is in force.

    Without it a compiler may cut products another way, and give every device all rows.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(x) % lanes(mesh):
        return x
    free = (P.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, P(ROWS, *free))


def in_lanes(function: Callable, known: Any, rows: Any) -> Any:
    """function(known, rows) on the rows of each lane, by itself.

    What is `known` is whole in every lane, gathered once, and its gradients are added
    over lanes once: in a loop over a lane's rows a compiler would do so every time.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or lanes(mesh) == 1:
        return function(known, rows)
    return jax.shard_map(
        function,
        in_specs=(P(), P(ROWS)),
        out_specs=P(ROWS),
        axis_names=set(ROWS),
        check_vma=False,
    )(known, rows)


def lookup(table: Array, ids: Array) -> Array:
    """table[ids], of each lane's own ids. A table that is cut by columns stays so.

    A device looks its columns up for all that share the table, and then they swap.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or len(ids) % lanes(mesh):
        return table[ids]
    if table.shape[1] % mesh.shape["fsdp"]:
        return in_lanes(lambda table, ids: table[ids], table, ids)

    def swap(table, ids):
        columns = table[jax.lax.all_gather(ids, "fsdp", tiled=True)]
        return jax.lax.all_to_all(columns, "fsdp", 0, ids.ndim, tiled=True)

    return jax.shard_map(
        swap,
        in_specs=(P(None, "fsdp"), P(ROWS)),
        out_specs=P(ROWS),
        axis_names=set(ROWS),
        check_vma=False,
    )(table, ids)


def on_mesh(function: Callable, mesh: Mesh | None) -> Callable:
    """The same, and what it calls knows the mesh that it is compiled for."""
    if mesh is None:
        return function

    @functools.wraps(function)
    def inside(*args, **kwargs):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return inside


def of_cache(spec: Spec, on: Mesh, axes_between: int) -> NamedSharding:
    """A layer's keys or values [rows, ..., K, _, _]: heads where they divide."""
    divides = spec.kv_heads % on.shape["model"] == 0
    heads = "model" if divides else None
    return NamedSharding(on, P(ROWS, *(None,) * axes_between, heads))


def for_decoding(params: Any, on: Mesh | AbstractMesh) -> Any:
    """Parameters cut over heads and inner width alone: none is gathered for a token.

    Of a stack, the sharding of each layer.
    """
    layout, _ = of_params(params, on)

    def one(path, x):
        axes = P(*(None if axis == "fsdp" else axis for axis in x.spec))
        whole = NamedSharding(on, axes)
        return of_layer(whole) if path.startswith("layers/") else whole

    return jax.tree.map(one, tree.paths(params), layout)
