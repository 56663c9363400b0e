import os
import sys

from grpo_jax import cli, line

# A program that was compiled once is there at the next start; JAX reads this.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", line.cache())
if not sys.stdout.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars that redraw a line

sys.exit(cli.main())
