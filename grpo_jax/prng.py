"""Randomness and order as functions: of the seed, the step, and the place of a draw.

Every random number is drawn with a key that names what it is for. No key is stored,
returned or split into a chain, so a run resumes from its step alone, and a row draws
the same numbers whatever batch, shard or host it sits in.

A question is its running number in the stream of data, refills included.
"""

import enum

import jax
from jaxtyping import Array, Float, Int, Key


class Stream(enum.IntEnum):
    """What randomness is for. The numbers are part of every result: append only."""

    INIT = 0  # parameters
    SAMPLE = 1  # tokens of a rollout
    SELECT = 2  # tokens that Clip-Cov picks
    EVALUATE = 3  # answers to questions that are not trained on
    LABEL = 4  # solutions whose steps are labelled (step 0), and completions (step 1)
    JUDGE = 5  # answers that a reward model learns from, between rounds


def root(seed: int) -> Key[Array, ""]:
    return jax.random.key(seed)


def step_key(
    root: Key[Array, ""],
    stream: Stream | Int[Array, ""],
    step: int | Int[Array, ""],
) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.fold_in(root, stream), step)


def row_keys(
    key: Key[Array, ""], question: Int[Array, "B"], sample: Int[Array, "B G"]
) -> Key[Array, "B G"]:
    """One key per row: the step's key, the question's running number, the sample."""
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    return jax.vmap(fold)(fold(key, question), sample)


def sample_keys(
    key: Key[Array, ""], question: Int[Array, "B"], group_size: int
) -> Key[Array, "B G"]:
    """The keys of whole groups."""
    sample = jax.numpy.arange(group_size)[None]
    shape = len(question), group_size
    return row_keys(key, question, jax.numpy.broadcast_to(sample, shape))


def uniforms_at(
    key: Key[Array, "B G"], position: Int[Array, "B G"]
) -> Float[Array, "B G 2"]:
    """Two numbers in [0, 1) for the token at that position of each row."""

    def one(key, position):
        return jax.random.uniform(jax.random.fold_in(key, position), (2,))

    return jax.vmap(jax.vmap(one))(key, position)


def token_uniforms(key: Key[Array, "B G"], length: int) -> Float[Array, "B G C"]:
    """One number in [0, 1) per token, from the row's key and the token's position."""

    def draw(row_key, position):
        return jax.random.uniform(jax.random.fold_in(row_key, position))

    by_position = jax.vmap(draw, (None, 0))
    positions = jax.numpy.arange(length)
    return jax.vmap(jax.vmap(lambda k: by_position(k, positions)))(key)
