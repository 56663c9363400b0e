"""What does comparing within a group do to the gradient? Derived first, then measured.

    python -m grpo_jax reproduce theory

p is the chance that a question is answered rightly, J its mean over questions, G the
size of a group, N = 128 the samples of a step. gradients.py measures the start of
miniature.py, 256 questions and 64 samples of each a seed; bandits.py a table.

What theory says:

1. Noise. Leave-one-out averages (r_i − r_j)(∇log π_i − ∇log π_j)/2 over the pairs of a
group, without bias. So (Hoeffding 1948) a step's gradient has the variance
(σ² + (2ζ − σ²)/(G−1) + τ² G) / N: σ² of one sample, were p known, ζ of one pair, and τ²
of ∇p between questions. Large groups compare well, and hear of few questions: least is
at G = 1 + √((2ζ − σ²)/τ²). Leaving out the std alone (Dr. GRPO) is the same, but for
its length. Over the std there is no such formula, but at G = 2, where it is the same.
The noise is held against the squared mean, of which the cosine with it follows.

2. Bias. E g = c(p) ∇p: c is 1 of leave-one-out, 1 − 1/G without std, and over the std
E √(k/G (1 − k/G)) / (p (1 − p)), k binomial. That is 1 at G = 2, √(G−1) where p → 0 or
1, and goes to 1/√(p (1 − p)): what is hard or easy counts more, if groups are large.

3. Signal. 1 − p^G − (1−p)^G of the groups are mixed. It is concave in p: questions that
differ have fewer than questions that are alike, at the same J.

4. So what is climbed is ∫ c dp: p at G = 2, and 2 arcsin √p if groups are large.

5. With β KL(π_ref ‖ π) there is an optimum below 1, and runs end there.

6. Samples by n − 1 ∝ √(p (1 − p)) give a batch's σ²-part the least variance: less by
1 − (E √v)² / E v, v = p (1 − p), a fifth if p is spread as Beta(1/2, 1/2). The expected
gradient stays as it is. So nothing is gained to first order in the learning rate, and
to second order there may be a gain or a loss: noise helps where p < 1/2.

What came out (2026-11-30; eight seeds, 2,048 questions of the start; 15 minutes on two
cores; ± are 95%, jackknifed over seeds):

1. The law holds (σ² is 268, ζ 317, τ² 67 times ‖∇J‖²). At N = 128 noise is least near
G = 3.3, of those tried at 4: 5.1 ± 1.5 times the squared mean, a cosine of 0.40. At
G = 2 it is 1.1 times that, at 8 1.3, at 64 6.9: few questions cost far more than good
baselines gain. Z-scores, leave-one-out and the 1/|o| of the paper differ by a twentieth
at most. At G = 2 no baseline at all is better (3.4): one other sample is a poor one.
2. Over all questions c of z-scores is 1.006 ± 0.004 times the enumerated (that p is
estimated may explain half of that). From p = 1/2 to the ends it rises from 1.9 to 2.5.
3. Of groups of 8 79% are mixed, of 64 93%; if questions were alike, 99 and 100% would.
4. The table's sums are within their intervals at all 60 points.
5. Runs end within 0.002 of the optimum. Ten of twelve intervals hold it; of the other
two, both without the std, it is outside by 0.0002 at most.
6. Nothing is gained: -0.4 to 0.0 points, of ten comparisons none with p < .3 by Holm.
On the start the rule would not even lower the noise (by -2 ± 2%, where the spread of p
alone promises 11): there a question's variance is not as p (1 − p), for gradients of
wrong samples have 2.9 times the squared length of right ones.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from grpo_jax import allocation, contrast, experiment, figures, sweep

HERE = pathlib.Path(__file__)
gradients = experiment.load(str(HERE.with_name("gradients.py")))
bandits = experiment.load(str(HERE.with_name("bandits.py")))
miniature = gradients.miniature
get_config = gradients.get_config

NAME, SEEDS = "theory", 8
UNBIASED, SHOWN, N = gradients.UNBIASED, gradients.SHOWN, gradients.N
Estimate, Found, jackknifed = gradients.Estimate, gradients.Found, gradients.jackknifed
SMALL = {
    "gradients": {"algorithm.group_size": 16, "training.batch_size": 4},
    "bandits": {"training.steps": 8},
}
BINS = np.linspace(0, 1, 9)  # of p


def get_points(seeds: int, smoke: bool) -> dict[str, sweep.Point]:
    return {
        miniature.place(NAME, part, seed): sweep.Point(
            "train",
            str(miniature.HERE / f"{part}.py"),
            {"seed": seed} | (small if smoke else {}),
        )
        for seed in range(seeds)
        for part, small in SMALL.items()
    }


def keep(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / gradients.FOUND).read_text())


def rates(pools: Sequence[Found]) -> Float[np.ndarray, "S Q"]:
    """How often each question was answered rightly."""
    return np.array([pool["right"] for pool in pools]) / pools[0]["samples"]


def slopes(pools: Sequence[Found]) -> tuple[Float[np.ndarray, "bins"], Estimate]:
    """The mean p of each bin, and c of z-scores measured there, in groups of SHOWN. The
    last number is the ratio of the sum of all that was measured to the sum of what
    enumeration expects. What is measured is the product of a group's gradient with
    those of other groups of the same question, whose advantages are leave-one-out."""
    p, shown = rates(pools), [pool["shown"] for pool in pools]
    scaled, plain = (
        np.array([one[name] for one in shown]) for name in ("z-score", UNBIASED)
    )
    chosen = dataclasses.replace(gradients.ARMS["z-score"], group_size=SHOWN)
    inside = np.clip(p, 1e-6, 1 - 1e-6)  # where all agree there is nothing to weigh
    expected = bandits.slope(chosen, inside.ravel()).reshape(p.shape) * plain
    at = np.digitize(p, BINS[1:-1])

    def ratio(a, b):
        totals = [np.bincount(at.ravel(), x.ravel(), len(BINS) - 1) for x in (a, b)]
        with np.errstate(invalid="ignore"):  # a bin may be empty
            return totals[0] / totals[1]

    def of(some: Sequence[int]) -> Float[np.ndarray, "bins_and_one"]:
        among = np.isin(np.arange(len(p)), some)[:, None]
        whole = scaled[some].sum() / expected[some].sum()
        return np.append(ratio(scaled * among, plain * among), whole)

    return ratio(p, np.ones(p.shape)), jackknifed(of, len(pools))


def mixed(pools: Sequence[Found]) -> Estimate:
    """The share of groups with a spread, by their size."""
    found = np.array([list(pool["mixed"].values()) for pool in pools])
    return jackknifed(lambda some: found[some].mean(0), len(pools))


def alike(p: float, size: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """That share, if all questions had this p."""
    return 1 - p**size - (1 - p) ** size


def saved(
    p: Float[np.ndarray, "Q"], variance: Float[np.ndarray, "Q"]
) -> Float[np.ndarray, ""]:
    """By how much allotment by p (1 − p) lowers the part of a batch's variance that
    stems from sampling, given each question's share of it in groups of MEAN."""
    mean = bandits.MEAN
    n = allocation.allot(p * (1 - p), mean * len(p), bandits.LEAST, bandits.MOST)
    return 1 - (variance * (mean - 1) / (n - 1)).sum() / variance.sum()


