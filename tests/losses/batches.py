"""Small batches with everything in them, for the tests of the losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import config, prepare, prng
from grpo_jax.losses import objective
from grpo_jax.records import PolicyBatch

B, G, C = 3, 4, 5
LENGTH = np.array([[5, 3, 4, 2], [5, 0, 1, 5], [4, 4, 5, 2]])  # one row is empty
MASK = np.arange(C) < LENGTH[:, :, None]
SETTINGS = {  # one per surrogate, with the options that it reads
    "clipped": {"ratio_max": 1.4, "dual_clip": 1.5},
    "reinforce": {},
    "cispo": {"weight_low": 0.8, "weight_high": 1.2},
    "sapo": {},
    "vespo": {},
    "gmpo": {},
    "dppo_tv": {"weight_high": 1.2, "clip_low": 0.1, "clip_high": 0.1},
    "dppo_kl": {"weight_high": 1.2, "clip_low": 0.02, "clip_high": 0.02},
    "dro": {},
    "kl_cov": {"cov_fraction": 0.2},
    "clip_cov": {"cov_fraction": 0.2, "cov_low": 0.01},
}


def algorithm(surrogate="clipped", **options):
    return config.Algorithm(surrogate=surrogate, **(SETTINGS[surrogate] | options))


@functools.cache
def numbers(seed=0):
    """(logp, entropy, batch without denominators) in float64 numpy."""
    rng = np.random.default_rng(seed)
    old_logp = -rng.exponential(1.0, (B, G, C))
    logp, ref_logp = (old_logp + rng.normal(0, 0.3, (B, G, C)) for _ in range(2))
    batch = PolicyBatch(
        is_completion=MASK,
        advantage=rng.normal(0, 1, (B, G, C)),
        is_row=np.ones((B, G), bool),
        old_logp=old_logp,
        ref_logp=ref_logp,
        weight=rng.uniform(0.5, 1.5, (B, G, C)),
    )
    return logp, rng.exponential(1.0, (B, G, C)), batch


def make(settings, seed=0, parts=1):
    """(logp, entropy, batch) ready for the loss."""
    logp, entropy, batch = jax.tree.map(jnp.asarray, numbers(seed))
    keys = prng.sample_keys(prng.root(0), jnp.arange(B), G)
    batch = prepare.minibatch(
        settings,
        batch,
        logp,
        entropy,
        keys,
        rollout_tokens=int(MASK.sum()),
        parts=parts,
    )
    return logp, entropy, batch


def loss(settings, logp, entropy, batch, beta=0.3):
    """(loss, (statistics, gradients by logp and entropy))."""

    def value(logp, entropy):
        return objective.policy_loss(settings, logp, batch, beta=beta, entropy=entropy)

    grad = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    (total, measured), grads = grad(logp, entropy)
    return total, measured, grads


def row(logp, old_logp, advantage, *, settings=None, ref_logp=None, **more):
    """One row as a whole batch: [1, 1, T], and its loss per token by plain sum."""
    settings = settings or config.Algorithm(loss_mean="per_token")
    shape = (1, 1, len(logp))
    a = np.broadcast_to(np.asarray(advantage, float), shape[2:])
    x = {"old_logp": old_logp, "ref_logp": ref_logp} | more
    x = {k: None if v is None else jnp.asarray(v)[None, None] for k, v in x.items()}
    batch = PolicyBatch(
        jnp.ones(shape, bool), jnp.asarray(a)[None, None], jnp.ones((1, 1), bool), **x
    )
    batch = batch._replace(row_weight=jnp.full((1, 1), 1 / len(logp)))
    logp = jnp.asarray(logp, float)[None, None]

    def value(logp):
        return objective.policy_loss(settings, logp, batch, beta=settings.beta)[0]

    total, grad = jax.value_and_grad(value)(logp)
    return float(total), np.asarray(grad)[0, 0]
