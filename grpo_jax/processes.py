"""This process among those of its job: it meets them before it uses a device.

On TPU VMs, Slurm, GKE and with MPI JAX finds the others by itself. Elsewhere each is
told by three variables: JAX_COORDINATOR_ADDRESS (host:port of the first),
JAX_NUM_PROCESSES and JAX_PROCESS_ID. Without them, and without a cluster, it is alone.

One that dies takes the others with it, by SIGABRT (134 in a shell) and with its name,
when it has not been heard of for HEARTBEAT seconds: started again, all go on from the
last checkpoint.
"""

import contextlib
import os

import jax

from grpo_jax.section import Refused

ADDRESS, COUNT, OWN = NAMES = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
HEARTBEAT = 30  # seconds
FLAG = "--xla_gpu_deterministic_ops=true"


def join():
    """Meets the other processes, if there are any; once, before a device is used."""
    given = {name: os.environ[name] for name in NAMES if os.environ.get(name)}
    if not given:
        with contextlib.suppress(ValueError):  # no cluster is found: this one is alone
            jax.distributed.initialize(**_waits())
        return
    numbers = [given.get(name, "") for name in (COUNT, OWN)]
    if len(given) < len(NAMES) or not all(x.isdecimal() for x in numbers):
        said = ", ".join(f"{name}={x}" for name, x in given.items())
        raise Refused(
            f"of several processes each needs {', '.join(NAMES)}; here is {said}. Give "
            "the first one's host:port, how many there are, and the number of this one."
        )
    count, own = map(int, numbers)
    if own >= count:
        raise Refused(f"{OWN} is {own}; of {count} processes it is below {count}.")
    jax.distributed.initialize(given[ADDRESS], count, own, **_waits())


def _waits() -> dict[str, int]:
    """One that failed alone is not waited for longer than one that died."""
    names = "heartbeat_timeout_seconds", "shutdown_timeout_seconds"
    return dict.fromkeys(names, HEARTBEAT)


def make_deterministic():
    """GPUs add in one order from here on, if none was used yet."""
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()


def need_deterministic():
    """Refuses a GPU that was begun to be used without the flag."""
    if jax.default_backend() == "gpu" and FLAG not in os.environ.get("XLA_FLAGS", ""):
        raise Refused(
            "training.deterministic is True; XLA_FLAGS has no "
            f"{FLAG}, and a GPU reads it once, when it is first used. Set it before "
            "Python starts, or use `python -m grpo_jax train`, which does."
        )
