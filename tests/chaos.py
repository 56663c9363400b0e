"""Kills runs with SIGKILL, again and again, and compares what they leave in the end.

    python -m tests.chaos [--kills 50] [--methods grpo sft ...] [--seed 0]

A run is a program of its own. It dies at a random one of its events: crossings between
host and device, lines and files half written, saves begun, saved or not yet complete.
Started again with the same command, it must end with the rows, the tables and the
parameters of a run that was never killed, bit for bit. EVENTS are those that a run may
be told to die at by name.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

SMALL = {
    "evaluation.questions": 8,
    "evaluation.every": 3,
    "keep.every": 2,
    "keep.samples": 2,
    "sft.steps": 3,
    "sft.batch_size": 4,
    "training.steps": 4,
    "training.batch_size": 4,
    "algorithm.group_size": 4,
    "algorithm.beta": 0.0,
    "rft.steps": 3,
    "rft.batch_size": 4,
    "rft.questions": 8,
    "dpo.steps": 3,
    "dpo.batch_size": 2,
    "dpo.questions": 8,
    "reward.steps": 6,
    "reward.batch_size": 4,
    "reward.learning_rate": 0.01,
}
BASE = {
    "seed": 3,
    "model.tiny.layers": 1,
    "model.tiny.width": 16,
    "model.tiny.heads": 2,
    "model.tiny.kv_heads": 1,
    "model.tiny.ffw": 16,
    "model.tiny.max_length": 32,
    "data.count": 60,
    "data.size": 1,
    "rewards.functions": ("lucky",),
    "training.deterministic": True,
    "sampling.temperature": 1.0,
    "sampling.max_new": 6,
    "sampling.segment": 2,
    "optimizer.learning_rate": 0.01,
}
ONLINE = ("online",)
# Enough of a model to come to an end of what it says.
TAUGHT = {"sft.steps": 30, "sft.learning_rate": 0.03, "sampling.max_new": 8}
METHODS = {
    "sft": {"stages": ("sft",)},
    "grpo": {"stages": ("sft", "online"), "algorithm.beta": 0.1, "reference.every": 2},
    "ppo": {"preset": "ppo", "stages": ONLINE, "algorithm.beta": 0.05},
    "mu": {"stages": ONLINE, "algorithm.mu": 2, "algorithm.minibatches": 2},
    "lora": {"stages": ("sft", "online"), "model.lora.rank": 2, "algorithm.beta": 0.1},
    "mixed": {"stages": ONLINE, "groups.mixed": True, "groups.rounds": 3},
    "neyman": {
        "stages": ONLINE,
        "groups.allocation": "neyman",
        "groups.mean": 3,
        "algorithm.loss_mean": "per_question",
        "algorithm.advantage.estimator": "leave_one_out",
        "algorithm.advantage.scale_rewards": "none",
    },
    "kl": {"stages": ONLINE, "algorithm.beta": 0.1, "algorithm.kl.target": 0.01},
    "process": {"preset": "grpo_process", "stages": ONLINE, "rewards.steps": "lucky"},
    "rft": {"stages": ("sft", "rft")} | TAUGHT,
    "dpo": {"stages": ("sft", "dpo")} | TAUGHT,
    "reward": {"stages": ("reward",)},
    "rounds": {
        "stages": ("sft", "online"),
        "rewards.functions": ("lucky", "model"),
        "algorithm.beta": 0.1,
        "sft.steps": 2,
        "training.steps": 2,
        "reward.steps": 2,
        "iterative.rounds": 1,
        "iterative.questions": 6,
        "iterative.samples": 2,
    },
}


def lucky(question: str, completion: str, answer: str) -> float:
    """A reward that a model which has learned nothing gets as often as not."""
    return float(sum(completion.encode()) % 2)


def lucky_steps(question: str, steps: list[str], answer: str) -> list[float]:
    """The same of each step."""
    return [lucky(question, step, answer) for step in steps]


def settings(method: str):
    """Of a run that takes seconds."""
    from grpo_jax import config, presets

    chosen = dict(METHODS[method])
    preset = presets.PRESETS[chosen.pop("preset", "grpo")]
    named = BASE | {f"algorithm.{path}": x for path, x in preset.items()} | chosen
    stages = chosen["stages"]
    read = [*stages, "evaluation", "keep"]
    if "online" in stages:
        read += ["training", "algorithm"]
    else:
        del named["optimizer.learning_rate"]
    if "iterative.rounds" in chosen:
        read += ["reward"]
    if "reward" in stages:  # it asks nothing
        asking = ("rewards.", "sampling.")
        named = {k: x for k, x in named.items() if not k.startswith(asking)}
    for path, value in SMALL.items():
        if path.split(".")[0] in read:
            named.setdefault(path, value)
    return config.of(config.nested(named))


# One death after another, in a run of two stages: where each of them begins, within a row
# and while the devices draw; at a save, and before it is whole; within a file that is
# replaced, where digests are taken, and in the second stage's third update.
EVENTS = (
    ("begin:1", "begin:2", "append:3", "dispatch:2"),
    ("save:2", "_complete:1"),
    ("replace:3", "_digests:1", "learn:3"),
)


# In the run -----------------------------------------------------------------------------
def child(method: str, folder: str, at: str, delay: float):
    """The run, which dies at its event `at`, or so much later; 0: it lives.

    "append:3" is the third time that a row is appended.
    """
    count = watch(at, delay)
    import jax

    from grpo_jax import display, iterative, processes

    processes.make_deterministic()
    screen = display.Screen(is_quiet=True)
    found = iterative.train(
        settings(method),
        pathlib.Path(folder),
        rewards={"lucky": lucky},
        step_rewards={"lucky": lucky_steps},
        screen=screen,
    )
    digest = hashlib.sha256()
    for x in jax.tree.leaves(found.model.params):
        digest.update(bytes(memoryview(jax.device_get(x)).cast("B")))
    print(json.dumps({"events": count[0], "params": digest.hexdigest()}))


def watch(at: str, delay: float) -> list[int]:
    """Counts events, and dies at one of them."""
    from grpo_jax import checkpoint, crossing, judging, learner, offline, pool, workdir

    count, of_name = [0], collections.Counter()

    def event(name, before=lambda: None):
        count[0] += 1
        of_name[name] += 1
        if at not in (str(count[0]), f"{name}:{of_name[name]}"):
            return
        if delay:
            threading.Timer(delay, die).start()
        else:
            before()
            die()

    def around(place, name):
        function = getattr(place, name)

        def watched(*args, **kwargs):
            event(name)
            return function(*args, **kwargs)

        setattr(place, name, watched)

    for place, name in (
        (learner, "begin"),
        (crossing, "up"),
        (crossing, "down"),
        (learner, "learn"),
        (offline, "learn_texts"),
        (offline, "learn_pairs"),
        (judging, "lay"),
        (pool.Pool, "dispatch"),
        (checkpoint.Checkpoints, "save"),
        (checkpoint.Checkpoints, "_complete"),
        (checkpoint, "_digests"),
    ):
        around(place, name)
    append, replace = workdir.append, workdir.replace

    def half(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text[: len(text) // 2])

    def append_half(path, row):
        event("append", lambda: half(path, workdir.line(row)))
        append(path, row)

    def replace_half(path, text):
        new = path.with_name(path.name + ".new")
        event("replace", lambda: half(new, text))
        replace(path, text)

    workdir.append, workdir.replace = append_half, replace_half
    return count


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# Outside --------------------------------------------------------------------------------
def cached(folder: pathlib.Path) -> dict[str, str]:
    """Variables for programs that find there what others of them compiled."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(method: str, folder: pathlib.Path, at: int | str = 0, delay: float = 0.0):
    """The run's last words, or None if it died as it should."""
    command = [sys.executable, "-m", "tests.chaos", "--child", method, str(folder)]
    environment = {"JAX_PLATFORMS": "cpu"} | os.environ | cached(folder.parent)
    done = subprocess.run(
        [*command, str(at), str(delay)], env=environment, capture_output=True, text=True
    )
    if at and done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def left(folder: pathlib.Path) -> dict[str, object]:
    """What a run leaves, or those of rounds, without how long it took."""
    paths = [p for p in sorted(folder.rglob("*.jsonl")) if p.is_file()]
    return {str(path.relative_to(folder)): rows(path) for path in paths}


