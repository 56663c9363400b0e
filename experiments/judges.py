"""How well do reward models of steps and of outcomes tell right from wrong?

    python -m grpo_jax train experiments/judges.py

A byte-level transformer of 0.5M parameters learns from demonstrations to answer the
chains of process.py, `15 + 4 = 19` and `#### 19`; half of the chains that it then
judges are wrong from some line on. One reward model is told of each line whether it is
right, the other of each answer. Both begin with what the demonstrations taught, and are
asked about questions that neither saw. A table and figures/judges.png say how well they
tell: accuracy, ROC AUC and calibration error, with 95% intervals by questions; and how
many of what they judge are good, which is how often one is right who says so of all.

Measured on two answers to each of 142 held-out questions, one with all lines right and
one with none, seed 0 (2026-11-30, 20 minutes on two CPU cores that other work shared),
after 1,500 updates:

    reward model   told rightly          ROC AUC               calibration error
    of steps       0.715 (0.656-0.767)   0.741 (0.674-0.798)   0.277 (0.227-0.334)
    of outcomes    0.718 (0.633-0.791)   0.790 (0.701-0.858)   0.274 (0.205-0.355)

There are no more than 1,368 chains of one move, and both know those that they learned
from by heart: held out, they tell no better from update 750 on and are ever more sure,
so that the calibration error rises from 0.10 and 0.13 at its least. The best of it is
early; longer chains, of which there are more, are not tried.
"""

import dataclasses
import pathlib
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from grpo_jax import config, experiment, iterative, plots, workdir

process_py = experiment.load(str(pathlib.Path(__file__).with_name("process.py")))

Rows = list[dict[str, Any]]
KINDS = {"steps": "of steps", "correct": "of outcomes"}
SHOWN = {
    "accuracy": "told rightly",
    "auc": "ROC AUC",
    "calibration_error": "calibration error",
}


def get_config() -> config.Config:
    base = process_py.get_config()
    return config.Config(
        stages=("reward",),
        model=base.model,
        data=config.Data(name="chains", count=20_000, size=1),
        reward=config.Reward(steps=1500, batch_size=64, learning_rate=1e-3),
        optimizer=config.Optimizer(
            schedule="cosine", final_rate=0.1, warmup=20, b2=0.95
        ),
        evaluation=config.Evaluation(every=250, questions=400),
        keep=config.Keep(every=250),
    )


def run(settings: config.Config, folder: pathlib.Path):
    """Makes both reward models, or goes on with them."""
    model = settings.model
    if model.name == "tiny":
        begun = start(settings)
        iterative.train(begun, folder / "start")
        model = iterative.of_run(model, (folder / "start").resolve())
    judges = {}
    for kind, name in KINDS.items():
        chosen = experiment.changed(settings, {"reward.labels": kind})
        judges[name] = folder / kind, dataclasses.replace(chosen, model=model)
    compare(judges, folder)


def compare(
    judges: dict[str, tuple[pathlib.Path, config.Config]], folder: pathlib.Path
):
    """Makes each in its place, or goes on with it; then the table and the figure."""
    found = {}
    for name, (place, chosen) in judges.items():
        iterative.train(chosen, place)
        found[name] = list(workdir.rows(place / workdir.METRICS))
    Console().print(table(found))
    print(f"figure: {draw(found, folder / 'figures' / 'judges.png')}")


def start(settings: config.Config) -> config.Config:
    """What is learned of demonstrations, which are right."""
    base = process_py.get_config()
    data = dataclasses.replace(base.data, wrong=config.Data().wrong)
    base = dataclasses.replace(base, seed=settings.seed, data=data)
    return iterative.of_start(dataclasses.replace(base, model=settings.model))


def table(found: dict[str, Rows]) -> Table:
    out = Table("reward model", *SHOWN.values(), "good")
    for name, rows in found.items():
        last = [row for row in rows if "eval/accuracy" in row][-1]
        cells = [
            "{:.3f} ({:.3f}-{:.3f})".format(
                *(last[f"eval/{key}{end}"] for end in ("", "_low", "_high"))
            )
            for key in SHOWN
        ]
        out.add_row(name, *cells, f"{last['eval/good']:.3f}")
    return out


def draw(found: dict[str, Rows], path: pathlib.Path) -> pathlib.Path:
    """By the updates made, with the intervals as bands."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, 3), SHOWN.items(), strict=True):
        for number, (name, rows) in enumerate(found.items()):
            look = {"color": f"C{number}", "linestyle": ("-", "--", ":")[number]}
            step, value = plots.series(rows, f"eval/{key}")
            low, high = (
                plots.series(rows, f"eval/{key}_{end}")[1] for end in ("low", "high")
            )
            axes.plot(step, value, marker="o", markersize=3, label=name, **look)
            axes.fill_between(step, low, high, color=f"C{number}", alpha=0.2)
        axes.set(xlabel="update", ylabel=label)
    handles = figure.axes[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return plots.written(figure, path)
