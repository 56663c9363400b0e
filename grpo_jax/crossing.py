"""The two ways between host and device: nothing else copies, and both are counted."""

import functools
import itertools
import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array


def down(arrays: Any) -> Any:
    """Device to host; waits until they are computed."""
    return jax.device_get(arrays)


def up(arrays: Any, sharding: Any = None) -> Any:
    """Host to device, every number as an array of its own.

    Of several processes each gives its own part of what is cut, and all of the rest.
    """
    arrays = jax.tree.map(np.asarray, arrays)
    if jax.process_count() == 1 or sharding is None:
        return jax.device_put(arrays, sharding)
    make = functools.partial(jax.make_array_from_process_local_data, sharding)
    with jax.transfer_guard("allow"):  # to a guard this call looks like a stray copy
        return jax.tree.map(make, arrays)


def agreed(*numbers: int) -> tuple[int, ...]:
    """The largest that any process has, of each of the numbers."""
    return tuple(int(n) for n in _of_all(np.array(numbers)).max(0))


def summed(*numbers: int) -> tuple[int, ...]:
    """The sums over all processes."""
    return tuple(int(n) for n in _of_all(np.array(numbers)).sum(0))


def gathered(x: np.ndarray) -> np.ndarray:
    """The rows of all processes, as many of each, one behind another."""
    return np.concatenate(_of_all(x))


def told(text: str) -> list[str]:
    """What all processes say, each a text of its own."""
    said = np.frombuffer(text.encode(), np.uint8)
    (longest,) = agreed(len(said))
    padded = np.pad(said, (0, longest - len(said)))
    rows = zip(_of_all(padded), _of_all(np.array(len(said))), strict=True)
    return [row[:n].tobytes().decode() for row, n in rows]


def listed(rows: list) -> list:
    """What JSON can say, of all processes, one behind another."""
    return list(itertools.chain(*map(json.loads, told(json.dumps(rows)))))


def place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return jax.process_index(), jax.process_count()


def own(x: Array) -> np.ndarray:
    """The rows of this process, of an array that is cut by rows."""
    shards = {shard.index[0].start or 0: shard for shard in x.addressable_shards}
    return np.concatenate([down(shards[start].data) for start in sorted(shards)])


def _of_all(x: np.ndarray) -> np.ndarray:
    if jax.process_count() == 1:
        return x[None]
    return multihost_utils.process_allgather(x)
