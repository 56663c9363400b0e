"""What a person sees of a run: progress, numbers, a few answers; or plain lines."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from grpo_jax.task import Task

SHOWN = 3  # answers
EVERY = 10.0  # seconds between lines, where there is no terminal
KEYS = {
    "nll": "nll",
    "margin": "margin",
    "reward_mean": "reward",
    "samples/right": "right",
    "eval/accuracy": "accuracy",
    "kl": "KL",
    "length_mean": "tokens",
    "time/rollout": "rollout s",
    "time/learn": "learn s",
    "time/step": "step s",
}


class Screen:
    """A progress bar on a terminal, and a line now and then elsewhere.

    If it is quiet, nothing but warnings and the result.
    """

    def __init__(self, *, is_quiet: bool = False):
        self.console, self.is_quiet = Console(highlight=False), is_quiet
        self.progress: Progress | None = None
        self.said = 0.0

    def begin(self, folder: pathlib.Path, task: Task, done: int, steps: int):
        if task.left_out:
            some = "; ".join(task.left_out[:3])
            self.tell(f"{len(task.left_out)} problems are left out: {some}")
        if self.is_quiet:
            return
        known = len(task.train), len(task.held_out)
        self.tell("{} problems to train on, {} held out".format(*known))
        self.tell(f"{folder}: step {done} of {steps}")
        if self.console.is_terminal:
            columns = "{task.description}", "{task.completed}/{task.total}"
            first, second = map(TextColumn, columns)
            text = TextColumn("{task.fields[numbers]}")
            bar = BarColumn(bar_width=None)
            self.progress = Progress(
                first, bar, second, TimeRemainingColumn(), text, console=self.console
            )
            self.bar = self.progress.add_task("", total=steps, numbers="")
            self.progress.update(self.bar, completed=done)
            self.progress.start()

    def tell(self, text: str):
        self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str):
        """Also where it is quiet."""
        text = f"warning: {text}"
        self.console.print(text, markup=False, soft_wrap=True, style="bold yellow")

    def show(self, row: dict[str, Any]):
        """A row of metrics."""
        if self.is_quiet:
            return
        shown = {k: row[k] for k in KEYS if isinstance(row.get(k), float)}
        numbers = "  ".join(f"{KEYS[k]} {x:.3g}" for k, x in shown.items())
        step, name = row["step"], row["stage"]
        has_examined = bool(_accuracy(row))
        if self.progress is not None:
            given = {"completed": step, "description": name, "numbers": numbers}
            self.progress.update(self.bar, **given)
        elif has_examined or time.monotonic() > self.said + EVERY:
            self.said = time.monotonic()
            self.tell(f"{name} {step}  {numbers}")
        if has_examined:
            self.tell(f"{name}, step {step}: {_accuracy(row)}")

    def answers(self, table: Sequence[dict[str, Any]]):
        """A few samples: green what was worth more than others, red what less.

        Where a reward model gives the reward, the most rewarded of those that are wrong
        comes first.
        """
        table = [] if self.is_quiet else table
        wrong = [row for row in table if row.get("right") is False]
        first = [row for row in wrong if row["reward"] is not None]
        first = sorted(first, key=lambda row: -row["reward"])[:1]
        others = table[:: max(1, len(table) // SHOWN)]
        others = [row for row in others if not any(row is one for one in first)]
        for row in [*first, *others][:SHOWN]:
            colour = "green" if row["advantage"] > 0 else "red"
            colour = "dim" if row["advantage"] == 0 else colour
            asked, said = map(_short, (row["question"], row["completion"]))
            right = row["answer"]
            known = "" if right is None else f"; right: {escape(right)}"
            self.console.print(
                f"  {escape(asked)} [{colour}]{escape(said)}[/] "
                f"({row['advantage']:+.2f}{_verdict(row)}{known})"
            )

    def end(
        self,
        rows: Sequence[dict[str, Any]],
        figure: pathlib.Path,
        folder: pathlib.Path | None,  # that `evaluate` can read
    ):
        examined = [row for row in rows if _accuracy(row)]
        self.close()
        ends = {row["stage"]: row["step"] for row in examined}
        shown = [*(row["step"] for row in examined[:1]), *ends.values()]
        for row in (row for row in examined if row["step"] in shown):
            self.tell(f"step {row['step']}: {_accuracy(row)}")
        self.tell(f"figure: {figure}")
        if folder is not None:
            self.tell(f"next: python -m grpo_jax evaluate {folder} --k 8")

    def close(self):
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def _accuracy(row: dict[str, Any]) -> str:
    """Of what was held out, with its interval, and of other sets; nothing, if neither
    was examined."""
    told = []
    if "eval/accuracy" in row:
        share, low, high = (row[f"eval/accuracy{x}"] for x in ("", "_low", "_high"))
        asked = "labels" if row["stage"] == "reward" else "questions"
        interval = f"(95%: {low:.1%} to {high:.1%})"
        told.append(f"{share:.1%} {interval} of held-out {asked} right")
    for key in row:
        name = key.removeprefix("eval/").removesuffix("/accuracy")
        if key == f"eval/{name}/accuracy":
            told.append(f"of {name} {row[key]:.1%}")
    return "; ".join(told)


def _verdict(row: dict[str, Any]) -> str:
    """What a reward model gave, and for what."""
    if row.get("reward") is None:
        return ""
    word = {True: "right", False: "WRONG", None: "unknown"}[row["right"]]
    return f"; {word}, rewarded with {row['reward']:.3g}"


def _short(text: str) -> str:
    """The end of it, on one line, without what would steer a terminal."""
    return " ".join(plain(text).split())[-60:]


def plain(text: str) -> str:
    """Without what would steer a terminal."""
    return "".join(x if x.isprintable() or x in "\n\t" else " " for x in text)
