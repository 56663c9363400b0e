"""`bench step` without its rollout."""

from grpo_jax.bench import step


def main(words: list[str]) -> int:
    return step.main(words, samples=False)
