"""The records that flow through a step: [B, G, ...], B questions of G samples each.

C completion tokens, S steps of a solution, R reward functions. Masks are bool and
named for what True means; they are built from lengths, never from token values.
"""

from typing import NamedTuple, get_args, get_type_hints

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

    row_weight: Float[Array, "B G"] | None = None  # of a row's token: losses/reduce
    is_selected: Bool[Array, "B G C"] | None = None  # KL-Cov, Clip-Cov: losses/select
    is_uncertain: Bool[Array, "B G C"] | None = None  # top entropy: losses/select
    entropy_weight: Float[Array, ""] | None = None  # 1 / tokens in the entropy's mean


def check_shapes(record: tuple):
    """Refuses a record whose fields disagree about a dimension, or have an empty one.

    Shapes are known before anything compiles. Broadcasting would hide a [1, G] that was
    meant to be [B, G].
    """
    size = {}
    for name, hint in get_type_hints(type(record)).items():
        value = getattr(record, name)
        dims = getattr((*get_args(hint), hint)[0], "dim_str", None)
        if value is None or dims is None:
            continue
        where = f"{type(record).__name__}.{name}"
        if len(value.shape) != len(dims.split()):
            raise Refused(f"{where} has shape {value.shape}; it must be [{dims}].")
        for dim, n in zip(dims.split(), value.shape, strict=True):
            first, expected = size.setdefault(dim, (where, n))
            if n != expected:
                raise Refused(
                    f"{where} has shape {value.shape}, so {dim} = {n}; but {first} has "
                    f"{dim} = {expected}. They describe the same {dim}."
                )
            if n == 0:
                raise Refused(f"{where} has shape {value.shape}; {dim} is empty.")
