"""What one device computes and sends in a compiled program, read from its text.

XLA's own count takes the body of a loop once, however often it runs. Here each loop
counts as often as the compiler knows that it runs, as it does for GPUs and CPUs; a
TPU's compiler does not say, and its products are no longer products in the text.
"""

import collections
import math
import re
from typing import NamedTuple

from grpo_jax.section import Refused

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][a-z-]*)\((.*?)\)(.*)"
)
ARRAY = re.compile(r"\b([a-z]+)(\d+)?\w*\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body|\w+_computations?)=(\{.*?\}|%?[\w.-]+)")
# What a device sends of what it is given, in a group of n that work in a ring.
SENT = {
    "all-gather": lambda n: n - 1,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}


class Count(NamedTuple):
    operations: float  # of matrix products
    sent: dict[str, float]  # bytes, by kind of collective


class _Instruction(NamedTuple):
    shape: str
    kind: str
    operands: list[str]
    more: str


def count(text: str) -> Count:
    computations, entry = _read(text)
    operations, sent = 0.0, collections.Counter()
    waiting = [(entry, 1)]
    while waiting:
        name, times = waiting.pop()
        instructions = computations[name]
        for one in instructions.values():
            waiting += [(x, times * _runs(one)) for x in _called(one)]
            given = [instructions[x].shape for x in one.operands if x in instructions]
            kind = one.kind.removesuffix("-start")
            if kind == "dot":
                operations += times * _operations(one, given[0])
            if kind in SENT and (n := _group(one.more)) > 1:
                sent[kind] += times * sum(map(_bytes, given)) * SENT[kind](n)
    return Count(operations, dict(sent))


def _read(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Instructions by name, of computations by name; and which of these comes first."""
    computations, entry, now = {}, "", {}
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if found := COMPUTATION.match(line):
            is_entry, name = found.groups()
            entry = name if is_entry else entry
            now = computations[name] = {}
        elif found := INSTRUCTION.match(line):
            name, shape, kind, operands, more = found.groups()
            if kind == "convolution" or re.search("__(cublas|cudnn|onednn)", more):
                raise Refused(f"the compiled program has a {kind}; it is not counted.")
            names = re.findall(r"%([\w.-]+)", operands)
            now[name] = _Instruction(shape, kind, names, more)
    return computations, entry


def _called(one: _Instruction) -> list[str]:
    """Of branches all."""
    found = " ".join(CALLED.findall(one.more))
    return re.findall(r"[\w.-]+", found)


def _runs(one: _Instruction) -> int:
    if one.kind != "while":
        return 1
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.more)
    if known is None:
        raise Refused("the compiled program does not say how often a loop runs.")
    return int(known[1])


def _numbers(listed: str) -> list[int]:
    return [int(n) for n in listed.split(",") if n]


def _bytes(shape: str) -> float:
    """Of all arrays of a tuple. A truth value has no width in its name."""
    return sum(
        math.prod(_numbers(size)) * int(width or 8) / 8
        for _, width, size in ARRAY.findall(shape)
    )


def _operations(dot: _Instruction, left: str) -> int:
    axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.more)[1]
    size, out = (_numbers(ARRAY.search(x)[3]) for x in (left, dot.shape))
    return 2 * math.prod(out) * math.prod(size[i] for i in _numbers(axes))


def _group(more: str) -> int:
    """How many devices exchange with one another."""
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", more):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[x]) for x in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", more):
        return int(iota[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", more):
        return len(_numbers(listed[1]))
    return 2 if "source_target_pairs" in more else 1
