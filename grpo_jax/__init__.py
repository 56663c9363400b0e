"""GRPO in JAX, and the rest of DeepSeekMath around it.

grpo_jax.train(settings, folder) runs an experiment, or goes on with it;
grpo_jax.quick(model=..., dataset=..., ...).train() makes its settings first.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
_WHERE = {"train": "iterative", "quick": "shortcut"}


def __getattr__(name: str) -> Any:
    """Imported when they are used: a command's --help need not wait for JAX."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"grpo_jax.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'grpo_jax' has no attribute {name!r}")
