"""What every stage of a run has: what it works with, what it carries, what it says."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from grpo_jax import config, crossing, learner, pool, prng, programs, sharding
from grpo_jax.asking import Asker
from grpo_jax.losses import statistics
from grpo_jax.models import transformer
from grpo_jax.models.spec import Spec
from grpo_jax.rewards.grading import Grader
from grpo_jax.rewards.stepwise import StepGrader
from grpo_jax.task import Task


class Run(NamedTuple):
    """What all stages of a run work with."""

    settings: config.Config
    spec: Spec
    task: Task
    grader: Grader | None  # None: what is answered is not rewarded
    mesh: Mesh
    root: Key[Array, ""]
    steps: StepGrader | None = None  # in process supervision

    def key(self, stream: prng.Stream, number: int) -> Key[Array, ""]:
        """Of step `number`."""
        return prng.step_key(self.root, *crossing.up((int(stream), number)))


class State(NamedTuple):
    """All that a stage carries from step to step."""

    learned: learner.State  # on the devices
    host: dict[str, Any]  # numbers, as JSON has them


class Found(NamedTuple):
    """What a step has to say: of the devices, when they are done; of the host, now."""

    measured: statistics.Statistics
    numbers: dict[str, float]
    seconds: dict[str, float]
    table: Callable[[], list[dict[str, Any]]] = lambda: []  # rows of samples
    since: float | None = None  # by perf_counter: the devices learn, and were given all


class Stage(Protocol):
    learner: learner.Learner
    steps: int

    def begin(self, params: transformer.Params, key: Key[Array, ""]) -> State:
        """Before its first step. The parameters given are gone then."""

    def prepare(
        self, state: State, folder: pathlib.Path, meanwhile: Callable[[], None]
    ):
        """Finds what there is to learn from, where that does not depend on the step.

        The state is that before its first step, or all was found before. `meanwhile` is
        called now and then.
        """

    def step(
        self, state: State, number: int, meanwhile: Callable[[], None]
    ) -> tuple[State, Found]:
        """Step `number` of the run; calls `meanwhile` while it waits for the devices.

        The state given is there until these calls have returned, and gone then.
        """


def asker(run: Run, sampling: config.Sampling, group_size: int) -> Asker:
    """Asks this process's questions on its own devices."""
    text, numerics = run.task.tokenizer, run.settings.model.numerics
    known = text.stop_ids, text.size, numerics, sharding.own_mesh(run.mesh)
    sampler = pool.Sampler(run.spec, sampling, group_size, *known)
    return Asker(run.task, sampler, run.grader)


def greedily(sampling: config.Sampling) -> config.Sampling:
    """The same, but for the likeliest answers."""
    free = dict.fromkeys(("top_k", "top_p", "min_p"))
    return dataclasses.replace(sampling, temperature=0.0, **free)


def published(
    run: Run, asker: Asker, trained: learner.Learner, state: learner.State
) -> transformer.Params:
    """The copy of the policy that an asker samples with; waits until it is there."""
    dtype = run.settings.model.numerics.compute
    copied = programs.publish(learner.policy(trained, state), dtype, run.mesh)
    return jax.block_until_ready(sharding.own(copied, asker.sampler.mesh))
