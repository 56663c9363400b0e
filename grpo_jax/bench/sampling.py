"""What a rollout costs, beside the least it could cost on the same machine.

    python -m grpo_jax bench sampling [--model DIR] [--prompts 4] [--group 8] ...

Every row draws exactly `--new` tokens; with `--lengths geometric` rows end early, with
a mean of a fifth of that, and the time is compared with that of the same rows if every
step had cost its live rows alone. `--groups 1 8 64` gives a table over the group size
instead. Without `--model` the model is a Llama of 50M random parameters. The last line
is one JSON object.
"""

import heapq
import json
import resource
import statistics
import time
from typing import Literal, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from grpo_jax import crossing, line, pool, prng, programs, rollout, scoring
from grpo_jax.bench import ceilings
from grpo_jax.models import load, settings, transformer
from grpo_jax.models.spec import Spec
from grpo_jax.sampling.settings import Sampling
from grpo_jax.section import Refused

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
    """What a rollout costs, beside the least it could cost on this machine."""

    model: str | None = None  # a folder, a .gguf file, ...: see sample
    prompts: int = 4  # B
    group: int = 8  # G
    groups: tuple[int, ...] = ()  # a table over these group sizes
    new: int = 64  # tokens of a row, at most
    prompt_tokens: int = 16  # of each question
    lengths: Literal["all", "geometric"] = "all"  # rows that draw all, or end early
    rows: int | None = None  # decoded at once; None: all
    segment: int = 8  # tokens between two looks of the host
    rungs: int = 8  # sizes that a batch may shrink to
    temperature: float = 1.0  # of the draws
    runs: int = 5  # of which the median is taken
    dtype: Literal["float32", "bfloat16"] = "float32"  # of parameters and products


def main(words: list[str]) -> int:
    options = line.parse("bench sampling", Options, words)
    if options.groups and options.lengths != "all":
        raise Refused("--groups compares rows of one length. Leave --lengths at all.")
    if options.rows is not None and options.lengths == "all":
        raise Refused("--rows is for rows that end early. Add --lengths geometric.")
    spec, params = model_of(options.model, options.dtype)
    params = programs.publish(params, options.dtype, spends=True)
    print(
        f"{options.prompts} questions × {options.group} samples × {options.new} tokens "
        f"({options.lengths} of them), questions of {options.prompt_tokens}, "
        f"{options.dtype}, {jax.devices()[0].device_kind}, {options.runs} runs"
    )
    if options.groups:
        result = {"groups": _over_groups(options, spec, params)}
    else:
        result = _measure(options, spec, params)
        result |= _beside(options, spec, params, result)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(result | {"peak_rss_gb": round(used, 2)}))
    return 0


def _measure(options: Options, spec: Spec, params) -> dict[str, float]:
    sampler = sampler_of(options, spec)
    rollout.warm_up(sampler, params, options.prompts, options.prompt_tokens)
    batches = [questions_of(options, spec, seed) for seed in range(options.runs + 1)]
    _Run(sampler, params, batches[0])(0)
    compiled = programs.Compilations()
    runs = [_Run(sampler, params, asked)(1) for asked in batches[1:]]
    result = {"recompiles": compiled.count}
    result["rollout_s"] = statistics.median(run.seconds for run in runs)
    tokens = statistics.median(run.tokens for run in runs)
    result["rollout_tok_s"] = tokens / result["rollout_s"]
    result["prefill_s"] = _prefill_seconds(sampler, params, batches[1], options)
    result["decode_s"] = result["rollout_s"] - result["prefill_s"]
    return rounded(result)


