"""The benchmark of a step: it runs, and counts the operations of an update."""

import json

import jax
import numpy as np
import pytest

from grpo_jax import cli, programs
from grpo_jax.bench import step
from tests.models import examples

SMALL = ["--prompts", "2", "--group", "2", "--new", "8", "--runs", "1"]


def run(capsys, *words):
    assert cli.main(["bench", *words[:1], "--model", "tiny", *SMALL, *words[1:]]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_it_measures_a_step(capsys):
    result = run(capsys, "step")
    assert result["recompiles"] == 0
    parts = result["rollout_s"] + result["update_s"]
    assert result["step_s"] == pytest.approx(parts, rel=0.01)
    assert result["matmul_share"] > 0 and result["peak_rss_gb"] > 0


@pytest.mark.slow
def test_it_measures_a_run(capsys):
    result = run(capsys, "trainer")
    assert result["recompiles"] == 0
    assert result["over_bare"] == pytest.approx(
        result["trainer_s"] / np.mean(result["bare_s"]), rel=0.01
    )


@pytest.mark.slow
def test_it_compares_an_update_with_what_it_might_have_cost(capsys):
    packed = run(capsys, "update", "--lengths", "geometric")
    assert packed["over_oracle"] > 0
    repeated = run(capsys, "update", "--repeat-prompt", "--prompt-tokens", "40")
    assert repeated["over_repeated"] > 0
    assert repeated["repeated_temporary_gib"] > repeated["temporary_gib"]


def test_operations_by_hand():
    """12 tokens of completions and 2 · 5 of questions, forward, back and reference."""
    spec = examples.SPECS["qwen3"]
    options = step.Options(
        prompts=2, group=2, new=3, prompt_tokens=6, runs=1, dtype="float32"
    )
    params = programs.copy(examples.params_of(spec))
    bench = step.Bench(options, spec, params)
    layer = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 48
    expected = 2 * 4 * (3 * layer * (12 + 10) + 97 * 32 * 12)
    assert bench.operations() == expected
    assert bench.memory()["arguments"] > 0
    assert len(jax.tree.leaves(bench.state.reference)) > 0


@pytest.mark.parametrize(
    "words",
    [
        ["update", "--lengths", "geometric", "--repeat-prompt"],
        ["step", "--lengths", "geometric"],
    ],
)
def test_what_it_would_measure_wrongly_is_refused(words, capsys):
    assert cli.main(["bench", *words]) == 2
    assert "refused: " in capsys.readouterr().err
