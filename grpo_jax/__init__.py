"""GRPO in JAX, and the rest of DeepSeekMath around it."""

__version__ = "0.1.0"
