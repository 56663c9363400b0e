"""The command line: `python -m grpo_jax COMMAND ...`.

Exit codes: 0 done, 2 refused (a setting, a path, a word on the line).
"""

import importlib
import os
import sys
from collections.abc import Callable

from grpo_jax import experiment, presets
from grpo_jax.section import Refused

USAGE = """usage: python -m grpo_jax COMMAND ...

  train FILE [--workdir DIR] [--preset NAME] [--SETTING VALUE ...]
                 run an experiment; `train FILE --help` lists every setting
  methods        the paper's methods in one view, and the presets
  sample MODEL TEXT [--n N] [--temperature T] ...
                 what a model answers; `sample --help` lists the options
  models [NAME]  the models known by name, and what is on this machine
  convert SOURCE FOLDER [--dtype DTYPE]
                 write a model as a folder that transformers opens
  bench [losses | sampling ... | update ... | step ... | compile MACHINE ...]
                 time the mathematics, the sampler, an update or a whole step on this
                 machine; or compile them for others, with bytes per device

MODEL is tiny, smollm2-135m, a folder, a .gguf file, or owner/name of the hub.
"""


def main(words: list[str] | None = None) -> int:
    """Runs a command; what is refused is one sentence and exit code 2."""
    command, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if command in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if command not in COMMANDS:
        print(f"{command!r} is not a command.\n\n{USAGE}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[command](rest)
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


def train(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        raise Refused("train needs an experiment file first. See --help.")
    path, *overrides = words
    module = experiment.load(path)
    settings, workdir = experiment.parse(module, overrides)
    getattr(module, "check", lambda settings: None)(settings)
    print(f"{path} → {workdir}\n{experiment.describe(settings)}\n")
    if hasattr(module, "run"):
        experiment.save(settings, workdir)
        module.run(settings, workdir)
        return 0
    from grpo_jax import run

    run.train(settings, workdir, rewards=getattr(module, "REWARDS", {}))
    return 0


def methods(words: list[str]) -> int:
    from rich.console import Console
    from rich.table import Table

    from grpo_jax import unified

    console = Console()
    table = Table("method", "completions from", "reward", "gradient coefficient")
    for name, method in unified.METHODS.items():
        sentence = (method.coefficient.__doc__ or "").split("\n")[0]
        table.add_row(name, method.source, method.reward, sentence)
    console.print(table)
    table = Table("preset", "what it sets, where it differs from the defaults")
    for name, options in presets.PRESETS.items():
        text = ", ".join(f"{k}={v}" for k, v in options.items())
        table.add_row(name, text or "the defaults")
    console.print(table)
    return 0


def bench(words: list[str]) -> int:
    name, *rest = words or ["losses"]
    known = "losses", "sampling", "update", "step", "compile"
    if name not in known:
        raise Refused(f"there is no bench {name!r}; there are {', '.join(known)}.")
    module = importlib.import_module(f"grpo_jax.bench.{name}")
    return module.main(rest)


def of_models(name: str) -> Callable[[list[str]], int]:
    """A command that needs the libraries of models, which take seconds to import."""

    def command(words: list[str]) -> int:
        # transformers would advise to install PyTorch, which nothing here needs.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from grpo_jax import model_commands

        return getattr(model_commands, name)(words)

    return command


COMMANDS = {"train": train, "methods": methods, "bench": bench}
COMMANDS |= {name: of_models(name) for name in ("sample", "models", "convert")}
