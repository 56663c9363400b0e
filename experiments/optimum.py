"""Does GRPO find the optimum that its own objective has?

    python -m grpo_jax train experiments/optimum.py

The smallest policy there is: one row of logits per question, one token per answer. The
advantages, the losses, the sampling keys and the settings are the real ones. Everything
can be enumerated, so the probability of the right answer is known at which the expected
gradient of the objective vanishes. The run must end there and not at 1: the KL to the
reference, weighted by β, holds it back.

Result: 0.8667 against an optimum of 0.8658, in 14 s on two CPU cores. Try
--algorithm.beta 0.04, or --preset dr_grpo --algorithm.beta 0.1 (0.8985 and 0.8984 with
--training.batch-size 64 --training.steps 2500).
"""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from grpo_jax import config, optimizers, prepare, prng, programs
from grpo_jax.data.problem import row
from grpo_jax.losses import kl, objective, statistics
from grpo_jax.records import Rewards
from grpo_jax.section import Refused
from grpo_jax.text import diversity

QUESTIONS = [(0, 3), (4, 5), (2, 2), (1, 0), (6, 1), (3, 5), (7, 2), (1, 4)]
ANSWERS = np.array([a + b for a, b in QUESTIONS])
VOCABULARY = 10  # the digits


def get_config() -> config.Config:
    return config.Config(
        algorithm=config.Algorithm(group_size=16, beta=0.4),
        sampling=config.Sampling(temperature=1.0),
        optimizer=config.Optimizer(learning_rate=0.03),
        training=config.Training(steps=600, batch_size=8),
    )


def log_probs(logits, temperature, rows):
    """log π of every digit, for every question of a batch: [B, V]."""
    return jax.nn.log_softmax(logits[rows] / temperature)


def of_token(logp, token):
    """The entries of [B, V] that tokens [B, G, 1] choose."""
    return jnp.take_along_axis(logp[:, None, :], token, -1)


def sample(logits, sampling, keys, rows):
    """A digit per sample by its own key, its log-probability, and the greedy digit."""
    logp = log_probs(logits, sampling.temperature, rows)
    below = jnp.cumsum(jnp.exp(logp), -1)[:, None, :] < prng.token_uniforms(keys, 1)
    token = jnp.minimum(below.sum(-1, keepdims=True), VOCABULARY - 1)
    return token, of_token(logp, token), logp.argmax(-1)


def rewards_of(token, greedy, rows) -> Rewards:
    """1 for the right digit; one step per answer, so process supervision runs too."""
    reward = (token == ANSWERS[rows][:, None, None]).astype(np.float32)
    everywhere = np.ones(reward.shape, bool)
    return Rewards(
        parts=reward,
        is_completion=everywhere,
        is_valid=everywhere[:, :, 0],
        step_reward=reward,
        step_end=np.zeros(reward.shape, int),
        is_step=everywhere,
        baseline=(greedy == ANSWERS[rows]).astype(np.float32),
        columns={"answer": ANSWERS[rows]},
    )


def ready(logits, settings, temperature, beta, rollout, rewards, reference, rows):
    """Scores of the policy and the reference, and the batch that they make."""
    token, sampler_logp = rollout
    logp, ref_logp = (
        of_token(log_probs(x, temperature, rows), token) for x in (logits, reference)
    )
    scores = prepare.Scores(logp, ref_logp, sampler_logp)
    return prepare.rollout(settings, rewards, scores, rewards.is_valid, beta=beta)


def loss(known, logits, rollout, place):
    """The objective of one update, all of the rollout in one minibatch."""
    settings, temperature, beta = known
    token, batch, keys, rows = rollout
    kept = batch.is_completion.sum()
    logp = log_probs(logits, temperature, rows)
    entropy = -(jnp.exp(logp) * logp).sum(-1)[:, None, None]
    entropy = jnp.broadcast_to(entropy, token.shape)
    logp = of_token(logp, token)
    batch = prepare.minibatch(
        settings, batch, logp, entropy, keys, rollout_tokens=kept, parts=1
    )
    return objective.policy_loss(settings, logp, batch, beta=beta, entropy=entropy)


