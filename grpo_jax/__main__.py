import sys

from grpo_jax import cli

sys.exit(cli.main())
