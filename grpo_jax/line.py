"""The words of a command: its options, with their meanings and defaults.

Options are a NamedTuple; the comment at a field is its help, the docstring that of the
command.
"""

import inspect
import os
import pathlib
from typing import Annotated, Any

import tyro

# A model's name: a folder, a hub id, ...; or a run's folder.
Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Text = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
Folder = Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]


CLOSING = (
    "Exit codes: 0 done, 1 failed, 2 refused, 33 stopped on request, all saved. With "
    "--debug an error is shown with where it came from."
)


def cache() -> str:
    """Where compiled programs are kept, if nobody says where."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return str(pathlib.Path(base).expanduser() / "grpo_jax")


def parse(command: str, kind: type, words: list[str], **known: Any) -> Any:
    """Ends the program with exit code 2 where a word or a value is none of these."""
    known.setdefault("description", inspect.getdoc(kind))
    known["description"] += f"\n\n{CLOSING}"
    known |= {"prog": f"python -m grpo_jax {command}", "args": words}
    return tyro.cli(kind, config=(tyro.conf.FlagCreatePairsOff,), **known)
