"""The command line: `python -m grpo_jax COMMAND ...`. Exit codes stand in USAGE."""

import dataclasses
import importlib
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable

from grpo_jax import config, experiment, presets, workdir
from grpo_jax.section import Refused

USAGE = """usage: python -m grpo_jax COMMAND ...

  train FILE [--workdir DIR] [--fork-from DIR] [--preset NAME] [--SETTING VALUE ...]
                 run an experiment, or go on with it
  evaluate MODEL --data SET [--k N] [--against OTHER] ...
                 how often a model's answers are right, and how sure that is
  label MODEL --data SET [--solutions G] [--completions N] [--completer OTHER] ...
                 label the steps of a model's solutions, by what completions come to
  reproduce FIGURE [--seeds N] [--jobs N] [--smoke]
                 a figure of the paper in miniature, from nothing: all runs that are
                 missing, then the drawing
  plan FILE --topology MACHINE ... [--SETTING VALUE ...]
                 what an experiment takes of the memory of machines that are not here
  sample MODEL TEXT [--n N] [--temperature T] ...
                 what a model answers
  models [MODEL] the models known by name, and what is on this machine
  convert MODEL FOLDER [--dtype DTYPE]
                 write a model as a folder that transformers opens
  methods        the paper's methods in one view, and the presets
  bench [losses | sampling ... | update ... | step ... | trainer ... | compile MACHINE
         ... | answers ...]
                 time the mathematics, the sampler, an update, a whole step or a run's
                 on this machine; or compile them for others, with bytes per device; or
                 see how far the gradings of answers agree

MODEL is tiny, smollm2-135m, a folder, a .gguf file, owner/name of the hub, or the
folder of a run: what it has learned, at its latest checkpoint (evaluate: its best), or
at that of FOLDER@STEP, FOLDER@latest, FOLDER@best.

`COMMAND --help` lists every setting with its meaning and default; `--debug`, anywhere,
shows where an error came from. Exit codes:

  0   done
  1   failed
  2   refused: a setting, a file, a word on the line
  33  stopped on request (SIGTERM, Ctrl-C), all saved: the same command goes on

Compiled programs are kept in ~/.cache/grpo_jax, or where JAX_COMPILATION_CACHE_DIR
says; if that is empty, nowhere.
"""


LONGEST = 500  # characters of an error that are shown
FULL = "No space left", "File too large", "Disk quota exceeded"


def main(words: list[str] | None = None) -> int:
    """Runs a command; whatever goes wrong is one sentence and an exit code."""
    words = list(sys.argv[1:] if words is None else words)
    is_debugged = "--debug" in words
    command, *rest = [word for word in words if word != "--debug"] or ["--help"]
    if command in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if command not in COMMANDS:
        print(f"{command!r} is not a command.\n\n{USAGE}", file=sys.stderr)
        return 2
    if not is_debugged:  # what a library logs is in the error as well
        logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        return COMMANDS[command](rest)
    except (Exception, KeyboardInterrupt) as error:
        if is_debugged:
            traceback.print_exc()
        code, said = _told(error)
        print(said, file=sys.stderr)
        return code


def _told(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and a sentence."""
    stopping = sys.modules.get("grpo_jax.stopping")  # which would import jax
    if isinstance(error, Refused):
        return 2, f"refused: {error}"
    if stopping is not None and isinstance(error, stopping.Stopped):
        return stopping.CODE, str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ..."
    full = any(sign in str(error) for sign in FULL)
    remedy = "Make room; the same command goes on from what is saved. " * full
    return 1, f"failed: {text} ({remedy}--debug shows where)"


def train(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        raise Refused("train needs an experiment file first. See `train FILE --help`.")
    path, *overrides = words
    module = experiment.load(path)
    given = experiment.parse(module, overrides)
    getattr(module, "check", lambda settings: None)(given.config)
    own = hasattr(module, "run")
    if own and (given.quiet or given.fork_from):
        raise Refused(f"{path} runs itself, without --quiet and --fork-from.")
    folder = given.workdir or pathlib.Path("runs") / pathlib.Path(path).stem
    is_quiet = given.quiet or not _met(given.config.training)
    if not is_quiet:
        begun = f" from {given.fork_from}" if given.fork_from else ""
        told = experiment.describe(given.config)
        print(f"{path} → {folder}{begun}\n{told}\n", flush=True)
    if own:
        with workdir.locked(folder):
            described = {"config": dataclasses.asdict(given.config)}
            workdir.settle(folder, described, ())
            module.run(given.config, folder)
        return 0
    from grpo_jax import display, iterative

    iterative.train(
        given.config,
        folder,
        rewards=getattr(module, "REWARDS", {}),
        step_rewards=getattr(module, "STEP_REWARDS", {}),
        fork_from=given.fork_from,
        screen=display.Screen(is_quiet=is_quiet),
    )
    return 0


def _met(chosen: config.Training) -> bool:
    """Meets the other processes of the job; whether this is the first of them."""
    from grpo_jax import crossing, processes

    if chosen.deterministic:
        processes.make_deterministic()
    processes.join()
    return crossing.place()[0] == 0


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
    known = "losses", "sampling", "update", "step", "trainer", "compile", "answers"
    if name in ("-h", "--help"):
        print(f"usage: python -m grpo_jax bench {{{','.join(known)}}} [--help] ...")
        return 0
    if name not in known:
        raise Refused(f"there is no bench {name!r}; there are {', '.join(known)}.")
    module = importlib.import_module(f"grpo_jax.bench.{name}")
    return module.main(rest)


def of_models(module: str, name: str) -> Callable[[list[str]], int]:
    """A command that needs the libraries of models, which take seconds to import."""

    def command(words: list[str]) -> int:
        # transformers would advise to install PyTorch, which nothing here needs.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        return getattr(importlib.import_module(f"grpo_jax.{module}"), name)(words)

    return command


COMMANDS = {"train": train, "methods": methods, "bench": bench}
for _name in ("sample", "models", "convert"):
    COMMANDS[_name] = of_models("model_commands", _name)
COMMANDS["evaluate"] = of_models("evaluation", "main")
COMMANDS["label"] = of_models("labelling", "main")
COMMANDS["reproduce"] = of_models("reproduce", "main")
COMMANDS["plan"] = of_models("planning", "main")
