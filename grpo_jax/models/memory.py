"""Does a model fit? Said in numbers, before anything is read."""

import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from grpo_jax import tree
from grpo_jax.models import sizes, transformer
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

GIB = 2**30
CONTAINER = pathlib.Path("/sys/fs/cgroup")


def parameter_bytes(spec: Spec, dtype: str) -> int:
    return sizes.parameters(spec) * jnp.dtype(dtype).itemsize


def of_host() -> int | None:
    """Bytes that this machine, or its container, has left; None: it does not say."""
    info = pathlib.Path("/proc/meminfo")
    if not info.is_file():
        return None
    lines = dict(line.split(":") for line in info.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (CONTAINER / f"memory.{name}" for name in ("max", "current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def of_device(device: jax.Device) -> int | None:
    """Bytes that a device has left of its own; None: the host's, or it does not say."""
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats["bytes_in_use"]


def check(spec: Spec, dtype: str, shardings: Any):
    """Refuses a model that this process's devices, or the host on the way, cannot hold.

    Each device holds its shards; the host holds one tensor of the file at a time, and
    all the shards where the devices are the host's own processors.
    """
    shapes = transformer.abstract(spec, dtype)
    shards = jax.tree.map(_shard_bytes, shapes, shardings)
    on_each = sum(jax.tree.leaves(shards))
    on_host = max(
        jax.tree.leaves(jax.tree.map(_tensor_bytes, tree.paths(shapes), shapes))
    )
    devices = jax.tree.leaves(shardings)[0].addressable_devices
    if all(device.platform == "cpu" for device in devices):
        on_host += on_each * len(devices)
    else:
        for device in devices:
            _need(spec, dtype, on_each, of_device(device), str(device))
    _need(spec, dtype, on_host, of_host(), "this machine's memory")


def _shard_bytes(leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> int:
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _tensor_bytes(path: str, leaf: jax.ShapeDtypeStruct) -> int:
    """One tensor of a file, a layer of a stacked parameter: as read, and as kept."""
    shape = leaf.shape[1:] if path.startswith("layers/") else leaf.shape
    return math.prod(shape) * (4 + leaf.dtype.itemsize)


def _need(spec: Spec, dtype: str, needed: int, free: int | None, where: str):
    if free is not None and needed > free:
        raise Refused(
            f"the model's {sizes.parameters(spec):,} parameters in {dtype} need "
            f"{needed / GIB:.1f} GiB of {where}, which has {free / GIB:.1f} GiB free. "
            f"Take a smaller model{', or bfloat16' * (dtype != 'bfloat16')}, or cut it "
            "over more devices or machines."
        )
