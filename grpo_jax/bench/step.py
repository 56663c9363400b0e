"""What a step of GRPO costs: rollout, scores of the reference, and one update.

    python -m grpo_jax bench step [--model DIR] [--prompts 4] [--group 8] ...
    python -m grpo_jax bench update ...          the same without the rollout

Every completion has exactly `--new` tokens; with `--lengths geometric` it has a fifth
of that on average, and the update is compared with one of as many tokens in full rows.
`--repeat-prompt` compares it with one that computes a question for each of its samples.
Without `--model` the model is a Llama of 50M random parameters. The last line is one
JSON object.
"""

import json
import resource
import statistics
import time
from typing import Literal, NamedTuple

import jax
import numpy as np

from grpo_jax import config, learner, line, plan, pool, prng, programs, rollout, sampled
from grpo_jax.bench import ceilings, sampling
from grpo_jax.models import settings
from grpo_jax.models.spec import Spec
from grpo_jax.records import Rewards
from grpo_jax.sampling import shapes
from grpo_jax.section import Refused
from grpo_jax.text.tokenizer import Bytes


class Options(NamedTuple):
    """What a step of GRPO costs, or its update alone."""

    model: str | None = None  # a folder, a .gguf file, ...: see sample
    prompts: int = 4  # B
    group: int = 8  # G
    new: int = 64  # tokens of a row, at most
    prompt_tokens: int = 16  # of each question
    lengths: Literal["all", "geometric"] = "all"  # rows of all tokens, or of fewer
    repeat_prompt: bool = False  # also: a question for each of its samples
    beta: float = 0.04  # of the KL; 0: no reference is scored
    parts: int = 1  # of an update, one after another
    runs: int = 3  # of which the median is taken
    dtype: Literal["float32", "bfloat16"] = "float32"  # of products; masters: float32
    remat: Literal["none", "dots", "full"] = "dots"  # what is recomputed
    chunk: int = 512  # tokens whose logits exist at once


def main(words: list[str], *, samples: bool = True) -> int:
    name = "step" if samples else "update"
    options = line.parse(f"bench {name}", Options, words)
    if options.lengths != "all" and options.repeat_prompt:
        raise Refused("--repeat-prompt compares rows of one length. Leave --lengths.")
    if samples and options.lengths != "all":
        raise Refused(
            "rows that end early are for `bench update` and `bench sampling`."
        )
    spec, params = sampling.model_of(options.model, "float32")
    print(
        f"{options.prompts} questions × {options.group} samples × {options.new} tokens "
        f"({options.lengths} of them), questions of {options.prompt_tokens}, β "
        f"{options.beta}, {options.dtype}, {jax.devices()[0].device_kind}, "
        f"{options.runs} runs"
    )
    bench = Bench(options, spec, params)
    result = bench.measure(samples)
    rate = ceilings.matmul(options.runs, options.dtype)
    result["matmul_share"] = bench.operations() / result["update_s"] / rate
    result["matmul_gflops"] = rate / 1e9
    if options.lengths != "all":
        result["oracle_s"] = bench.oracle_seconds()
        result["over_oracle"] = result["update_s"] / result["oracle_s"]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result["peak_rss_gb"] = used
    if options.repeat_prompt:
        result |= _repeated(options, spec, bench, result["update_s"])
    print(json.dumps(sampling.rounded(result)))
    return 0


def _repeated(options: Options, spec: Spec, bench, seconds: float) -> dict:
    """The same completions, each as a group of its own: with a question of its own."""
    alone = options._replace(prompts=options.prompts * options.group, group=1)
    params = programs.copy(bench.state.policy.params)
    other = Bench(alone._replace(parts=options.parts), spec, params)
    found = {"repeated_s": other.measure(samples=False)["update_s"]}
    found["over_repeated"] = found["repeated_s"] / seconds
    for name, one in (("temporary_gib", bench), ("repeated_temporary_gib", other)):
        found[name] = one.memory()["temporary"]
    return found


