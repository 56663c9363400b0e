"""The figure of theory: its numbers by hand, and that it is drawn of any seeds."""

import dataclasses
import json
import math

import numpy as np
import pytest

from grpo_jax import experiment

theory = experiment.load("experiments/deepseekmath/theory.py")
gradients, bandits, miniature = theory.gradients, theory.bandits, theory.miniature
SIZES = 2, 4, 8, 16, 32, 64
RIGHT = [0, 3, 16, 32, 48, 61, 64, 20]  # of 64 samples of eight questions


def pool(seed):
    """What a run finds, with ‖∇J‖² = 2 and questions weighed as leave-one-out does."""
    law, more = gradients.Law(100.0, 140.0, 5.0), 1 + 0.01 * seed
    groups = {}
    for G in SIZES:
        total = law.noise(np.array(G)) * gradients.N / G
        same = None if G == 64 else 2 * (1 + law.question)
        groups[str(G)] = {
            "square": 2 * more * (total + 1),
            "same": same and more * same,
            "mean": 2 * more,
            "along": 2 * more,
        }
    p = np.array(RIGHT) / 64
    plain = 1 + p
    shown = {"z-score": 2 * plain, "leave-one-out": plain, "square": plain + 0.2}
    return {
        "samples": 64,
        "right": RIGHT,
        "mixed": {str(G): 1 - 0.5 ** (G - 1) for G in SIZES},
        "arms": dict.fromkeys(gradients.ARMS, groups),
        "truth": 2 * more,
        "norms": {"right": 2.0, "wrong": 5.0},
        "shown": {key: x.tolist() for key, x in shown.items()},
    }


def table(seed):
    ends = {
        arm: {str(b): {"right": 0.8 + 0.01 * seed, "best": 0.8} for b in bandits.BETAS}
        for arm in bandits.OPTIMA
    }
    taught = {
        arm: {str(rate): 0.6 + 0.01 * i + 0.001 * seed for rate in bandits.RATES}
        for i, arm in enumerate(bandits.ALLOTTED)
    }
    gained = {}
    for G in bandits.CLIMBED:
        scores = dataclasses.replace(gradients.ARMS["z-score"], group_size=G)
        gained[str(G)] = bandits.slope(scores, bandits.PLACES).tolist()
    return {"gained": gained, "optima": ends, "taught": taught}


def records(seeds):
    made = {"gradients": pool, "bandits": table}
    return {
        miniature.place("theory", part, seed): {"seconds": 60.0, "code": "c"}
        | make(seed)
        for seed in range(seeds)
        for part, make in made.items()
    }


@pytest.mark.parametrize("seeds", [1, 3])
def test_it_is_drawn_with_its_numbers(seeds, tmp_path, capsys):
    theory.report(records(seeds), seeds, tmp_path)
    found = json.loads((tmp_path / "theory.json").read_text())
    assert (tmp_path / "theory.png").stat().st_size > 50_000
    noise = found["1. noise, at equal samples"]
    assert math.isclose(noise["law"]["best"], 7.0, abs_tol=1e-4)
    assert noise["wrong_over_right"] == 2.5
    at_2 = noise["leave-one-out"]
    assert math.isclose(at_2["ratio"][0], 2 * 145 / 128, abs_tol=1e-4)
    assert math.isclose(at_2["cosine"][0], (1 + 2 * 145 / 128) ** -0.5, abs_tol=1e-4)
    assert at_2["turned"] == [1.0] * 6
    assert (found["2. how z-scores weigh questions"]["half"] is None) == (seeds == 1)
    for size in map(str, bandits.CLIMBED):  # what is enumerated is what was gained
        climbed = found["4. what z-scores climb"][size]
        np.testing.assert_allclose(climbed["found"], climbed["climbed"], atol=1e-5)
    by_rule = found["6. samples by rule, at equal samples"]
    np.testing.assert_allclose(by_rule["by the truth"]["more"], 2.0)
    tests = 2 * len(bandits.RATES) if seeds > 1 else 0
    assert len(by_rule["Holm's p"]) == tests  # one correction for all
    said = capsys.readouterr().out
    assert "least at G = 8 (law: 7.0)" in said and "gain +1.0 to +1.0 points" in said


def test_bins_hold_questions_of_their_p_and_are_compared_with_the_slope():
    """All weigh 2, and 2 over c(p) is what is found over what is enumerated."""
    middle, (found, _) = theory.slopes([pool(0)])
    right = np.array(RIGHT) / 64
    there = np.isin(np.arange(8), np.minimum((right * 8).astype(int), 7))
    np.testing.assert_allclose(found[:-1][there], 2.0)
    # 0 and 3 of 64 are in the first eighth, 61 and 64 in the last
    np.testing.assert_allclose(middle[[0, -1]], [1.5 / 64, 62.5 / 64])
    assert np.isnan(found[:-1][~there]).all()
    chosen = gradients.ARMS["z-score"]
    c = bandits.slope(chosen, np.clip(right, 1e-6, 1 - 1e-6))
    expected = 2 * (1 + right).sum() / (c * (1 + right)).sum()
    np.testing.assert_allclose(found[-1], expected, rtol=1e-5)


def test_questions_that_differ_have_fewer_mixed_groups():
    p, size = np.array([0.1, 0.9]), np.array([2.0, 3.0, 8.0])
    np.testing.assert_allclose(theory.alike(0.1, size[:2]), [0.18, 0.27])
    assert (theory.alike(0.1, size) < theory.alike(p.mean(), size)).all()


def test_allotment_spares_what_it_says():
    """Two questions, 16 samples: at p = 1/2 it gets 12, at 1/50 4 (the square roots are
    .5 and .14, so n − 1 as 10.9 and 3.1: 14 samples beyond the first of each). What is
    left is (.25 · 7/11 + .0196 · 7/3) / .2696."""
    p = np.array([0.5, 0.02])
    v = p * (1 - p)
    assert theory.allocation.allot(v, 16, 2, 32).tolist() == [12, 4]
    assert theory.saved(p, v) == pytest.approx(1 - 0.759724, abs=1e-5)
    assert theory.saved(np.full(4, 0.3), np.ones(4)) == pytest.approx(0)


def test_of_an_arcsine_spread_no_more_than_a_fifth_is_spared():
    """1 − (E √v)² / E v = 1 − (1/π)² · 8, of shares that need not be whole."""
    v = bandits.BEGUN * (1 - bandits.BEGUN)
    bound = 1 - np.sqrt(v).mean() ** 2 / v.mean()
    np.testing.assert_allclose(bound, 1 - 8 / np.pi**2, atol=1e-3)
    assert 0.1 < theory.saved(bandits.BEGUN, v) < bound
