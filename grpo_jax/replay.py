"""What a reward model learns from between rounds: what is new, and some of the old.

    rows of rounds before ──► history ──► some of it ─┐
    rows of this round ────► all that is different ───┴─► mix

A row is a question with the different answers that it was given in one round, and which
of them are right. The file of rows is only ever added to. What the policy says again is
new, and no history. The paper takes 10% of historical data, which may be read in two
ways: a tenth of the mix is old (`mix`), or a tenth of what is old is in it (`history`).
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from grpo_jax.training import Iterative

Judged = dict[str, Any]  # question, completion, is_correct: as files of data have it


def mix(
    chosen: Iterative, seed: int, rows: Sequence[dict[str, Any]], round_: int
) -> list[Judged]:
    """Of one round; a function of what is given, and of no order but that of the file.

    Rows of later rounds are not looked at.
    """
    fresh = _different([row for row in rows if row["round"] == round_])
    history = _different([row for row in rows if row["round"] < round_])
    old = [x for key, x in history.items() if key not in fresh]
    share, count = chosen.replay, len(fresh)
    wanted = len(history) if chosen.replay_of == "history" else count / (1 - share)
    old.sort(key=lambda one: _drawn(seed, round_, one))
    return [*fresh.values(), *old[: round(share * wanted)]]


def _different(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], Judged]:
    """By question and completion; of equal ones the first."""
    found: dict[tuple[str, str], Judged] = {}
    for row in rows:
        pairs = zip(row["completions"], row["is_correct"], strict=True)
        for text, is_correct in pairs:
            one = {"question": row["question"], "completion": text}
            key = row["question"], text
            found.setdefault(key, one | {"is_correct": is_correct})
    return found


def _drawn(seed: int, round_: int, one: Judged) -> str:
    """Where it stands in an order that is as good as random."""
    told = json.dumps([seed, round_, one["question"], one["completion"]])
    return hashlib.sha256(told.encode()).hexdigest()