def _beside(options: Options, spec: Spec, params, measured: dict) -> dict[str, float]:
    """What the machine could do at most, and how far scoring is from the sampler."""
    sampler, runs = sampler_of(options, spec), options.runs
    batches = [questions_of(options, spec, seed) for seed in range(1, runs + 1)]
    result = {}
    if options.lengths == "all":
        rows = options.prompts * options.group
        result["products_s"] = ceilings.products(runs, spec, params, rows, options.new)
        result["products_share"] = result["products_s"] / measured["rollout_s"]
        a_second = measured["rollout_tok_s"] * ceilings.operations_a_token(spec, params)
        result["matmul_gflops"] = ceilings.matmul(runs, options.dtype) / 1e9
        result["matmul_share"] = a_second / 1e9 / result["matmul_gflops"]
        tokens = options.prompts * options.prompt_tokens, rows * options.new / 2
        read = ceilings.bytes_a_step(spec, params, *tokens, options.dtype)
        result["bandwidth_gb_s"] = ceilings.bandwidth(runs) / 1e9
        a_second = read * options.new / measured["decode_s"]
        result["bandwidth_share"] = a_second / 1e9 / result["bandwidth_gb_s"]
    else:
        oracle = _oracle_seconds(options, sampler, params, batches)
        result["oracle_s"] = oracle + measured["prefill_s"]
        result["over_oracle"] = measured["rollout_s"] / result["oracle_s"]
    worst, mean = _gap(options, sampler, params, batches[0])
    return rounded(result) | {"scoring_gap_max": worst, "scoring_gap_mean": mean}


def _over_groups(options: Options, spec: Spec, params) -> list[dict]:
    """One prefix serves a group of any size: what that costs as it grows."""
    table = Table("G", "prefill s", "prefix MiB", "decode tok/s", "expected")
    bandwidth, found = ceilings.bandwidth(options.runs), []
    for G in options.groups:
        chosen = options._replace(group=G, rungs=1)
        whole = _measure(chosen, spec, params)
        short = _measure(chosen._replace(prompt_tokens=16), spec, params)
        asked = questions_of(chosen, spec)
        prefix = pool.Pool(
            sampler_of(chosen, spec), params, asked, prng.root(0)
        ).prefixes
        prefix = sum(x.nbytes for x in jax.tree.leaves(prefix))
        tokens = options.prompts * G * options.new
        # As many rows of short questions, and reading the longer questions' keys.
        expected = short["decode_s"] + options.new * prefix / bandwidth
        row = {"G": G, "prefill_s": whole["prefill_s"], "prefix_bytes": prefix}
        row["decode_tok_s"] = round(tokens / whole["decode_s"], 1)
        row["expected_tok_s"] = round(tokens / expected, 1)
        found.append(row)
        shown = f"{prefix / 2**20:.1f}", f"{row['decode_tok_s']:.0f}"
        share = f"{row['expected_tok_s']:.0f}"
        table.add_row(str(G), f"{whole['prefill_s']:.3f}", *shown, share)
    Console().print(table)
    return found


def _gap(options: Options, sampler, params, questions) -> tuple[float, float]:
    """Between log-probabilities as they were drawn and as scoring finds them."""
    key = prng.step_key(prng.root(0), prng.Stream.SAMPLE, 1)
    groups = rollout.answers(sampler, params, questions, key)
    groups = sorted(groups, key=lambda group: group.number)
    tokens = np.stack([group.tokens for group in groups])
    length = np.stack([group.length for group in groups])
    is_token = np.arange(tokens.shape[-1]) < length[..., None]
    asked = np.asarray([question.tokens for question in questions])
    texts = scoring.Texts(asked, np.ones(asked.shape, bool), tokens, is_token)
    spec, numerics = sampler.spec, sampler.numerics
    scores = programs.score(spec, params, texts, options.temperature, numerics)
    logp = np.stack([group.logp for group in groups])
    gap = np.abs(crossing.down(scores.logp) - logp)[is_token]
    return float(gap.max()), float(gap.mean())


def rounded(result: dict) -> dict:
    return {k: round(x, 4) if isinstance(x, float) else x for k, x in result.items()}


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


def model_of(name: str | None, dtype: str) -> tuple[Spec, transformer.Params]:
    key = prng.step_key(prng.root(0), prng.Stream.INIT, 0)
    if name is None:
        return SPEC, programs.init(SPEC, dtype, None)(key)
    model = load.load(settings.Model(name=name, dtype=dtype), key)
    return model.spec, model.params


def sampler_of(options: Options, spec: Spec) -> pool.Sampler:
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


def questions_of(options: Options, spec: Spec, seed: int = 0) -> list[pool.Question]:
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
        asked = questions_of(few, sampler.spec)
        once = _Run(sampler_of(few, sampler.spec), params, asked)
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