def check(settings: config.Config):
    """Refuses what this experiment lacks, a critic for one, before anything runs."""
    plain = config.Config()
    reads = {"seed", "algorithm", "sampling", "optimizer", "training"}
    for name in vars(plain).keys() - reads:
        if getattr(settings, name) != getattr(plain, name):
            raise Refused(f"the optimum's policy is a table. Leave --{name} alone.")
    if settings.algorithm.minibatches * settings.training.parts > 1:
        raise Refused(
            "a table is updated as a whole. Leave --algorithm.minibatches and "
            "--training.parts at 1."
        )
    rows = np.arange(len(QUESTIONS))
    token = np.zeros((len(rows), settings.algorithm.group_size, 1), int)
    logits = np.zeros((len(rows), VOCABULARY), np.float32)
    rollout = token, np.zeros(token.shape, np.float32)
    rewards = rewards_of(token, ANSWERS, rows)
    knobs = settings.algorithm, settings.sampling.temperature, settings.algorithm.beta
    jax.eval_shape(ready, logits, *knobs, rollout, rewards, logits, rows)


def train(settings: config.Config):
    """Algorithm 1 on a table: yields π(right) of each question, and the metrics."""
    algorithm, sampling = settings.algorithm, settings.sampling
    updates = settings.training.steps * algorithm.mu
    optimizer = optimizers.make(settings.optimizer, updates)
    draw, prepared = programs.forward(sample), programs.forward(ready)
    update = programs.update(loss, optimizer)
    reference = jnp.zeros((len(QUESTIONS), VOCABULARY))
    state = programs.begin(optimizer)(jnp.copy(reference))
    root, beta = prng.root(settings.seed), algorithm.beta
    everyone = np.arange(len(QUESTIONS))
    for step in range(settings.training.steps):
        batch_size = settings.training.batch_size
        question = step * batch_size + np.arange(batch_size)
        rows = np.array(
            [row(settings.seed, i, len(QUESTIONS)) for i in question.tolist()]
        )

        def keys(stream, number, question=question):
            key = prng.step_key(root, stream, number)
            return prng.sample_keys(key, jnp.asarray(question), algorithm.group_size)

        draws = keys(prng.Stream.SAMPLE, step)
        token, sampler_logp, greedy = draw(state.params, sampling, draws, rows)
        rewards = rewards_of(np.asarray(token), np.asarray(greedy), rows)
        knobs = algorithm, sampling.temperature, beta
        rollout = token, sampler_logp
        given = state.params, *knobs, rollout, rewards, reference, rows
        batch, measured = prepared(*given)
        for repeat in range(algorithm.mu):
            choices = keys(prng.Stream.SELECT, step * algorithm.mu + repeat)
            state, more = update(state, knobs, (token, batch, choices, rows))
        optimizers.check(settings.optimizer, state.optimizer)
        measured = statistics.values(measured | more)
        various = [
            diversity.of_group(group, [str(digit) for (digit,) in group])
            for group in np.asarray(token).tolist()
        ]
        measured |= zip(diversity.NAMES, np.mean(various, 0), strict=True)
        if "kl" in measured:
            beta = kl.next_beta(algorithm.kl, beta, measured["kl"], token.size)
        right = jnp.exp(log_probs(state.params, sampling.temperature, everyone))
        right = np.asarray(right)[everyone, ANSWERS]
        metrics = {k: float(v) for k, v in measured.items()}
        yield right, {"step": step, "beta": float(beta), **metrics}


