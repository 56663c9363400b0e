"""The two ways between host and device: nothing else copies, and both are counted."""

import functools
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


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
    return jax.tree.map(make, arrays)


def agreed(*numbers: int) -> tuple[int, ...]:
    """The largest that any process has, of each of the numbers."""
    if jax.process_count() == 1:
        return numbers
    gathered = multihost_utils.process_allgather(np.array(numbers))
    return tuple(int(n) for n in gathered.max(0))
