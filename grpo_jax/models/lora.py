"""LoRA: W + (α/r) A B. The frozen tree without adapters is the reference policy.

Adapters are a tree of their own, with the paths of what they adapt: `layers/wq_a` and
`layers/wq_b` beside `layers/wq`. Only this tree is given to an optimizer.
"""

import math
import re

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from grpo_jax import tree
from grpo_jax.models import names, settings
from grpo_jax.models.transformer import Params
from grpo_jax.section import Refused


def init(params: Params, chosen: settings.Lora, key: Key[Array, ""]) -> Params:
    """A is normal with 1/√fan-in, B is 0: at first the adapters change nothing."""
    paths = _targets(params, chosen)
    adapters = {}
    for number, path in enumerate(sorted(paths)):
        weight = params["layers"][path.removeprefix("layers/")]
        n = names.inputs(path) + 1  # and the layers' axis
        layers, inputs, outputs = weight.shape[:1], weight.shape[1:n], weight.shape[n:]
        fan_in = math.prod(inputs)
        draw = jax.random.normal(
            jax.random.fold_in(key, number), (*layers, *inputs, chosen.rank)
        )
        name = path.removeprefix("layers/")
        adapters[f"{name}_a"] = (draw / fan_in**0.5).astype(jnp.float32)
        adapters[f"{name}_b"] = jnp.zeros((*layers, chosen.rank, *outputs))
    return {"layers": adapters}


def join(params: Params, adapters: Params, chosen: settings.Lora) -> Params:
    """The tree that `transformer.forward` computes with; nothing is multiplied out."""
    scale = chosen.alpha / chosen.rank
    scaled = {
        name: x * scale if name.endswith("_b") else x
        for name, x in adapters["layers"].items()
    }
    return params | {"layers": params["layers"] | scaled}


def merge(params: Params, adapters: Params, chosen: settings.Lora) -> Params:
    """The parameters with the adapters multiplied out, rounded once: to be saved."""
    return _shifted(params, adapters, chosen.alpha / chosen.rank)


def unmerge(params: Params, adapters: Params, chosen: settings.Lora) -> Params:
    """What `merge` was given, to within its rounding."""
    return _shifted(params, adapters, -chosen.alpha / chosen.rank)


def _shifted(params: Params, adapters: Params, scale: float) -> Params:
    layers = dict(params["layers"])
    for name in [n.removesuffix("_a") for n in adapters["layers"] if n.endswith("_a")]:
        a, b = (adapters["layers"][f"{name}_{part}"] for part in "ab")
        with jax.default_matmul_precision("highest"):
            change = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1))(a, b) * scale
        layers[name] = (layers[name] + change).astype(layers[name].dtype)
    return params | {"layers": layers}


def _targets(params: Params, chosen: settings.Lora) -> list[str]:
    paths = jax.tree.leaves(tree.paths(params))
    chosen_paths = [path for path in paths if re.search(chosen.targets, path)]
    possible = [p for p in paths if p.startswith("layers/") and names.is_matrix(p)]
    wrong = [path for path in chosen_paths if path not in possible]
    if wrong or not chosen_paths:
        what = f"also matches {', '.join(wrong)}" if wrong else "matches nothing"
        raise Refused(
            f"model.lora.targets is {chosen.targets!r}, which {what}; adapters are "
            f"possible on {', '.join(possible)}. Change the expression."
        )
    return chosen_paths
