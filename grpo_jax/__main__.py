import os
import pathlib
import sys

from grpo_jax import cli

# A program that was compiled once is there at the next start; JAX reads this.
_cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache / "grpo_jax"))
if not sys.stdout.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars that redraw a line

sys.exit(cli.main())