class Bench:
    """One learner, and rollouts for it."""

    def __init__(self, options: Options, spec: Spec, params):
        self.options, self.spec = options, spec
        self.settings = self.settings_of(options)
        self.run = learner.make(spec, self.settings, 10**6)
        self.state = learner.begin(self.run, params, jax.random.key(0))

    @staticmethod
    def settings_of(options: Options) -> config.Config:
        numerics = settings.Numerics(
            compute=options.dtype, remat=options.remat, chunk=options.chunk
        )
        alone = {"estimator": "none", "scale_rewards": "none"}
        return config.Config(
            model=settings.Model(numerics=numerics),
            algorithm=config.Algorithm(
                group_size=options.group,
                beta=options.beta,
                advantage=config.Advantage(**alone if options.group == 1 else {}),
            ),
            sampling=config.Sampling(
                temperature=1.0,
                max_new=options.new,
                min_new=options.new,
                cache=options.dtype,
            ),
            training=config.Training(
                batch_size=options.prompts, parts=min(options.parts, options.prompts)
            ),
        )

    def measure(self, samples: bool) -> dict[str, float]:
        """Medians of the parts of a step, after some that compile: two, or of drawn
        rollouts each, for their lengths decide what is compiled."""
        measured = range(2, self.options.runs + 2)
        first, seconds = range(2) if samples else measured, []
        for step in [*first, *measured]:
            if len(seconds) == len(first):
                compiled = programs.Compilations()
            start = time.perf_counter()
            given = self.answered(step) if samples else self.drawn(step)
            middle = time.perf_counter()
            self.learn(given)
            seconds.append((middle - start, time.perf_counter() - middle))
        seconds = seconds[len(first) :]
        of_rollout, of_update = zip(*seconds, strict=True)
        result = {"update_s": statistics.median(of_update)}
        result["recompiles"] = compiled.count
        if samples:
            result["rollout_s"] = statistics.median(of_rollout)
            result["step_s"] = statistics.median(map(sum, seconds))
            tokens = self.options.prompts * self.options.group * self.options.new
            result["rollout_tok_s"] = tokens / result["rollout_s"]
        return result

    def learn(self, given: sampled.Rollout):
        is_token = np.arange(given.completion.shape[2]) < given.length[:, :, None]
        parts = np.random.default_rng(0).normal(size=(*given.length.shape, 1))
        rewards = Rewards(
            parts.astype(np.float32), is_token, np.ones(given.length.shape, bool)
        )
        key, beta = prng.root(0), self.options.beta
        done = learner.learn(self.run, self.state, given, rewards, key, beta=beta)
        self.state, *_ = jax.block_until_ready(done)

    def answered(self, step: int) -> sampled.Rollout:
        """What the policy of now says."""
        chosen, spec, options = self.settings.sampling, self.spec, self.options
        params = learner.policy(self.run, self.state)
        params = programs.publish(params, options.dtype)
        numerics = self.settings.model.numerics
        known = options.group, Bytes.stop_ids, spec.vocab, numerics
        sampler = pool.Sampler(spec, chosen, *known)
        asked = self.questions(step)
        key = prng.step_key(prng.root(0), prng.Stream.SAMPLE, step)
        groups = list(rollout.answers(sampler, params, asked, key))
        return sampled.stack(asked, groups)

    def questions(self, step: int, count: int | None = None) -> list[pool.Question]:
        options = self.options
        shape = count or options.prompts, options.prompt_tokens
        ids = np.random.default_rng(step).integers(0, self.spec.vocab, shape)
        return [pool.Question(i, row.tolist()) for i, row in enumerate(ids)]

    def drawn(self, step: int, full: int | None = None) -> sampled.Rollout:
        """Random completions, as long as they should be; or full, of so many
        questions."""
        options, rng = self.options, np.random.default_rng(step)
        shape = full or options.prompts, options.group
        length = np.full(shape, options.new)
        if options.lengths == "geometric" and full is None:
            drawn = rng.geometric(5 / options.new, shape)
            length = np.minimum(drawn, options.new)
        groups = []
        asked = self.questions(step, full)
        for question, lengths in zip(asked, length, strict=True):
            size = shape[1], options.new
            tokens = rng.integers(0, self.spec.vocab, size)
            logp = np.zeros(size, np.float32)
            ended = np.ones(shape[1], bool)
            groups.append(
                pool.Answers(question.number, tokens, lengths, logp, logp, ended)
            )
        return sampled.stack(asked, groups)

    def operations(self) -> float:
        """Of the update's matrix products: forward, twice that backward, and once more
        for the reference; without attention's own, and what is computed again."""
        options, params = self.options, self.state.policy.params
        matrices = [x for k, x in params["layers"].items() if k[0] == "w"]
        layers = sum(x.size for x in matrices)
        vocabulary = params[self.spec.unembedding].size
        asked = options.prompts * (options.prompt_tokens - 1)
        drawn = [self.drawn(step).length.sum() for step in range(2, options.runs + 2)]
        tokens = int(statistics.median(drawn))
        passes = 3 + (options.beta > 0)
        return 2 * passes * (layers * (asked + tokens) + vocabulary * tokens)

    def memory(self) -> dict[str, float]:
        """Of the compiled update, in GiB."""
        options = self.options
        width = shapes.length(options.prompt_tokens)
        size = plan.Size(options.prompts, width, options.new)
        return plan.memory(dict(plan.learning(self.run, size))["update"].compile())

    def oracle_seconds(self) -> float:
        """Of as many tokens, had they been full rows: on the line through what updates
        of 1, 2, ... questions cost; questions' own tokens count."""
        options, costs = self.options, {}
        for count in sorted({1, 2, options.prompts // 2, options.prompts} - {0}):
            full = self.drawn(0, count)
            costs[_tokens(full)] = self.seconds([full] * (options.runs + 1))
        line = np.polynomial.Polynomial.fit(list(costs), list(costs.values()), 1)
        drawn = [_tokens(self.drawn(step)) for step in range(2, options.runs + 2)]
        return statistics.median(line(np.array(drawn)).tolist())

    def seconds(self, rollouts: list[sampled.Rollout]) -> float:
        """Median time to learn from one, after the first."""
        taken = []
        for given in rollouts:
            start = time.perf_counter()
            self.learn(given)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])


def _tokens(given: sampled.Rollout) -> int:
    return int(given.length.sum() + given.is_question.sum())
