"""The two ways between host and device: nothing else copies, and both are counted."""

from typing import Any

import jax
import numpy as np


def down(arrays: Any) -> Any:
    """Device to host; waits until they are computed."""
    return jax.device_get(arrays)


def up(arrays: Any, sharding: Any = None) -> Any:
    """Host to device, every number as an array of its own."""
    return jax.device_put(jax.tree.map(np.asarray, arrays), sharding)
