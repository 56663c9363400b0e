"""The same numbers as `transformers` and torch: logits, gradients, files both ways."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from grpo_jax.models import config_json, hf, names, transformer, weights
from grpo_jax.models.settings import Numerics
from tests.models import examples

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0 to compare")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
LENGTH = 200  # past the training length of llama3, yarn: their stretching is active


def theirs(name, dtype="float32"):
    """A model that `transformers` made at random, nothing at its initial 0 or 1."""
    spec = examples.SPECS[name]
    fields = json.loads(json.dumps(config_json.from_spec(spec)))
    cls = getattr(transformers, config_json.CLASSES[spec.family])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        cls.from_dict(fields), attn_implementation="eager"
    )
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    return model.eval().to(getattr(torch, dtype))


@pytest.fixture(params=sorted(examples.SPECS))
def pair(request, tmp_path):
    """(our description, our parameters, their model), through a folder they saved."""
    model = theirs(request.param)
    model.save_pretrained(tmp_path)
    spec = config_json.to_spec(config_json.read(tmp_path))
    assert spec == examples.SPECS[request.param]
    return spec, weights.load(spec, hf.source(tmp_path)), model


def test_logits_are_equal_at_long_positions(pair):
    spec, params, model = pair
    tokens = examples.tokens_of(2, LENGTH)
    with torch.no_grad():
        expected = model(torch.tensor(np.asarray(tokens))).logits.numpy()
    got = examples.plain(spec, params, tokens[:, None])[:, 0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_gradients_of_the_mean_log_probability_are_equal(pair):
    spec, params, model = pair
    # Gemma's padding is token 0, whose embedding torch keeps without a gradient.
    tokens = examples.tokens_of(2, LENGTH, vocab=96) + 1
    ids = torch.tensor(np.asarray(tokens))
    logp = torch.log_softmax(model(ids).logits[:, :-1], -1)
    logp.gather(-1, ids[:, 1:, None]).mean().backward()

    def mean(params):
        logits = examples.plain(spec, params, tokens[:, None])[:, 0, :-1]
        logp = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(logp, tokens[:, 1:, None], -1).mean()

    slopes = jax.jit(jax.grad(mean))(params)
    expected = {name: value.grad.numpy() for name, value in model.named_parameters()}
    for tensor in weights.tensors(spec, slopes, names.HF):
        np.testing.assert_allclose(
            tensor.fetch(), expected[tensor.name], rtol=0, atol=1e-4
        )


def test_padding_on_the_left_is_masked_alike(pair):
    spec, params, model = pair
    tokens = examples.tokens_of(2, 12)
    mask = np.arange(12) >= np.array([[5], [0]])
    with torch.no_grad():
        position = np.maximum(np.cumsum(mask, -1) - 1, 0)
        expected = model(
            torch.tensor(np.asarray(tokens)),
            attention_mask=torch.tensor(mask.astype(int)),
            position_ids=torch.tensor(position),
        ).logits.numpy()
    hidden, _ = examples.forward(
        spec,
        params,
        tokens[:, None],
        jnp.asarray(position)[:, None],
        jnp.asarray(mask)[:, None],
    )
    got = transformer.unembed(spec, params, hidden)[:, 0]
    np.testing.assert_allclose(got[mask], expected[mask], rtol=0, atol=1e-4)


def test_what_we_save_is_loaded_to_the_bit(pair, tmp_path):
    spec, params, model = pair
    (tmp_path / "ours").mkdir()
    hf.save(tmp_path / "ours", spec, params)
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", dtype=torch.float32
    )
    expected = dict(model.named_parameters())
    for name, value in again.named_parameters():
        assert torch.equal(value, expected[name]), name


def test_in_half_precision_both_are_as_far_from_the_truth(pair):
    """bf16 has 8 bits: differences of a few percent of the largest logit."""
    spec, params, model = pair
    tokens = examples.tokens_of(2, 64)
    exact = examples.plain(spec, params, tokens[:, None])[:, 0]
    half = Numerics(compute="bfloat16")
    ours = examples.plain(spec, params, tokens[:, None], half)[:, 0]
    with torch.no_grad():
        ids = torch.tensor(np.asarray(tokens))
        other = model.to(torch.bfloat16)(ids).logits.float().numpy()
    scale = np.abs(exact).max()
    assert np.abs(ours - other).max() < 0.06 * scale
    our_error, their_error = (np.abs(x - exact).mean() for x in (ours, other))
    assert our_error < 1.5 * their_error