def spared(pools: Sequence[Found]) -> dict[str, Any]:
    """Of statement 6: if p (1 − p) is a question's variance; and as it was measured."""
    p, begun = rates(pools), bandits.BEGUN
    square, same = (
        np.array([pool["shown"][key] for pool in pools]) for key in ("square", UNBIASED)
    )
    measured = jackknifed(
        lambda some: np.mean([saved(p[s], (square - same)[s]) for s in some]),
        len(pools),
    )
    ruled = np.mean([saved(one, one * (1 - one)) for one in p])
    return {
        "Beta(1/2, 1/2)": saved(begun, begun * (1 - begun)),
        "the start, if p (1 − p)": ruled,
        "the start, measured": measured._asdict(),
    }


def report(records: Mapping[str, Any], seeds: int, out: pathlib.Path):
    pools, tables = (
        [records[miniature.place(NAME, part, seed)] for seed in range(seeds)]
        for part in SMALL
    )
    figure = Figure(figsize=(13, 8), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    numbers = {"seeds": seeds, "questions": rates(pools).size}
    numbers |= {"samples": pools[0]["samples"], "right": rates(pools).mean()}
    for axes, (title, draw) in zip(panels, PANELS.items(), strict=True):
        axes.set_title(title)
        numbers[title] = draw(axes, pools if draw in OF_POOLS else tables)
    numbers["less variance by rule"] = spared(pools)
    figures.write(NAME, figure, numbers, told(numbers), records, out)


def marked(axes: Axes, x, found: Estimate, label: str, look: dict, **more: Any):
    style = {"marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.3}
    axes.errorbar(x, found.value, found.half, label=label, **style | look | more)


def draw_noise(axes: Axes, pools: Sequence[Found]) -> dict[str, Any]:
    G, law, numbers = gradients.sizes(pools), gradients.Law.of(pools), {}
    fine = np.geomspace(2, G[-1], 100)
    label = "law of leave-one-out"
    axes.plot(fine, law.noise(fine), color="0.75", linewidth=5, label=label)
    for look, (arm, marker) in zip(figures.LOOKS, MARKERS.items(), strict=False):
        found = gradients.noise(pools, arm)
        halves = [None] * 3 if found.half is None else found.half
        ratio, *_ = map(Estimate, found.value, halves)
        marked(axes, G, ratio, arm, look, marker=marker, markerfacecolor="none")
        told = dict(zip(("ratio", "cosine", "turned"), found.value, strict=True))
        numbers[arm] = told | {"half": dict(zip(told, halves, strict=True))}
    powers(axes, G)
    # Of few questions the squared mean may come out below 0, which no log can show.
    shown = any((numbers[arm]["ratio"] > 0).any() for arm in MARKERS)
    axes.set(xlabel="group size G", yscale="log" if shown else "linear")
    axes.set_ylabel(f"variance over ‖mean‖², steps of {N} samples")
    plain(axes.yaxis, [1, 2, 3, 5, 10, 20])
    over = axes.secondary_yaxis("right", functions=(to_cosine, from_cosine))
    over.set_ylabel("cosine of a step with the mean, 1/√(1 + that)")
    plain(over.yaxis, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    axes.legend(fontsize="small")
    right, wrong = (
        np.mean([pool["norms"][key] for pool in pools]) for key in ("right", "wrong")
    )
    numbers |= {"G": G, "law": law._asdict() | {"best": law.best}}
    return numbers | {"wrong_over_right": wrong / right}  # E‖s‖² of samples


def to_cosine(ratio: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return (1 + np.maximum(ratio, 0)) ** -0.5


def from_cosine(cosine: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return np.clip(cosine, 1e-3, 1) ** -2 - 1


def powers(axes: Axes, size: Int[np.ndarray, "K"]):
    """An axis of group sizes."""
    axes.set_xscale("log", base=2)
    plain(axes.xaxis, size.tolist())


def plain(axis: Axis, ticks: Sequence[float]):
    """With these ticks alone, written as numbers."""
    axis.set_ticks(ticks, [f"{x:g}" for x in ticks])
    axis.set_ticks([], minor=True)


def draw_slopes(axes: Axes, pools: Sequence[Found]) -> dict[str, Any]:
    p = np.linspace(0.004, 0.996, 249)
    for look, size in zip(figures.LOOKS[1:], (2, 8, 64), strict=False):
        chosen = dataclasses.replace(gradients.ARMS["z-score"], group_size=size)
        label = f"G = {size}" + ", and leave-one-out" * (size == 2)
        axes.plot(p, bandits.slope(chosen, p), label=label, **look)
    axes.plot(p, (p * (1 - p)) ** -0.5, label="1/√(p(1−p))", **figures.LOOKS[0])
    middle, found = slopes(pools)
    halves = None if found.half is None else found.half[:-1]
    of_bins = Estimate(found.value[:-1], halves)
    label = f"the start, G = {SHOWN}"
    marked(axes, middle, of_bins, label, figures.LOOKS[2], linestyle="none")
    axes.set(xlabel="p, the chance to be right", ylabel="c of E g = c ∇p, z-scores")
    axes.set(yscale="log", ylim=(0.8, 12))
    plain(axes.yaxis, [1, 2, 5, 10])
    axes.legend(fontsize="small", loc="upper center")
    return {"p": middle, "c": found.value[:-1], "over_expected": found.value[-1]} | {
        "half": found.half
    }


def draw_mixed(axes: Axes, pools: Sequence[Found]) -> dict[str, Any]:
    G, found, p = gradients.sizes(pools), mixed(pools), rates(pools)
    fine = np.geomspace(2, G[-1], 100)
    for look, one in zip(figures.LOOKS[1:], (p.mean(), 0.1, 0.02), strict=False):
        label = f"all have p = {one:.2f}" + " = J" * bool(one == p.mean())
        axes.plot(fine, 100 * alike(one, fine), label=label, **look)
    half = None if found.half is None else 100 * found.half
    scaled = Estimate(100 * found.value, half)
    marked(axes, G, scaled, "the start", figures.LOOKS[0])
    powers(axes, G)
    axes.set(xlabel="group size G", ylabel="groups that are mixed, %", ylim=(0, 101))
    axes.legend(fontsize="small")
    quantiles = np.quantile(p, np.linspace(0, 1, 11))
    told = {"share": found.value, "half": found.half, "alike": alike(p.mean(), G)}
    return {"G": G, "quantiles_of_p": quantiles} | told


def draw_climbed(axes: Axes, tables: Sequence[Mapping]) -> dict[str, Any]:
    """∫ c dp, enumerated, and summed up from what a table gained."""
    fine = (np.arange(2000) + 0.5) / 2000
    edge, numbers = bandits.PLACES + bandits.PLACES[0], {}
    axes.plot(fine, 2 * np.arcsin(fine**0.5), label="2 arcsin √p", **figures.LOOKS[0])
    kinds = zip(figures.LOOKS[1:], SHAPES, bandits.CLIMBED, strict=False)
    for look, shape, size in kinds:
        chosen = dataclasses.replace(gradients.ARMS["z-score"], group_size=size)
        climbed = np.cumsum(bandits.slope(chosen, fine)) / len(fine)
        axes.plot(fine, climbed, label=f"∫ c dp, G = {size}", **look)
        gained = np.array([one["gained"][str(size)] for one in tables])
        found = jackknifed(
            lambda some, x=gained: np.cumsum(x[some].mean(0)) / len(edge), len(tables)
        )
        label = f"a table, G = {size}"
        marked(axes, edge, found, label, look, linestyle="none", marker=shape)
        # What a table was asked at, summed up as it is: no error of the sum's is left.
        there = np.cumsum(bandits.slope(chosen, bandits.PLACES)) / len(edge)
        numbers[size] = {"climbed": there, "found": found.value, "half": found.half}
    axes.set(xlabel="p, the chance to be right", ylabel="what is climbed")
    axes.legend(fontsize="small")
    return {"p": edge} | numbers


def draw_optima(axes: Axes, tables: Sequence[Mapping]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    kinds = zip(figures.LOOKS, SHAPES, bandits.OPTIMA, strict=False)
    for look, shape, arm in kinds:
        betas = list(tables[0]["optima"][arm])
        best, right = (
            np.array([[one["optima"][arm][b][key] for b in betas] for one in tables])
            for key in ("best", "right")
        )
        axes.plot(list(map(float, betas)), best[0], label=f"optimum, {arm}", **look)
        found = jackknifed(lambda some, x=right: x[some].mean(0), len(tables))
        x = list(map(float, betas))
        label = f"runs, {arm}"
        marked(axes, x, found, label, look, linestyle="none", marker=shape)
        numbers[arm] = {"beta": x, "best": best[0], "right": found.value} | {
            "half": found.half
        }
    axes.set(xscale="log", xlabel="β", ylabel="π(right)")
    plain(axes.xaxis, x)
    axes.legend(fontsize="small")
    return numbers


def draw_taught(axes: Axes, tables: Sequence[Mapping]) -> dict[str, Any]:
    """Differences of the same seeds."""
    equal, *others = bandits.ALLOTTED
    of_rate = list(tables[0]["taught"][equal])
    right = {
        arm: 100
        * np.array([[one["taught"][arm][r] for r in of_rate] for one in tables])
        for arm in bandits.ALLOTTED
    }
    x = np.array(of_rate, float)
    axes.axhline(0, color="0.6", linewidth=1)
    numbers: dict[str, Any] = {"rate": x, equal: right[equal].mean(0)}
    p: dict[str, float] = {}
    for i, (look, arm) in enumerate(zip(figures.LOOKS, others, strict=False)):
        gained = right[arm] - right[equal]
        half = None
        if len(tables) > 1:
            pairs = zip(right[arm].T, right[equal].T, strict=True)
            found = [contrast.paired(*pair) for pair in pairs]
            half = np.array([one.high - one.mean for one in found])
            p |= {f"{arm}, {r}": x.p for r, x in zip(of_rate, found, strict=True)}
        one = Estimate(gained.mean(0), half)
        marked(axes, x * 1.05**i, one, arm, look, marker=SHAPES[i])
        numbers[arm] = {"more": one.value, "half": half}
    axes.set(xscale="log", xlabel="learning rate of a question's logits")
    plain(axes.xaxis, x)
    axes.set_ylabel(f"π(right) − that of {equal}, points")
    axes.legend(fontsize="small")
    return numbers | {"Holm's p": contrast.holm(p)}  # over all that are shown


# "no std" stands on leave-one-out, and the paper's 1/|o| beside it.
MARKERS = {"z-score": "o", UNBIASED: "s", "no std": "x", "no baseline": "^"}
MARKERS |= {"z-score, 1/|o|": "v"}
SHAPES = "o", "s", "^"
OF_POOLS = draw_noise, draw_slopes, draw_mixed
PANELS = {
    "1. noise, at equal samples": draw_noise,
    "2. how z-scores weigh questions": draw_slopes,
    "3. groups with a signal": draw_mixed,
    "4. what z-scores climb": draw_climbed,
    "5. the optimum of a bandit": draw_optima,
    "6. samples by rule, at equal samples": draw_taught,
}


def told(numbers: Mapping[str, Any]) -> str:
    """What came out, in a line; each behind what was said of it."""
    noise, bias, signal, _, ends, rule = (numbers[title] for title in PANELS)
    ratio = noise[UNBIASED]["ratio"]
    least = int(np.argmin(ratio))
    gap = max(abs(one["right"] - one["best"]).max() for one in ends.values())
    more = rule["by what was seen"]["more"]
    return (
        f"noise is least at G = {noise['G'][least]} (law: {noise['law']['best']:.1f}), "
        f"at {noise['G'][-1]} it is {ratio[-1] / ratio[least]:.1f} times that; c of "
        f"z-scores is {bias['over_expected']:.2f} times the enumerated one; of groups "
        f"of {signal['G'][-1]} {signal['share'][-1]:.0%} are mixed; runs end within "
        f"{gap:.3f} of the optimum; samples by rule gain {min(more):+.1f} to "
        f"{max(more):+.1f} points"
    )