def rows(path: pathlib.Path) -> list[dict]:
    return [
        {k: x for k, x in row.items() if not k.startswith(("time/", "perf/"))}
        for row in map(json.loads, path.read_text().splitlines())
    ]


def torment(method: str, kills: int, rng: random.Random, root: pathlib.Path) -> int:
    """Kills runs of a method so often, and compares each that comes to its end."""
    whole, killed, runs = root / f"{method}-whole", 0, 0
    expected = start(method, whole)
    while killed < kills:
        folder, runs = root / f"{method}-{runs}", runs + 1
        found = None
        while found is None:
            at = rng.randint(1, expected["events"]) if killed < kills else 0
            delay = rng.choice([0.0, 0.0, rng.random() / 5])
            found = start(method, folder, at, delay)
            killed += found is None
        assert found["params"] == expected["params"], folder
        assert left(folder) == left(whole), folder
    return runs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=4)
    given = parser.parse_args()
    if given.child:
        method, folder, at, delay = given.child
        return child(method, folder, at, float(delay))
    rng, began = random.Random(given.seed), time.monotonic()
    each = -(-given.kills // len(given.methods))
    with tempfile.TemporaryDirectory() as root:
        for method in given.methods:
            runs = torment(method, each, rng, pathlib.Path(root))
            seconds = time.monotonic() - began
            print(
                f"{method}: {each} kills in {runs} runs, all as if there had been none "
                f"({seconds:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
