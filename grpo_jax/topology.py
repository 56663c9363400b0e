"""Machines that are not here: their devices, to compile for.

    topology.devices("v5e-8"), topology.devices("h200x8")

A TPU needs the package libtpu (`pip install -e ".[tpu]"`), a GPU jax's CUDA plugin
(`".[cuda]"`), and neither needs the hardware. A compiled program says what it takes of
each device's memory; it says nothing of speed.
"""

import os
import pathlib
from typing import NamedTuple

import jax
from jax.experimental import topologies

from grpo_jax.models.memory import GIB
from grpo_jax.section import Refused


class Tpu(NamedTuple):
    layout: str
    per_host: tuple[int, int, int]  # chips
    memory: float  # GiB of each device, as the compiler itself says
    chip: str = "default"  # megacore: the two cores of a chip are one device
    wraps: tuple[bool, bool, bool] = (False,) * 3  # axes whose links close


class Gpu(NamedTuple):
    memory: int  # bytes of a card
    bandwidth: int  # bytes a second
    description: str


FLAT, CUBE, SQUARE = (2, 2, 1), (True,) * 3, (True, True, False)
TPUS = {
    "v4-8": Tpu("v4:2x2x1", FLAT, 30.75, "megacore"),
    "v5e-1": Tpu("v5e:1x1", (1, 1, 1), 15.75),
    "v5e-4": Tpu("v5e:2x2", FLAT, 15.75),
    "v5e-8": Tpu("v5e:2x4", (2, 4, 1), 15.75),
    "v5e-16": Tpu("v5e:4x4", FLAT, 15.75),
    "v5e-256": Tpu("v5e:16x16", FLAT, 15.75, wraps=SQUARE),
    "v5p-8": Tpu("v5p:2x2x1", FLAT, 95.74, "megacore"),
    "v5p-16": Tpu("v5p:2x2x2", FLAT, 95.74, "megacore"),
    "v5p-32": Tpu("v5p:2x2x4", FLAT, 95.74, "megacore"),
    "v5p-128": Tpu("v5p:4x4x4", FLAT, 95.74, "megacore", CUBE),
    "v5p-256": Tpu("v5p:4x4x8", FLAT, 95.74, "megacore", CUBE),
    "v5p-512": Tpu("v5p:4x8x8", FLAT, 95.74, "megacore", CUBE),
    "v6e-8": Tpu("v6e:2x4", (2, 4, 1), 31.25),
    "v6e-16": Tpu("v6e:4x4", FLAT, 31.25),
    "v6e-256": Tpu("v6e:16x16", FLAT, 31.25, wraps=SQUARE),
}
GPUS = {
    "h100": Gpu(84_942_979_072, 3_352_320_000_000, "NVIDIA H100 80GB HBM3"),
    "h200": Gpu(151_397_597_184, 4_800_000_000_000, "NVIDIA H200"),
}
# What the compiler must know of a Hopper card; the versions are those to run with.
HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory}
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{description}"
"""


def devices(name: str) -> list[jax.Device]:
    """The devices of a machine by its name: v5e-8, h100x8, ..."""
    if name in TPUS:
        return _tpu(TPUS[name])
    card, count = _cards(name)
    return _gpu(card, count)


def memory(name: str) -> float:
    """Bytes that one device of the machine has."""
    return TPUS[name].memory * GIB if name in TPUS else GPUS[_cards(name)[0]].memory


def _cards(name: str) -> tuple[str, int]:
    card, _, count = name.partition("x")
    if card in GPUS and count.isdecimal() and int(count) > 0:
        return card, int(count)
    raise Refused(
        f"{name!r} is not a machine known here; there are {', '.join(TPUS)}, and "
        f"{' and '.join(f'{card}x1, {card}x8, ...' for card in GPUS)}."
    )


def _tpu(tpu: Tpu) -> list[jax.Device]:
    # A TPU VM must never see the first two: they hide its own slice from JAX.
    if not any(pathlib.Path(path).exists() for path in ("/dev/accel0", "/dev/vfio/0")):
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        described = topologies.get_topology_desc(
            platform="tpu",
            topology_name=tpu.layout,
            chip_config_name=tpu.chip,
            chips_per_host_bounds=tpu.per_host,
            wrap=tpu.wraps,
            num_slices=1,
        )
    except Exception as error:
        raise _missing("tpu", error) from error
    return described.devices


def _gpu(card: str, count: int) -> list[jax.Device]:
    config = HOPPER.format(**GPUS[card]._asdict())
    try:
        described = topologies.get_topology_desc(
            platform="cuda",
            topology_name=card,
            target_config=config,
            topology=f"1x1x{count}",
        )
    except Exception as error:
        raise _missing("cuda", error) from error
    return described.devices


def _missing(extra: str, error: Exception) -> Refused:
    return Refused(
        f'compiling for it needs the packages of ".[{extra}]" in this environment: '
        f"{error}"
    )
