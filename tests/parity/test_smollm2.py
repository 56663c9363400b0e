"""SmolLM2-135M-Instruct, real weights: the same answers and scores as `transformers`."""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from grpo_jax import pool, programs, rollout, scoring
from grpo_jax.models import load, settings
from grpo_jax.sampling.settings import Sampling
from grpo_jax.section import Refused

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0 to compare")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
QUESTIONS = [
    "What is the capital of France?", "What is 12 + 30?", "Name three colours.",
    "Write a haiku about rain.", "Why is the sky blue?", "Translate 'cat' to German.",
    "What is half of 90?", "Who wrote Hamlet?", "List the days of the week.",
    "What does a botanist study?", "Give a synonym for happy.", "What is 7 times 8?",
    "How many legs has a spider?", "What is water made of?", "Say hello in Spanish.",
    "What comes after Tuesday?", "Define gravity in one sentence.", "Is 17 prime?",
    "What do bees make?", "Name a large ocean.",
]  # fmt: skip


@pytest.fixture(scope="module")
def ours():
    try:
        load.smollm2()
    except Refused as error:
        pytest.skip(str(error))
    return load.load(settings.Model(name="smollm2-135m"), jax.random.key(0))


@pytest.fixture(scope="module")
def theirs(ours):
    path = load.smollm2()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return model.eval()


def test_greedy_answers_are_the_same_token_for_token(ours, theirs):
    """Ours all at once, theirs one by one."""
    stops, size = ours.tokenizer.stop_ids, ours.tokenizer.size
    greedy = Sampling(temperature=0.0, max_new=40, segment=8)
    sampler = pool.Sampler(ours.spec, greedy, 1, stops, size)
    chats = [ours.tokenizer.chat([{"role": "user", "content": q}]) for q in QUESTIONS]
    asked = [pool.Question(i, ours.tokenizer.encode(c)) for i, c in enumerate(chats)]
    key = jax.random.key(0)
    differ = []
    params = programs.publish(ours.params, "float32")
    for group in rollout.answers(sampler, params, asked, key):
        question = list(asked[group.number].tokens)
        got = group.tokens[0, : group.length[0]].tolist()
        ids = torch.tensor([question])
        whole = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=40,
            eos_token_id=list(stops),
            pad_token_id=2,
        )
        if got != whole[0, len(question) :].tolist():
            differ.append(QUESTIONS[group.number])
    assert not differ


def solutions():
    """50 of GSM8K's, or sums written here where the data is not at hand."""
    root = os.environ.get("GRPO_JAX_DATA")
    files = sorted(pathlib.Path(root, "gsm8k").glob("**/test*.jsonl")) if root else []
    if not files:
        return [
            (f"What is {a} + {b}?", f"{a} + {b} = {a + b}. The answer is {a + b}.")
            for a, b in zip(range(17, 67), range(90, 40, -1), strict=True)
        ]
    rows = [json.loads(line) for line in files[0].read_text().splitlines()[:50]]
    return [(row["question"], row["answer"]) for row in rows]


def test_log_probabilities_of_solutions_are_the_same(ours, theirs):
    gaps = []
    for text, answer in solutions():
        question, completion = map(ours.tokenizer.encode, (text + "\n", answer))
        width = 64 * -(-len(completion) // 64)
        left = 64 * -(-len(question) // 64)
        ids = np.zeros((1, left), int)
        ids[0, left - len(question) :] = question
        row = np.zeros((1, 1, width), int)
        row[0, 0, : len(completion)] = completion
        texts = scoring.Texts(
            jnp.asarray(ids),
            jnp.arange(left)[None] >= left - len(question),
            jnp.asarray(row),
            jnp.arange(width)[None, None] < len(completion),
        )
        got = programs.score(ours.spec, ours.params, texts, 1.0).logp
        whole = torch.tensor([question + completion])
        with torch.no_grad():
            logp = torch.log_softmax(theirs(whole).logits[0, :-1], -1)
        logp = logp.gather(-1, whole[0, 1:, None])[len(question) - 1 :, 0].numpy()
        gaps.append(abs(float(got[0, 0, : len(completion)].mean()) - logp.mean()))
    assert max(gaps) < 1e-4
