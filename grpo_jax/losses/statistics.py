"""Metrics that add up: sums with their counts, merged over micro-batches and shards.

A mean of means is not the mean, so a metric stays a sum and a count until it is read.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Sum(NamedTuple):
    total: Float[Array, ""]


class Mean(NamedTuple):
    total: Float[Array, ""]
    count: Array


class Moments(NamedTuple):
    """Count, mean and summed squared deviation: a std that does not cancel."""

    count: Array
    mean: Float[Array, ""]
    deviation: Float[Array, ""]


class Lowest(NamedTuple):
    value: Float[Array, ""]


class Highest(NamedTuple):
    value: Float[Array, ""]


Statistics = dict[str, Sum | Mean | Moments | Lowest | Highest]


def mean(x: Array, where: Bool[Array, "..."]) -> Mean:
    return Mean(jnp.where(where, x, 0.0).sum(), where.sum())


def weighted_mean(x: Float[Array, "..."], weight: Array) -> Mean:
    return Mean((x * weight).sum(), weight.sum())


def moments(x: Float[Array, "..."], where: Bool[Array, "..."]) -> Moments:
    count = where.sum()
    centre = jnp.where(where, x, 0.0).sum() / jnp.maximum(count, 1)
    return Moments(count, centre, (jnp.where(where, x - centre, 0.0) ** 2).sum())


def lowest(x: Float[Array, "..."], where: Bool[Array, "..."]) -> Lowest:
    return Lowest(jnp.min(x, where=where, initial=jnp.inf))


def highest(x: Float[Array, "..."], where: Bool[Array, "..."]) -> Highest:
    return Highest(jnp.max(x, where=where, initial=-jnp.inf))


def merge(a: Statistics, b: Statistics) -> Statistics:
    """The statistics of two parts together."""
    return {name: _merge_one(a[name], b[name]) for name in a}


def each(statistics: Statistics) -> Statistics:
    """Those of one update: with others', a sum is their mean."""
    one = jnp.ones((), int)
    return {
        name: Mean(x.total, one) if isinstance(x, Sum) else x
        for name, x in statistics.items()
    }


def values(statistics: Statistics) -> dict[str, Array]:
    """Numbers to log. Moments give the mean, the std (over n) and, for weights, the
    effective sample size as a share, 1 / mean((w / mean w)²). Nothing counted: NaN.
    """
    out = {}
    for name, x in statistics.items():
        if isinstance(x, Sum):
            out[name] = x.total
        elif isinstance(x, Mean):
            out[name] = x.total / jnp.where(x.count > 0, x.count, jnp.nan)
        elif isinstance(x, Moments):
            n = jnp.where(x.count > 0, x.count, jnp.nan)
            square = x.mean**2 + x.deviation / n
            out[f"{name}_mean"] = x.mean + 0 * n
            out[f"{name}_std"] = jnp.sqrt(x.deviation / n)
            out[f"{name}_effective"] = x.mean**2 / jnp.where(
                square > 0, square, jnp.nan
            )
        else:
            out[name] = jnp.where(jnp.isinf(x.value), jnp.nan, x.value)
    return out


def _merge_one(a, b):
    if isinstance(a, Sum):
        return Sum(a.total + b.total)
    if isinstance(a, Mean):
        return Mean(a.total + b.total, a.count + b.count)
    if isinstance(a, Moments):
        count = a.count + b.count
        n = jnp.maximum(count, 1)
        gap = b.mean - a.mean
        mean = a.mean + gap * b.count / n
        between = gap**2 * a.count * b.count / n
        return Moments(count, mean, a.deviation + b.deviation + between)
    if isinstance(a, Lowest):
        return Lowest(jnp.minimum(a.value, b.value))
    return Highest(jnp.maximum(a.value, b.value))
