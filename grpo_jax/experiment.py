"""Experiment files: Python gives the settings, words on the command line change them.

    python -m grpo_jax train experiments/quickstart.py --algorithm.group-size 16

An experiment file has `get_config() -> config.Config`, and may have REWARDS, its own
reward functions by name, and STEP_REWARDS, its own rules for steps. One with a
`run(config, workdir)` runs itself; its `check(config)`, if any, refuses what it cannot
run before anything is written.
"""

import argparse
import dataclasses
import importlib.util
import pathlib
import sys
from types import ModuleType
from typing import Annotated, Any

import tyro

from grpo_jax import config, line, presets
from grpo_jax.section import Refused


def load(path: str) -> ModuleType:
    """The experiment file as a module, named so that it can shadow no other."""
    file = pathlib.Path(path)
    if not file.is_file() or file.suffix != ".py":
        raise Refused(f"there is no experiment file {path}. Give the path of a .py.")
    name = f"grpo_experiment_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look themselves up by it
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise Refused(f"{path} has no function get_config(). Define one.")
    return module


@dataclasses.dataclass(frozen=True)
class Order:
    """Runs an experiment, or goes on with it where it was stopped."""

    config: Annotated[
        config.Config, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff
    ]
    workdir: pathlib.Path | None = None  # what the run writes; None: runs/NAME
    preset: str | None = None  # start `algorithm` from a known method's settings
    fork_from: pathlib.Path | None = None  # begin where the run in that folder is
    quiet: bool = False  # say nothing but warnings and the result


def parse(
    experiment: ModuleType, words: list[str], command: str = "train", order: Any = Order
) -> Any:
    """An order of a command: the experiment's settings after the overrides, and what
    else it is told.

    A word that names no setting, or a value that a setting refuses, ends the program
    with exit code 2 and the nearest name or the rule.
    """
    default = experiment.get_config()
    if not isinstance(default, config.Config):
        raise Refused(
            f"get_config() of {experiment.__file__} returns {type(default).__name__}; "
            "it must return a grpo_jax.config.Config."
        )
    default = preset(default, _preset(words))
    file = pathlib.Path(experiment.__file__)
    return line.parse(f"{command} {file}", order, words, default=order(default))


def preset(settings: config.Config, name: str | None) -> config.Config:
    """With a known method's algorithm, if one is named."""
    if not name:
        return settings
    return dataclasses.replace(settings, algorithm=presets.algorithm(name))


def describe(settings: config.Config) -> str:
    """The settings that differ from their defaults, a line each."""
    ours, plain = flat(settings), flat(config.Config())
    lines = [f"  {k} = {v!r}" for k, v in ours.items() if v != plain[k]]
    return "\n".join(lines) or "  every setting is at its default"


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """{"algorithm.kl.estimator": "k3", ...}: every field by its path."""
    out = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            out |= flat(value, f"{prefix}{field.name}.")
        else:
            out[prefix + field.name] = value
    return out


def changed(settings: config.Config, named: dict[str, Any]) -> config.Config:
    """These settings, but for what is named by its path."""
    return config.of(config.nested(flat(settings) | named))


def _preset(words: list[str]) -> str | None:
    """--preset is looked for ahead of the rest: it gives the others their defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    return parser.parse_known_args(words)[0].preset
