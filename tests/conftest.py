"""Four CPU devices, strict ranks, shapes checked at every call, float64 on request."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Four devices on a busy machine may keep each other waiting longer than 40 seconds,
# when XLA ends the process.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)

os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook below names it)

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Small programs, run once or twice: compiling them is what takes long.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)
install_import_hook("grpo_jax", "tests.typecheck.check")

# The same examples every time, and no failure because the machine is busy.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")


def pytest_configure(config):
    """What one test compiled another need not, in whatever process. Nothing is taken
    from the user's own, and nothing stays."""
    name = "JAX_COMPILATION_CACHE_DIR"
    if name not in os.environ:  # as it is in workers
        os.environ[name] = tempfile.mkdtemp(prefix="grpo_jax_programs_")
        jax.config.update("jax_compilation_cache_dir", os.environ[name])
        config.add_cleanup(lambda: shutil.rmtree(os.environ[name], ignore_errors=True))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Commands that are called here do not look for other processes: JAX's devices are
    in use, and the workers of pytest are no job."""
    from grpo_jax import processes

    monkeypatch.setattr(processes, "join", lambda: None)


@pytest.fixture(autouse=True, scope="module")
def without_the_programs_of_other_modules():
    """Each program that XLA compiles maps memory some ten times; Linux allows a
    process 65,530 such maps, and one that asks for more dies."""
    yield
    jax.clear_caches()
