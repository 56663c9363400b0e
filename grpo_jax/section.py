"""A section of the settings: a frozen dataclass that refuses what it cannot mean.

Checked when it is made, so that nothing bad reaches a compiler: the type of every
value (experiment files are as strict as the command line), finite numbers, and that
the choices made in the section read the options that were set. An option which the
chosen method ignores is an error, not a silence.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal, get_args, get_origin

from beartype.door import is_bearable


class Refused(ValueError):
    """Something a person asked for that cannot be: a setting, a file, a shape."""


def need_shape(shape: tuple[int, ...], **arrays: Any):
    """Refuses arrays of another shape, which broadcasting might hide."""
    for name, x in arrays.items():
        if x.shape != shape:
            raise Refused(f"{name} has shape {x.shape}; it must be {shape}.")


def choose(choices: dict[str, Any], name: str, value: str) -> Any:
    """What a word stands for."""
    if value not in choices:
        raise Refused(f"{name} is {value!r}; it must be one of {', '.join(choices)}.")
    return choices[value]


@dataclasses.dataclass(frozen=True)
class Section:
    """`path` is the section's place in the tree, for the messages."""

    path: ClassVar[str] = ""
    # field → (a choice in the same section, the values of it that read the field)
    read_by: ClassVar[dict[str, tuple[str, set[str]]]] = {}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            self._check_type(field)
        for name, (choice, readers) in self.read_by.items():
            chosen = getattr(self, choice)
            reason = f"{self.dotted(choice)} {chosen!r} does not read it"
            self.need_read(
                name, chosen in readers, reason, " or ".join(sorted(map(str, readers)))
            )
        self.check()

    def check(self):
        """The rules of this section; each section that has any overrides it."""

    def dotted(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field

    def need(self, field: str, holds: bool, rule: str, remedy: str):
        if not holds:
            value = getattr(self, field)
            raise Refused(f"{self.dotted(field)} is {value!r}; {rule}. {remedy}")

    def need_read(self, field: str, is_read: bool, reason: str, readers: str):
        """A field that nothing reads must be at its default."""
        default = type(self).__dataclass_fields__[field].default
        at_default = getattr(self, field) == default
        remedy = f"Leave it at {default!r}, or choose {readers}."
        self.need(field, at_default or is_read, reason, remedy)

    def need_positive(self, *fields: str):
        for field in fields:
            value = getattr(self, field)
            holds = value is None or value > 0
            self.need(field, holds, "it must be positive", self._default(field))

    def need_ordered(self, low: str, high: str):
        bounds = getattr(self, low), getattr(self, high)
        ordered = None in bounds or bounds[0] < bounds[1]
        rule = f"it must be below {self.dotted(high)}, {bounds[1]!r}"
        self.need(low, ordered, rule, "Swap them, or widen the range.")

    def _default(self, field: str) -> str:
        return f"The default is {type(self).__dataclass_fields__[field].default!r}."

    def _check_type(self, field: dataclasses.Field):
        value, hint = getattr(self, field.name), field.type
        is_number = type(value) is int or isinstance(value, float)
        if is_number and is_bearable(0.0, hint):
            value = float(value)  # 1 or numpy's 1.0 are fine ways to write 1.0
            object.__setattr__(self, field.name, value)
        if get_origin(hint) is Literal:
            rule = "it must be one of " + ", ".join(map(repr, get_args(hint)))
        else:
            rule = f"it must be of type {getattr(hint, '__name__', hint)}"
        # In Python True is an int: `group_size=True` would pass for 1.
        right = is_bearable(value, hint) and isinstance(value, bool) <= (hint is bool)
        self.need(field.name, right, rule, self._default(field.name))
        for number in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(number, float) or math.isfinite(number)
            rule = "it must be a finite number"
            self.need(field.name, finite, rule, self._default(field.name))
