"""What a rollout costs, beside the least it could cost on the same machine.

    python -m grpo_jax bench sampling [--model DIR] [--prompts 4] [--group 8] ...

Every row draws exactly `--new` tokens; with `--lengths geometric` rows end early, with
a mean of a fifth of that, and the time is compared with that of the same rows if every
step had cost its live rows alone. Without `--model` the model is a Llama of 50M random
parameters. The last line is one JSON object.
"""

import heapq
import json
import resource
import statistics
import time
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from grpo_jax import pool, prng, programs, rollout
from grpo_jax.models import load, settings, transformer
from grpo_jax.models.spec import Spec
from grpo_jax.sampling.settings import Sampling

SPEC = Spec(
    vocab=49_152,
    layers=8,
    width=512,
    ffw=1536,
    heads=8,
    kv_heads=4,
    head_size=64,
    max_length=8192,
)


class Options(NamedTuple):
    model: str | None = None  # a folder, a .gguf file, ...: see sample
    prompts: int = 4  # B
    group: int = 8  # G
    new: int = 64  # tokens of a row, at most
    prompt_tokens: int = 16
    lengths: Literal["all", "geometric"] = "all"
    rows: int | None = None  # decoded at once; None: all
    segment: int = 8
    rungs: int = 8
    temperature: float = 1.0
    runs: int = 5
    dtype: Literal["float32", "bfloat16"] = "float32"


def main(words: list[str]) -> int:
    options = tyro.cli(Options, args=words, prog="python -m grpo_jax bench sampling")
    spec, params = _model(options)
    sampler = _sampler(options, spec)
    rollout.warm_up(sampler, params, options.prompts, options.prompt_tokens)
    batches = [_questions(options, spec, seed) for seed in range(options.runs + 1)]
    _Run(sampler, params, batches[0])(0)
    compiled = _Compilations()
    runs = [_Run(sampler, params, asked)(1) for asked in batches[1:]]
    questions = batches[1]
    result = {"recompiles": compiled.count}
    seconds = statistics.median(run.seconds for run in runs)
    tokens = statistics.median(run.tokens for run in runs)
    result |= {"rollout_tok_s": tokens / seconds, "rollout_s": seconds}
    result["prefill_s"] = _prefill_seconds(sampler, params, questions, options)
    result["decode_s"] = seconds - result["prefill_s"]
    if options.lengths == "all":
        result["products_s"] = _products_seconds(options, spec, params)
        result["share_of_products"] = result["products_s"] / seconds
    else:
        oracle = _oracle_seconds(options, sampler, params, batches[1:])
        result["oracle_s"] = oracle + result["prefill_s"]
        result["over_oracle"] = seconds / result["oracle_s"]
    result["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{options.prompts} questions × {options.group} samples × {options.new} tokens "
        f"({options.lengths} of them), questions of {options.prompt_tokens}, "
        f"{options.dtype}, {jax.devices()[0].device_kind}, {options.runs} runs"
    )
    print(json.dumps({k: round(v, 4) for k, v in result.items()}))
    return 0


class _Measured(NamedTuple):
    seconds: float
    tokens: int


class _Run(NamedTuple):
    sampler: pool.Sampler
    params: transformer.Params
    questions: list[pool.Question]

    def __call__(self, step: int) -> _Measured:
        key = prng.step_key(prng.root(0), prng.Stream.SAMPLE, step)
        start = time.perf_counter()
        groups = list(rollout.answers(self.sampler, self.params, self.questions, key))
        seconds = time.perf_counter() - start
        return _Measured(seconds, int(sum(group.length.sum() for group in groups)))


