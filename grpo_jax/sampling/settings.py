"""The settings of sampling: which tokens may be drawn, how many, and in what shapes."""

import dataclasses
from typing import ClassVar

from grpo_jax.models.settings import DType
from grpo_jax.section import Section


@dataclasses.dataclass(frozen=True)
class Sampling(Section):
    """How completions are drawn.

    The transformations apply in this order: temperature, top-k, top-p, min-p.
    """

    path: ClassVar[str] = "sampling"
    temperature: float = 0.7  # logits are divided by it; 0: the likeliest token
    top_k: int | None = None  # only the k likeliest; None: all
    top_p: float | None = None  # the fewest likeliest whose shares reach p; None: all
    min_p: float | None = None  # those with at least this share of the likeliest's
    max_new: int = 256  # tokens of a completion
    min_new: int = 0  # a completion does not end before that many
    max_prompt: int | None = None  # all questions are padded to it; None: to a bucket
    stop_strings: tuple[str, ...] = ()  # each ends a completion, as a stop id does
    rows: int | None = None  # decoded at once; None: all of them
    segment: int = 8  # tokens drawn between two looks of the host
    rungs: int = 8  # sizes that a batch may shrink to as rows end; each is compiled
    cache: DType = "float32"  # of keys and values

    def check(self):
        holds = self.temperature == 0 or self.temperature >= 1e-4
        rule = "a temperature is 0 (greedy), or 1e-4 and more"
        self.need("temperature", holds, rule, self._default("temperature"))
        self.need_positive("top_k", "max_new", "max_prompt", "rows", "segment", "rungs")
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            rule = "it is a share in (0, 1]"
            self.need(name, share is None or 0 < share <= 1, rule, "None: all tokens.")
        for name in ("top_k", "top_p", "min_p"):
            reason = "at temperature 0 nothing is drawn"
            self.need_read(name, self.temperature > 0, reason, "T > 0")
        within = 0 <= self.min_new <= self.max_new
        rule = f"it must lie in [0, {self.dotted('max_new')}], {self.max_new}"
        self.need("min_new", within, rule, "0: a stop may come at once.")
        rule = "an empty string would end every completion at once"
        self.need("stop_strings", all(self.stop_strings), rule, "Remove it.")