def optimum(settings: config.Algorithm) -> float | None:
    """π(right) where the expected gradient of the objective is 0, by enumeration.

    With k of G samples right, k is binomial: the mean over the G + 1 possible groups of
    the real advantages and the real loss is the expectation. None where what a group
    gets depends on the rest of the batch, or β moves.
    """
    chosen = settings.advantage
    by_batch = chosen.scale_rewards in ("batch", "nonzero") or chosen.whiten != "none"
    by_batch |= chosen.group_by != "question" or settings.top_entropy is not None
    by_batch |= settings.surrogate in ("kl_cov", "clip_cov")
    by_batch |= settings.loss_mean == "sum" and settings.entropy_coef > 0
    if by_batch or settings.kl.target is not None:
        return None
    size = settings.group_size
    k = np.arange(size + 1)
    is_right = np.arange(size) < k[:, None]
    rows = np.full(size + 1, 0)
    token = np.where(is_right, ANSWERS[0], ANSWERS[0] + 1)[:, :, None]
    rewards = jax.tree.map(jnp.asarray, rewards_of(token, ANSWERS[rows], rows))
    ref_logp = jnp.full(token.shape, -jnp.log(VOCABULARY))

    def expected_loss(theta, p):
        log_right = jax.nn.log_sigmoid(theta)
        log_wrong = jax.nn.log_sigmoid(-theta) - jnp.log(VOCABULARY - 1)
        logp = jnp.where(is_right, log_right, log_wrong)[:, :, None]
        right = jax.nn.sigmoid(theta)
        entropy = -(right * log_right + (1 - right) * log_wrong)
        old_logp = jax.lax.stop_gradient(logp)
        scores = prepare.Scores(old_logp, ref_logp, old_logp)
        given = rewards, scores, rewards.is_valid
        batch, _ = prepare.rollout(settings, *given, beta=settings.beta)
        entropy = jnp.broadcast_to(entropy, token.shape)
        kept = batch.is_completion.sum()
        batch = prepare.minibatch(
            settings, batch, old_logp, entropy, None, rollout_tokens=kept, parts=1
        )
        # Groups are not equally likely: k right ones come up with this chance.
        chance = jax.scipy.stats.binom.pmf(k, size, p)[:, None] * (size + 1)
        batch = batch._replace(row_weight=batch.row_weight * chance)
        return objective.policy_loss(
            settings, logp, batch, beta=settings.beta, entropy=entropy
        )[0]

    slope = programs.forward(jax.grad(expected_loss))
    low, high = -2.0, 12.0  # of the log-odds; the loss falls until the optimum
    for _ in range(30):
        middle = (low + high) / 2
        falls = slope(middle, jax.nn.sigmoid(middle)) < 0
        low, high = (middle, high) if falls else (low, middle)
    return float(jax.nn.sigmoid((low + high) / 2))


def run(settings: config.Config, workdir: pathlib.Path):
    """Trains, and writes metrics.jsonl and figures/learning.png."""
    console = Console()
    history = []
    with (workdir / "metrics.jsonl").open("w") as file:
        steps = settings.training.steps
        for right, row in track(train(settings), "GRPO", steps, console=console):
            history.append(right)
            known = {k: v if math.isfinite(v) else None for k, v in row.items()}
            file.write(json.dumps(known, allow_nan=False) + "\n")
    history, best = np.array(history), optimum(settings.algorithm)
    settled = history[-max(len(history) // 4, 1) :].mean(0)
    console.print(table(settled, best))
    figure = draw(history, best, workdir / "figures" / "learning.png")
    known = "unknown for these settings" if best is None else f"{best:.4f}"
    console.print(
        f"π(right), mean over questions and the last quarter of the run: "
        f"{settled.mean():.4f} (it began at {1 / VOCABULARY:.4f}); optimum of the "
        f"objective: {known}\nfigure: {figure}\nnext: python -m grpo_jax methods",
        highlight=False,
    )


def table(settled, best) -> Table:
    out = Table("question", "answer", "π(answer) at the start", "at the end", "optimum")
    for (a, b), right in zip(QUESTIONS, settled, strict=True):
        end = "unknown" if best is None else f"{best:.4f}"
        out.add_row(
            f"{a} + {b}", str(a + b), f"{1 / VOCABULARY:.4f}", f"{right:.4f}", end
        )
    return out


def draw(history, best, path: pathlib.Path) -> pathlib.Path:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(history, color="0.75", linewidth=0.7)
    axes.plot(history.mean(1), color="C0", linewidth=2, label="mean over questions")
    axes.plot([], color="0.75", linewidth=0.7, label="one question")
    if best is not None:
        axes.axhline(best, color="C3", linestyle="--", label=f"optimum {best:.3f}")
    axes.set(xlabel="step", ylabel="probability of the right answer", ylim=(0, 1.02))
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
