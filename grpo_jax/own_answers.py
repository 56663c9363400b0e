"""Questions that a policy is asked once: for each a row of a file, once it is there.

Killed and started again, what is missing is asked, and the file comes out the same.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxtyping import Array, Key

from grpo_jax import asking, crossing, groups, stage, workdir
from grpo_jax.groups import Group
from grpo_jax.models import transformer
from grpo_jax.rewards import calls

Row = dict[str, Any]


class Inquiry(NamedTuple):
    """What a policy is asked, by whom, and what is kept of its answers."""

    run: stage.Run
    asker: asking.Asker
    key: Key[Array, ""]
    row: Callable[[Group], Row]
    seed: int  # of the order of questions
    # What is asked at once may change a draw's last bit: so it is the same each time.
    at_once: int


def begun(path: pathlib.Path) -> list[Row]:
    """What the file holds, as all processes have it."""
    return crossing.listed(list(workdir.rows(path)) if crossing.place()[0] == 0 else [])


def complete(
    path: pathlib.Path,
    inquiry: Inquiry,
    numbers: range,
    params: Callable[[], transformer.Params],
    meanwhile: Callable[[], None],
) -> list[Row]:
    """All rows of a file that has one for each question before the last of these.

    Asks those that are missing; the parameters are called for only then.
    """
    rows, is_first = begun(path), crossing.place()[0] == 0
    missing = numbers.stop - len(rows)
    if missing <= 0:
        return rows
    part = (len(rows) - numbers.start) % inquiry.at_once
    rows = rows[: len(rows) - part]
    if is_first:
        workdir.replace(path, "".join(map(workdir.line, rows)))
    for row in _asked(inquiry, params(), range(len(rows), numbers.stop)):
        rows.append(row)
        if is_first:
            workdir.append(path, row)
        if (len(rows) - numbers.start) % inquiry.at_once == 0:
            meanwhile()
    return rows


def _asked(
    inquiry: Inquiry, params: transformer.Params, numbers: range
) -> Iterator[Row]:
    """A row for each question. Processes share them."""
    run, asker, key, row, seed, at_once = inquiry
    process, processes = crossing.place()
    for start in range(0, len(numbers), at_once):
        some = numbers[start : start + at_once]
        own, found, faults = some[process::processes], [], []
        if own:
            problems = [run.task.problem(seed, i) for i in own]
            answered = asking.ask(asker, params, problems, own, key)
            found, faults = groups.of(answered), answered.graded.faults
        blank = sum(groups.unscored(run.settings, one) for one in found)
        said = crossing.listed([[list(map(row, found)), faults, blank]])
        by_process, faults, blank = zip(*said, strict=True)
        faults = list(itertools.chain(*faults))
        count, limits = len(some) * asker.sampler.group_size, run.settings.rewards
        made = count * asker.grader.calls
        first = (faults or [""])[0]
        calls.need_few(len(faults), made, first, limits.most_faults)
        calls.need_scored(sum(blank), count, limits.most_unscored)
        for i in range(len(some)):
            yield by_process[i % processes][i // processes]
