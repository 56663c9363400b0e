"""The records that flow through a step: [B, G, ...], B questions of G samples each.

C completion tokens, S steps of a solution, R reward functions. Masks are bool and
named for what True means; they are built from lengths, never from token values.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax import config, tree
from grpo_jax.section import Refused

for _section in (
    config.Advantage,
    config.KL,
    config.Correction,
    config.Rejection,
    config.Algorithm,
    config.Sampling,
    config.Optimizer,
    config.Critic,
):
    tree.register_settings(_section)  # settings flow through jax as well


class Rewards(NamedTuple):
    """What the host says of a rollout: all that an advantage is made of."""

    parts: Float[Array, "B G R"]  # one value per reward function; NaN: unscorable
    is_completion: Bool[Array, "B G C"]  # the tokens that the policy wrote
    is_valid: Bool[Array, "B G"]  # False: filtered out, or a row that only fills up
    step_reward: Float[Array, "B G S"] | None = None  # process supervision
    step_end: Int[Array, "B G S"] | None = None  # index of the step's last token
    is_step: Bool[Array, "B G S"] | None = None  # False: padding
    baseline: Float[Array, "B"] | None = None  # given: the greedy answer's reward
    value: Float[Array, "B G C"] | None = None  # the critic's, for gae
    kl: Float[Array, "B G C"] | None = None  # per token, where KL is in the reward
    columns: dict[str, Int[Array, "B"]] | None = None  # of the data, to pool groups by


class PolicyBatch(NamedTuple):
    """All that the policy's loss needs besides the log-probabilities of now.

    The first part holds for a rollout, the second for one update (see `prepare`).
    """

    is_completion: Bool[Array, "B G C"]  # the tokens that the loss looks at
    advantage: Float[Array, "B G C"]
    is_row: Bool[Array, "B G"]  # False: a row that only fills up a shape
    old_logp: Float[Array, "B G C"] | None = None  # None: the policy of now
    ref_logp: Float[Array, "B G C"] | None = None  # None: no KL in the loss
    weight: Float[Array, "B G C"] | None = None  # π_old/π_sampler: losses/mismatch
    sampler_logp: Float[Array, "B G C"] | None = None  # None: drift is from old_logp
    old_value: Float[Array, "B G C"] | None = None  # the critic's, before any update
    returns: Float[Array, "B G C"] | None = None  # what it should have said: gae only

    row_weight: Float[Array, "B G"] | None = None  # of a row's token: losses/reduce
    is_selected: Bool[Array, "B G C"] | None = None  # KL-Cov, Clip-Cov: losses/select
    is_uncertain: Bool[Array, "B G C"] | None = None  # top entropy: losses/select
    entropy_weight: Float[Array, ""] | None = None  # 1 / tokens in the entropy's mean
    value_weight: Float[Array, ""] | None = None  # 1 / tokens in the critic's loss


def compared_with(
    settings: config.Algorithm, batch: PolicyBatch
) -> Float[Array, "B G C"] | None:
    """log π of the policy below the ratio's bar; None: the policy of now."""
    return batch.ref_logp if settings.ratio_to == "reference" else batch.old_logp


def check_shapes(*records: tuple):
    """Refuses records whose fields disagree about a dimension, or have an empty one.

    Shapes and types are known before anything compiles. Broadcasting would hide a
    [1, G] that was meant to be [B, G], and whole numbers would round what is made of
    them.
    """
    size = {}
    for where, hint, value in _arrays(records):
        dims = hint.dim_str.split()
        kind = hint.dtype.__name__
        if not jnp.issubdtype(value.dtype, KINDS[kind]):
            rule = f"it must be {kind.lower()}"
            raise Refused(f"{where} is {value.dtype}; {rule}. Convert it.")
        if len(value.shape) != len(dims):
            raise Refused(
                f"{where} has shape {value.shape}; it must be [{hint.dim_str}]."
            )
        for dim, n in zip(dims, value.shape, strict=True):
            first, expected = size.setdefault(dim, (where, n))
            if n != expected:
                raise Refused(
                    f"{where} has shape {value.shape}, so {dim} = {n}; but {first} has "
                    f"{dim} = {expected}. They describe the same {dim}."
                )
            if n == 0:
                raise Refused(f"{where} has shape {value.shape}; {dim} is empty.")


KINDS = {"Float": jnp.floating, "Int": jnp.integer, "Bool": jnp.bool_}
KINDS |= {"Key": jax.dtypes.prng_key}


def _arrays(records: tuple) -> Iterator[tuple[str, Any, Any]]:
    """(name, annotation, value) of every array in the records."""
    for record in records:
        for name, hint in get_type_hints(type(record)).items():
            value, where = getattr(record, name), f"{type(record).__name__}.{name}"
            values = value if isinstance(value, dict) else {"": value}
            for key, x in values.items():
                if x is not None:
                    yield f"{where}[{key!r}]" if key else where, _array_hint(hint), x


def _array_hint(hint: Any) -> Any:
    """The array's annotation within that of an optional array, or of a dict."""
    if hasattr(hint, "dim_str"):
        return hint
    return next(filter(None, map(_array_hint, get_args(hint))), None)
