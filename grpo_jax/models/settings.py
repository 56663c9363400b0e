"""The settings of a model: which one, in which precision, with which adapters."""

import dataclasses
import re
from typing import ClassVar, Literal

from grpo_jax.section import Section

DType = Literal["float32", "bfloat16", "float64"]


@dataclasses.dataclass(frozen=True)
class Numerics(Section):
    """In which precision a pass is computed, and what is kept for the backward pass."""

    path: ClassVar[str] = "model.numerics"
    compute: DType = "float32"  # of matrix products and of what flows between layers
    # Of float32 products on TPUs and GPUs: exact, three rounded passes, or one.
    products: Literal["highest", "high", "default"] = "highest"
    softmax: DType = "float32"  # of attention's logits and weights, at least this
    norm: DType = "float32"  # of RMS norms and rotary positions, at least this
    logits: DType = "float32"  # of the vocabulary and its log-softmax, at least this
    remat: Literal["none", "dots", "full"] = "dots"  # recomputed: all but products, all
    # Of whole rows: XLA's, or a fused kernel; splash is for TPUs, cudnn for GPUs.
    attention: Literal["xla", "splash", "cudnn"] = "xla"
    chunk: int = 512  # tokens whose logits exist at once; at least one a row

    def check(self):
        self.need_positive("chunk")
        kernels = {"splash": ("bfloat16", "float32"), "cudnn": ("bfloat16",)}
        dtypes = kernels.get(self.attention, (self.compute,))
        rule = f"its kernel does not compute in {self.compute}"
        remedy = f"Set {self.dotted('compute')} to {' or '.join(dtypes)}."
        self.need("attention", self.compute in dtypes, rule, remedy)
        enough = self.attention == "xla" or self.softmax != "float64"
        rule = f"its kernel's softmax is float32, not {self.softmax}"
        self.need("attention", enough, rule, "Leave it at 'xla'.")

    @property
    def has_float64(self) -> bool:
        return "float64" in vars(self).values()


@dataclasses.dataclass(frozen=True)
class Tiny(Section):
    """The size of the model `tiny`: made from scratch, over bytes."""

    path: ClassVar[str] = "model.tiny"
    layers: int = 4  # of attention and MLP
    width: int = 128  # of what flows between layers
    heads: int = 4  # of the queries
    kv_heads: int = 2  # of the keys and values
    ffw: int = 512  # inner width of the MLP
    max_length: int = 1024  # positions

    def check(self):
        self.need_positive("layers", "width", "heads", "kv_heads", "ffw", "max_length")
        divides = self.width % (2 * self.heads) == 0
        rule = f"heads are width/{self.heads} wide, an even number"
        self.need("width", divides, rule, "Make it a multiple of twice the heads.")
        shared = self.heads % self.kv_heads == 0
        rule = f"it must be a multiple of {self.dotted('kv_heads')}, {self.kv_heads}"
        self.need("heads", shared, rule, "Each key head serves as many query heads.")


@dataclasses.dataclass(frozen=True)
class Lora(Section):
    """Low-rank adapters: W + (alpha/rank) A B, where only A and B are trained."""

    path: ClassVar[str] = "model.lora"
    rank: int = 0  # 0: no adapters, all parameters are trained
    alpha: float = 16.0  # the adapters' weight is alpha / rank
    targets: str = r"^layers/w[qkvogud]$"  # a regular expression of parameter paths

    def check(self):
        self.need("rank", self.rank >= 0, "a rank is not negative", "0: no adapters.")
        self.need_positive("alpha")
        for name in ("alpha", "targets"):
            reason = f"{self.dotted('rank')} is 0: there are no adapters"
            self.need_read(name, self.rank > 0, reason, "a rank")
        try:
            re.compile(self.targets)
            message = ""
        except re.error as error:
            message = str(error)
        rule = f"it is no regular expression ({message})"
        self.need("targets", not message, rule, self._default("targets"))


@dataclasses.dataclass(frozen=True)
class Model(Section):
    """The policy that a run begins with."""

    path: ClassVar[str] = "model"
    name: str = "tiny"  # tiny, smollm2-135m, a folder, a .gguf file, or a hub id
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the stored parameters
    numerics: Numerics = Numerics()
    tiny: Tiny = Tiny()
    lora: Lora = Lora()

    def check(self):
        self.need("name", bool(self.name), "a model has a name", "Try tiny.")
        read = self.tiny == Tiny() or self.name == "tiny"
        rule = (
            f"only the model tiny reads {self.dotted('tiny')}, which is not its default"
        )
        self.need("name", read, rule, "Set it to tiny, or leave model.tiny alone.")
