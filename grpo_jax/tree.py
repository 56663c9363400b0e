"""Trees by path: rules as `[(regex, value)]`, and settings as trees.

Partition rules, weight decay, freezing, adapters and name tables all ask the same
question: which value belongs to this path? The first rule that matches answers it.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, get_args

import jax

from grpo_jax.section import Refused


def paths(tree: Any) -> Any:
    """The same tree with each leaf replaced by its path, such as `layers/wq`."""

    def name(path, _):
        return jax.tree_util.keystr(path, simple=True, separator="/")

    return jax.tree_util.tree_map_with_path(name, tree)


def match(rules: Sequence[tuple[str, Any]], tree: Any) -> Any:
    """The same tree with each leaf replaced by the value of the first rule it matches.

    A regex is searched for in the path. A leaf without a rule is an error that lists
    every such path, because a forgotten parameter is otherwise found weeks later.
    """

    def value(path):
        return next((v for regex, v in rules if re.search(regex, path)), unmatched)

    unmatched = object()
    missing = [p for p in jax.tree.leaves(paths(tree)) if value(p) is unmatched]
    if missing:
        known = ", ".join(regex for regex, _ in rules) or "none"
        raise Refused(
            f"no rule matches {', '.join(missing)}; the rules are: {known}. "
            "Add a rule for each of these paths."
        )
    return jax.tree.map(value, paths(tree))


def need_alike(what: str, got: Any, expected: Any):
    """Refuses leaves that are missing, too many, or of another shape."""

    def shapes(tree):
        leaves = jax.tree.leaves(paths(tree)), jax.tree.leaves(tree)
        return {path: x.shape for path, x in zip(*leaves, strict=True)}

    here, there = shapes(got), shapes(expected)
    wrong = [
        f"{path} is {here.get(path, 'missing')}, expected {there.get(path, 'nothing')}"
        for path in sorted(here.keys() | there.keys())
        if here.get(path) != there.get(path)
    ]
    if wrong:
        raise Refused(
            f"{what} is of another model or of other settings: {'; '.join(wrong[:3])}; "
            f"{len(wrong)} in all. Use the settings that it was made with."
        )


def register_settings(cls: type):
    """Makes a settings dataclass a pytree: floats are leaves, all else is structure.

    A program that takes such a section is traced in what a sweep varies smoothly (β,
    the clip range) and compiled anew only for what changes its shape or its branches.
    A weight of exactly 0.0 is structure as well: it stays a plain 0.0 inside the
    program, which can leave out what the weight switches off.
    """
    fields = dataclasses.fields(cls)
    smooth = {f.name for f in fields if _is_smooth(f)}

    def flatten(section):
        values = {f.name: getattr(section, f.name) for f in fields}
        leaves = {k: v for k, v in values.items() if k in smooth and not is_zero(v)}
        fixed = tuple((k, v) for k, v in values.items() if k not in leaves)
        keys = [(jax.tree_util.GetAttrKey(k), v) for k, v in leaves.items()]
        return keys, (fixed, tuple(leaves))

    def unflatten(structure, leaves):
        # The checks ran when the settings were made; a traced value cannot repeat them.
        fixed, names = structure
        section = object.__new__(cls)
        for name, value in (*fixed, *zip(names, leaves, strict=True)):
            object.__setattr__(section, name, value)
        return section

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)


def is_zero(value: Any) -> bool:
    """Whether a weight is known to be 0; nobody knows that of a traced one."""
    return isinstance(value, int | float) and value == 0


def _is_smooth(field: dataclasses.Field) -> bool:
    hint = field.type
    return hint is float or float in get_args(hint) or dataclasses.is_dataclass(hint)
