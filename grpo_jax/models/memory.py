"""Does a model fit? Said in numbers, before anything is read."""

import pathlib

import jax
import jax.numpy as jnp

from grpo_jax.models import sizes
from grpo_jax.models.spec import Spec
from grpo_jax.section import Refused

GIB = 2**30


def parameter_bytes(spec: Spec, dtype: str) -> int:
    return sizes.parameters(spec) * jnp.dtype(dtype).itemsize


def available() -> int | None:
    """Bytes that this process's devices have left, together; None: nobody says."""
    devices = jax.local_devices()
    stats = [device.memory_stats() for device in devices]
    if all(s and "bytes_limit" in s for s in stats):
        return sum(s["bytes_limit"] - s["bytes_in_use"] for s in stats)
    info = pathlib.Path("/proc/meminfo")
    if devices[0].platform != "cpu" or not info.is_file():
        return None
    lines = dict(line.split(":") for line in info.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def check(spec: Spec, dtype: str):
    needed, left = parameter_bytes(spec, dtype), available()
    if left is not None and needed > left:
        raise Refused(
            f"the model's {sizes.parameters(spec):,} parameters take "
            f"{needed / GIB:.1f} GiB in {dtype}; {left / GIB:.1f} GiB are free here. "
            "Take a smaller model or --dtype bfloat16, or more devices."
        )