class _Compilations:
    """How many programs were compiled since it was made."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, seconds: float, **_):
        self.count += event.endswith("backend_compile_duration")


def _model(options: Options) -> tuple[Spec, transformer.Params]:
    key = prng.step_key(prng.root(0), prng.Stream.INIT, 0)
    if options.model is not None:
        chosen = settings.Model(name=options.model, dtype=options.dtype)
        model = load.load(chosen, key)
        spec, params = model.spec, model.params
    else:
        spec, params = SPEC, programs.init(SPEC, options.dtype, None)(key)
    return spec, programs.publish(params, options.dtype, spends=True)


def _sampler(options: Options, spec: Spec) -> pool.Sampler:
    chosen = Sampling(
        temperature=options.temperature,
        max_new=options.new,
        rows=options.rows,
        segment=options.segment,
        rungs=options.rungs,
        cache=options.dtype,
    )
    numerics = settings.Numerics(compute=options.dtype)
    return pool.Sampler(spec, chosen, options.group, (), spec.vocab, numerics)


def _questions(options: Options, spec: Spec, seed: int = 0) -> list[pool.Question]:
    rng = np.random.default_rng(seed)
    size = options.prompts, options.group
    lengths = np.full(size, options.new)
    if options.lengths == "geometric":
        lengths = np.minimum(rng.geometric(5 / options.new, size), options.new)
    ids = rng.integers(0, spec.vocab, (options.prompts, options.prompt_tokens))
    rows = zip(ids.tolist(), lengths.tolist(), strict=True)
    return [
        pool.Question(i, tokens, budgets) for i, (tokens, budgets) in enumerate(rows)
    ]


def _prefill_seconds(sampler, params, questions, options: Options) -> float:
    """Of all questions that enter at first, as the sampler does it, alone."""
    key, seconds = prng.root(0), []
    for _ in range(options.runs + 1):
        fresh = pool.Pool(sampler, params, questions, key)
        jax.block_until_ready((fresh.store, fresh.prefixes))
        start = time.perf_counter()
        fresh.enter()
        jax.block_until_ready(fresh.prefixes)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _oracle_seconds(options: Options, sampler, params, batches) -> float:
    """The same rows, if each step had cost its live rows and every place were filled.

    What n rows cost a step is measured, in rollouts where all n of them stay.
    """
    costs, most = {}, options.rows or options.prompts * options.group
    for n in sorted({min(2**i, most) for i in range(most.bit_length() + 1)}):
        few = options._replace(
            prompts=-(-n // options.group),
            group=min(n, options.group),
            new=min(options.new, 64),
            rows=None,
            lengths="all",
        )
        asked = _questions(few, sampler.spec)
        once = _Run(_sampler(few, sampler.spec), params, asked)
        once(0)
        seconds = statistics.median(once(step).seconds for step in range(1, 4))
        seconds -= _prefill_seconds(once.sampler, params, asked, few)
        costs[few.prompts * few.group] = seconds / few.new
    seconds = []
    for questions in batches:
        lengths = [n for question in questions for n in question.budgets]
        live = live_rows(lengths, most)
        seconds.append(np.interp(live, list(costs), list(costs.values())).sum())
    return float(statistics.median(seconds))


def live_rows(lengths: list[int], places: int) -> np.ndarray:
    """Rows at each step, if one that waits takes the place of one that ends at once."""
    ends, live = [], np.zeros(sum(lengths) + 1, int)
    for n in lengths:
        begin = heapq.heappop(ends) if len(ends) == places else 0
        live[begin : begin + n] += 1
        heapq.heappush(ends, begin + n)
    return live[: max(ends)]


def _products_seconds(options: Options, spec: Spec, params) -> float:
    """The matrix products of every step, at full batch, and nothing else."""
    rows = options.prompts * options.group
    program = programs.forward(_products, static_argnames=("spec", "steps"))
    x = jnp.ones((rows, spec.width), options.dtype)
    return _median(options.runs, lambda: program(spec, params, x, options.new))


def _products(spec: Spec, params, x, steps: int):
    def step(_, x):
        for weights in params["layers"]:
            q, k, v = (jnp.tensordot(x, weights[f"w{name}"], 1) for name in "qkv")
            some = q.mean() + k.mean() + v.mean()
            x = x + jnp.tensordot(q, weights["wo"], 2) + some
            gate, up = (jnp.tensordot(x, weights[f"w{name}"], 1) for name in "gu")
            x = jnp.tensordot(gate + up, weights["wd"], 1) * 1e-3
        logits = jnp.einsum("bd,vd->bv", x, params[spec.unembedding])
        return x + logits.max(-1, keepdims=True) * 1e-3

    return jax.lax.fori_loop(0, steps, step, x)


def _median(runs: int, function) -> float:
    jax.block_until_ready(function())
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
