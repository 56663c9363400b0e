"""The settings of data: what is asked, and how a question is put."""

import dataclasses
from typing import Any, ClassVar, Literal

from grpo_jax.section import Section

STEPWISE = {"chains", "series"}  # of each step it is known whether it is right
GENERATED = STEPWISE | {"sums"}
KNOWN = {"gsm8k", "math", "svamp", "mgsm", "mgsm-zh", "cmath", "humaneval", "hh-rlhf"}
FILES = (".jsonl", ".parquet")
PROMPTS = "instruction", "wrapping", "shots"  # how a question is put
Instruction = Literal[
    "none", "steps", "steps-zh", "program", "program-zh", "function", "hashes"
]
Wrapping = Literal["raw", "paper", "chat"]


@dataclasses.dataclass(frozen=True)
class Data(Section):
    """What is asked. A set's own split is used, less what is held out of it."""

    path: ClassVar[str] = "data"
    # sums, chains and series are generated; gsm8k, math, svamp, mgsm, mgsm-zh, cmath,
    # humaneval and hh-rlhf are known by name; or it is a .jsonl or .parquet file, also
    # one in the folder that the variable GRPO_JAX_DATA names, or a hub id.
    name: str = "sums"
    subset: str | None = None  # its configuration, where a set of the hub has several
    split: str = "train"  # that is trained on
    test: str | None = None  # the split that evaluation asks; None: what is held out
    held_out: float = 0.1  # share of the questions kept for that, by their text alone
    question: str = "question"  # columns of a file, or of a set of the hub ...
    answer: str = "answer"  # ... what a checker compares with
    demonstration: str | None = None  # ... how it may be answered, for sft
    count: int = 2000  # generated problems
    size: int = 2  # of them: digits of a sum's numbers, steps of a chain or series
    least: int | None = None  # as many of each size from here on; None: all are of size
    # share of their demonstrations that end in a wrong answer; of series: of all
    # carries, so many are forgotten
    wrong: float = 0.0
    instruction: Instruction = "none"  # what is said behind a question
    wrapping: Wrapping = "raw"  # what is written around both
    shots: int = 0  # solved examples before each question, the first of the split
    read_by: ClassVar = {
        "count": ("name", GENERATED),
        "size": ("name", GENERATED),
        "least": ("name", GENERATED),
        "wrong": ("name", GENERATED),
    }

    @property
    def sizes(self) -> range:
        """Of generated problems; number i has that at i, around and around."""
        return range(self.least or self.size, self.size + 1)

    def check(self):
        self.need_positive("count", "size", "least")
        rule = f"it is above {self.dotted('size')}, {self.size}"
        holds = self.least is None or self.least <= self.size
        self.need("least", holds, rule, "Lower it.")
        for name in ("held_out", "wrong"):
            inside = 0 <= getattr(self, name) <= 1
            self.need(name, inside, "it is a share in [0, 1]", self._default(name))
        some = self.held_out < 1
        self.need("held_out", some, "nothing would be left", "Make it smaller.")
        rule = "the number of examples is not negative"
        self.need("shots", self.shots >= 0, rule, "0: none.")
        reason = f"{self.dotted('name')} is {self.name!r}, which has no splits"
        has_splits = self.name not in GENERATED and not self.name.endswith(FILES)
        for name in ("split", "test"):
            self.need_read(name, has_splits, reason, "a set that has some")
        reason = f"{self.dotted('test')} names a split for what it would be kept for"
        self.need_read("held_out", self.test is None, reason, "no such split")
        reason = f"{self.dotted('name')} is {self.name!r}, whose columns are known"
        has_columns = self.name not in GENERATED | KNOWN
        for name in ("question", "answer", "demonstration"):
            self.need_read(name, has_columns, reason, "a file or a set of the hub")
        reason = f"{self.dotted('name')} is {self.name!r}, no other set of the hub"
        is_of_hub = has_columns and not self.name.endswith(FILES)
        self.need_read("subset", is_of_hub, reason, "one")


def generated(name: str) -> dict[str, Any] | None:
    """What a name says of generated problems, with their size or sizes: series,
    series-5, series-3-4; None: it is another."""
    base, *sizes = name.split("-")
    if base not in GENERATED or len(sizes) > 2 or not all(map(str.isdecimal, sizes)):
        return None
    numbers = dict(zip(("size", "least"), map(int, reversed(sizes)), strict=False))
    return {"name": base} | numbers


def asked(name: str, split: str | None = None, **prompts: Any) -> Data:
    """A set of which nothing was trained on: of generated problems what a run on them
    would hold out."""
    if split is None and (known := generated(name)):
        return Data(**known, **prompts)
    if split is None and name.endswith(FILES):
        return Data(name=name, held_out=0.0, **prompts)
    split = split or "test"
    first = "train" if prompts.get("shots") else split  # examples are of `train`
    return Data(name=name, split=first, test=split, **prompts)
