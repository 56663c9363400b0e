"""The cases of data/vectors.json: numbers that other systems returned.

trl 1.16.0, verl 0.9.1 and liger-kernel 0.8.5 computed them in float64. Each case holds
inputs, options and what came back; `match: false` marks a defect of that system.
"""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

CASES = json.loads(
    (pathlib.Path(__file__).parent / "data" / "vectors.json").read_text()
)["cases"]
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


def cases(kind):
    """A parametrisation over the cases of a kind, in both precisions."""
    chosen = [c for c in CASES if c["kind"] == kind and c.get("match", True)]
    assert chosen
    params = [
        pytest.param(c, dtype, id=f"{c['id']}-{dtype}")
        for c in chosen
        for dtype in ("float64", "float32")
    ]
    return pytest.mark.parametrize("case, dtype", params)


def arrays(case, dtype):
    """The inputs as jax arrays [1, B, T] (the vectors are one group) or [1, B]."""
    out = {}
    for name, value in case["inputs"].items():
        kind = bool if name == "mask" else dtype
        out[name] = jnp.asarray(value, kind)[None]
    return out


def assert_close(actual, expected, dtype, err_msg=""):
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(
        np.asarray(actual), np.asarray(expected), tolerance, tolerance, err_msg=err_msg
    )
