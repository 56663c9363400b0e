"""Two processes with two devices each learn what one with four does.

Each is fed its own half of the questions. As in a real job they meet over a port, so
they run as programs of their own: `python -m tests.test_processes 0 PORT FILE`.
"""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from grpo_jax import config, crossing, learner, programs, sharding
from grpo_jax.losses import statistics
from grpo_jax.models.settings import Lora
from grpo_jax.section import Refused
from tests import test_learner, test_offline
from tests.models import examples

GAE = config.Advantage(estimator="gae", scale_rewards="none")
FOLLOWS = config.Reference(held="host", every=1, mix=0.5)
MESHES = {  # and what is learned there
    (2, 2, 1): {"reference": FOLLOWS},
    (2, 1, 2): {"advantage": GAE, "lora": Lora(rank=2)},
    (1, 2, 2): {"advantage": GAE, "critic": config.Critic(trunk="shared")},
    (1, 1, 4): {},
}
QUESTIONS = 8
OFFLINE = {  # of each one process has 3, and the other 2
    "sft": lambda: test_offline.texts(3),
    "dpo": lambda: test_offline.pairs(5),
}


def state_after(shape, share, first=0.0):
    """One rollout, of which this process is given a share; its numbers."""
    mesh = sharding.mesh(*shape)
    chosen = test_learner.settings(mu=2, minibatches=2, **MESHES[shape])
    run = learner.make(test_learner.SPEC, chosen, 10, mesh)
    params = examples.params_of(test_learner.SPEC, "float64")
    layout, _ = sharding.of_params(params, mesh)
    params = jax.tree.map(
        lambda x, where: jax.make_array_from_callback(x.shape, where, lambda i: x[i]),
        jax.tree.map(np.asarray, params),
        layout,
    )
    state = learner.begin(run, params, jax.random.key(1))
    given, rewards = test_learner.rollout(QUESTIONS)
    given.logp[0, :, 0] += first
    given = jax.tree.map(lambda x: x[share], given)
    rewards = jax.tree.map(lambda x: x[share], rewards)
    key = test_learner.key()
    for step in (1, 2):
        state, measured, _ = learner.learn(run, state, given, rewards, key, beta=0.04)
        state = learner.follow(run, state, step)
    values = programs.forward(statistics.values)(measured)
    found = state.policy.params, values, state.critic
    return jax.tree.leaves(multihost_utils.process_allgather(found, tiled=True))


def taught(stage, process=0, processes=1):
    """After one offline update, of which this process is given its share of texts."""
    given, chosen = OFFLINE[stage]()[process::processes], test_offline.settings(stage)
    _, after, measured = test_offline.learned(chosen, given, (2, 2, 1))
    found = multihost_utils.process_allgather(after.policy.params, tiled=True)
    return [*jax.tree.leaves(found), measured["loss"]]


def share_of(shape, process):
    """Lanes are cut over processes, if there are as many; else all have the same."""
    if shape[0] * shape[1] == 1:
        return slice(None)
    half = QUESTIONS // 2
    return slice(process * half, (process + 1) * half)


def refuse(process):
    """What must not leave one of two waiting for the other."""
    shape, uneven = (2, 2, 1), [slice(5), slice(5, None)][process]
    for share, first in ((uneven, 0.0), (share_of(shape, process), np.nan)):
        try:
            state_after(shape, share, first)
        except Refused as error:
            print(f"refused: {error}", flush=True)


def main(process, port, file):
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    found = {}
    for number, shape in enumerate(MESHES):
        for i, x in enumerate(state_after(shape, share_of(shape, process))):
            found[f"{number}_{i}"] = x
    for stage in OFFLINE:
        for i, x in enumerate(taught(stage, process, 2)):
            found[f"{stage}_{i}"] = x
    print(f"told: {crossing.told('é' * process)}", flush=True)
    refuse(process)
    if process == 0:
        np.savez(file, **found)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes found, by mesh."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    file = tmp_path_factory.mktemp("processes") / "found.npz"
    command = [sys.executable, "-m", "tests.test_processes"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_ENABLE_X64": "1",
    }
    both = [
        subprocess.Popen(
            [*command, str(i), str(port), str(file)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(said)
    return np.load(file), said


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MESHES)))
def test_processes_change_nothing(number, of_two, float64):
    shape = list(MESHES)[number]
    expected = state_after(shape, slice(None))
    tolerance = 1e-6 if "lora" in MESHES[shape] else 1e-9  # adapters are float32 always
    found, _ = of_two
    for i, x in enumerate(expected):
        np.testing.assert_allclose(found[f"{number}_{i}"], x, tolerance, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("stage", OFFLINE)
def test_processes_share_texts_and_pairs(stage, of_two, float64):
    for i, x in enumerate(taught(stage)):
        np.testing.assert_allclose(of_two[0][f"{stage}_{i}"], x, 1e-9, 1e-10)


@pytest.mark.slow
def test_what_one_process_says_all_hear(of_two):
    for said in of_two[1]:
        assert "told: ['', 'é']" in said.splitlines()


@pytest.mark.slow
def test_what_one_process_refuses_all_refuse(of_two):
    _, said = of_two
    refused = [
        [line for line in one.splitlines() if line.startswith("refused: ")]
        for one in said
    ]
    assert [len(one) for one in refused] == [2, 2]
    assert all("have 3 to 5 questions" in one[0] for one in refused)
    assert "token 0 has a log-probability of no number" in refused[0][1]
    assert "another process refused" in refused[1][1]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
