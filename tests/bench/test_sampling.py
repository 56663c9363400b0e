"""The benchmark of the sampler: it runs, and its oracle is one."""

import json

import pytest

from grpo_jax import cli
from grpo_jax.bench import sampling


def test_live_rows_by_hand():
    assert sampling.live_rows([3, 1, 2], 3).tolist() == [3, 2, 1]
    # two places: the row of 2 begins when that of 1 has ended
    assert sampling.live_rows([3, 1, 2], 2).tolist() == [2, 2, 2]
    assert sampling.live_rows([2, 2], 1).tolist() == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("lengths", ["all", "geometric"])
def test_it_measures_a_rollout(capsys, lengths):
    small = ["--prompts", "2", "--group", "2", "--new", "8", "--runs", "1"]
    words = ["bench", "sampling", "--model", "tiny", *small, "--lengths", lengths]
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["recompiles"] == 0 and result["rollout_tok_s"] > 0
    assert result["scoring_gap_mean"] <= result["scoring_gap_max"] < 1e-4
    share = {"all": "products_share", "geometric": "over_oracle"}[lengths]
    assert result[share] > 0


@pytest.mark.slow
def test_a_table_over_the_group_size(capsys):
    small = ["--prompts", "2", "--new", "8", "--runs", "1", "--prompt-tokens", "40"]
    words = ["bench", "sampling", "--model", "tiny", *small, "--groups", "1", "4"]
    assert cli.main(words) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["groups"]
    assert [row["G"] for row in rows] == [1, 4]
    assert rows[0]["prefix_bytes"] == rows[1]["prefix_bytes"] > 0


@pytest.mark.parametrize(
    "words", [["--groups", "1", "--lengths", "geometric"], ["--rows", "8"]]
)
def test_what_it_would_measure_wrongly_is_refused(words, capsys):
    assert cli.main(["bench", "sampling", *words]) == 2
    assert "refused: --" in capsys.readouterr().err
