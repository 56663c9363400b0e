"""The names that people know, as the explicit settings that they stand for.

A preset is `Algorithm()` with a few options set. Where two systems mean different
things by one name, both are here. Numbers are from the paper or system
named behind it.
"""

import dataclasses
from typing import Any

from grpo_jax import config
from grpo_jax.section import choose

_WHITENED = {
    "advantage.scale_rewards": "none",
    "advantage.whiten": "tokens",
    "advantage.ddof": 1,
    "advantage.eps": 1e-8,
    "advantage.eps_at": "under_root",
}
_TRL_STD = {"advantage.ddof": 1, "advantage.eps": 1e-4}
_NO_KL = {"beta": 0.0}
_SEQUENCE = {"importance_level": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}

PRESETS: dict[str, dict[str, Any]] = {
    # DeepSeekMath (2402.03300)
    "grpo": {},
    "deepseekmath": {"group_size": 64, "beta": 0.04},
    "grpo_process": {"advantage.supervision": "process"},
    "deepseekmath_process": {
        "group_size": 64,
        "beta": 0.04,
        "advantage.supervision": "process",
    },
    "online_rft": {
        "surrogate": "reinforce",
        "beta": 0.0,
        "advantage.estimator": "indicator",
        "advantage.scale_rewards": "none",
    },
    "ppo": {
        "group_size": 1,
        "advantage.estimator": "gae",
        "kl.placed": "reward",
        "kl.estimator": "k1",
        "loss_mean": "per_token",
        **_WHITENED,
    },
    # Other denominators
    "trl": {"loss_mean": "per_rollout_token", **_NO_KL, **_TRL_STD},
    "bnpo": {"loss_mean": "per_token", **_NO_KL, **_TRL_STD},
    "dr_grpo": {  # 2503.20783
        "loss_mean": "over_constant",
        "loss_constant": 1024,
        "advantage.scale_rewards": "none",
        **_NO_KL,
    },
    "dapo": {"loss_mean": "per_rollout_token", "clip_high": 0.28, **_NO_KL},
    "luspo": {"loss_mean": "per_sequence_sum", **_SEQUENCE, **_NO_KL},
    "lite_ppo": {  # 2508.08221
        "loss_mean": "per_rollout_token",
        "advantage.scale_rewards": "batch",
        **_NO_KL,
    },
    # Other ratios and surrogates
    "gspo": {**_SEQUENCE, **_NO_KL},  # 2507.18071
    "gspo_token": {**_SEQUENCE, "importance_level": "sequence_token", **_NO_KL},
    "cispo": {  # 2506.13585; the bound as TRL has it: on the ratio, above only
        "surrogate": "cispo",
        "weight_high": 5.0,
        "loss_mean": "per_rollout_token",
        **_NO_KL,
    },
    "cispo_two_sided": {  # as verl and NeMo have it: 1 − ε and 1 + ε
        "surrogate": "cispo",
        "weight_low": 0.8,
        "weight_high": 1.28,
        "loss_mean": "per_token",
        **_NO_KL,
    },
    "sapo": {"surrogate": "sapo", **_NO_KL},
    "vespo": {"surrogate": "vespo", "loss_mean": "per_rollout_token", **_NO_KL},
    "gmpo": {"surrogate": "gmpo", "clip_low": 0.4, "clip_high": 0.4, **_NO_KL},
    "dppo_tv": {"surrogate": "dppo_tv", "weight_high": 3.0, **_NO_KL},
    "dppo_kl": {
        "surrogate": "dppo_kl",
        "weight_high": 3.0,
        "clip_low": 0.05,
        "clip_high": 0.05,
        **_NO_KL,
    },
    "dro": {"surrogate": "dro", **_NO_KL},
    "kl_cov": {"surrogate": "kl_cov", "loss_mean": "per_token", **_NO_KL},
    "clip_cov": {"surrogate": "clip_cov", "loss_mean": "per_token", **_NO_KL},
    "softmax": {
        "surrogate": "reinforce",
        "advantage.estimator": "softmax",
        "advantage.scale_rewards": "none",
    },
    # Other advantages
    "rloo": {  # with TRL's KL, summed over the output, in the reward
        "surrogate": "reinforce",
        "loss_mean": "per_sequence_sum",  # A · Σ_t log π: an output is one action
        "advantage.estimator": "leave_one_out",
        "advantage.scale_rewards": "none",
        "kl.placed": "reward",
        "kl.estimator": "k1",
        "beta": 0.05,
    },
    "nemo": {
        "advantage.estimator": "leave_one_out",
        "advantage.scale_rewards": "others",
        "advantage.ddof": 1,
    },
    "opo": {
        "advantage.estimator": "length_weighted",
        "advantage.scale_rewards": "none",
        **_NO_KL,
    },
    "remax": {
        "group_size": 1,
        "advantage.estimator": "given",
        "advantage.scale_rewards": "none",
    },
    "gpg": {
        "surrogate": "reinforce",
        "advantage.scale_rewards": "nonzero",
        "loss_mean": "per_token",
        **_NO_KL,
    },
    "reinforce_pp": {  # 2501.03262: the KL of each token in its reward
        "advantage.estimator": "none",
        "kl.placed": "reward",
        "kl.estimator": "k1",
        **_WHITENED,
    },
    "reinforce_pp_baseline": dict(_WHITENED),
    "pass_at_k": {"advantage.estimator": "best_minus_second", **_NO_KL},
    "max_rl": {
        "advantage.estimator": "max_rl",
        "advantage.scale_rewards": "none",
        **_NO_KL,
    },
    "gdpo": {
        "advantage.normalise_each": True,
        "advantage.whiten": "rows",
        **_TRL_STD,
        **_NO_KL,
    },
    "rank": {"advantage.estimator": "rank", "advantage.scale_rewards": "none"},
}


def algorithm(name: str, **overrides: Any) -> config.Algorithm:
    """The algorithm a name stands for; overrides are fields of `config.Algorithm`."""
    chosen = config.nested(choose(PRESETS, "preset", name))
    return dataclasses.replace(config.of(chosen, config.Algorithm), **overrides)
