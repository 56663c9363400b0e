"""The reference policy: a copy of the policy, where there is room for it."""

from typing import Any

import jax

from grpo_jax import crossing, programs
from grpo_jax.training import Reference

HOST = "pinned_host"


def hold(settings: Reference, params: Any) -> Any:
    """A copy, cut over devices as the policy is, in their memory or in their hosts'."""
    return _put(settings, programs.copy(params))


def abstract(settings: Reference, params: Any) -> Any:
    """Shapes and places of what is held, of those of the policy."""
    if settings.held == "device":
        return params
    return jax.tree.map(
        lambda x: x.update(sharding=x.sharding.with_memory_kind(HOST)), params
    )


def at_hand(reference: Any) -> Any:
    """The reference where it can score. From a host, it is there until it has."""
    return _moved(reference, "device")


def follow(settings: Reference, reference: Any, params: Any, everywhere: Any) -> Any:
    """The reference after it was drawn to the policy: mix · π + (1 − mix) · π_ref."""
    mix = crossing.up(settings.mix, everywhere)
    mixed = programs.mix(at_hand(reference), params, mix)
    return _put(settings, mixed)


def _put(settings: Reference, params: Any) -> Any:
    return _moved(params, HOST) if settings.held == "host" else params


def _moved(params: Any, kind: str) -> Any:
    return jax.tree.map(
        lambda x: jax.device_put(x, x.sharding.with_memory_kind(kind)), params
    )
