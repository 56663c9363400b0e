"""Every setting of a run's loop, data and rewards changes something.

The devices' work is stubbed (see `runs`): what is compared is what was asked, what was
to be learned, and what was left in the folder. See `test_no_dead_knob`.
"""

import dataclasses
import functools
import json
import pathlib
import signal
import tempfile
import threading
import types

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import (
    asking,
    beginning,
    config,
    crossing,
    display,
    iterative,
    judging,
    labels,
    offline,
    own_answers,
    processes,
    run,
    scoring,
    sharding,
    stopping,
    task,
)
from grpo_jax import runs as runs_
from grpo_jax.data import sets
from grpo_jax.data.problem import Problem
from grpo_jax.losses import statistics
from grpo_jax.models import load
from grpo_jax.models.settings import Lora, Numerics
from grpo_jax.rewards import calls, code, grading, neural, stepwise
from grpo_jax.section import Refused
from grpo_jax.text.tokenizer import Bytes
from tests import runs
from tests.models import examples

FILE, SET = {"data.name": "a file.jsonl"}, {"data.name": "gsm8k"}
FEW = {"algorithm.loss_mean": "per_question", "algorithm.group_size": 12}
FEW |= {"algorithm.advantage.estimator": "leave_one_out"}
FEW |= {"algorithm.advantage.scale_rewards": "none"}
FEW |= {"data.count": 6, "data.held_out": 0.0, "training.steps": 4}
NEYMAN = FEW | {"groups.allocation": "neyman", "groups.mean": 6}
SOME = {"sft.steps": 2, "sft.batch_size": 4}
SOME |= {f"{name}.steps": 2 for name in ("rft", "dpo")}
SOME |= {f"{name}.batch_size": 4 for name in ("rft", "dpo")}
SOME |= {f"{name}.questions": 6 for name in ("rft", "dpo")}
SOME |= {f"{name}.samples": 4 for name in ("rft", "dpo")}


PROCESS = {"algorithm.advantage.supervision": "process", "rewards.steps": "length"}


def alone(name):
    of_stage = {k: x for k, x in SOME.items() if k.startswith(name)}
    return of_stage | {"stages": (name, "online")}


SFT, RFT, DPO = map(alone, ("sft", "rft", "dpo"))
REWARD = {"stages": ("reward",), "reward.steps": 2, "reward.batch_size": 4}
TAGGED = {"reward.labels": "steps", "data.name": "chains"}
ASKING = {"rewards.functions": ("model",), "reward_model.name": "a run"}
ROUNDS = {"iterative.rounds": 1, "rewards.functions": ("model",)}
ROUNDS |= {"algorithm.beta": 0.1, "iterative.replay": 0.5}
BY_MODEL = {"algorithm.advantage.supervision": "process", "rewards.steps": "model"}
BY_MODEL |= {"reward_model.name": "a run"}
OFTEN = {"training.steps": 5, "keep.every": 1, "evaluation.every": 1}
PROOFS = {  # path → (a value, the settings under which it matters)
    "seed": (1, {}),
    "stages": (("online", "sft"), SFT),
    "training.steps": (3, {}),
    "training.batch_size": (8, {}),
    "training.mesh": ((2, 2, 1), {}),
    "training.deterministic": (True, {}),
    "algorithm.group_size": (5, {}),
    "groups.mixed": (True, {}),
    "groups.rounds": (1, {"groups.mixed": True}),
    "groups.allocation": ("neyman", FEW),
    "groups.mean": (7, NEYMAN),
    "groups.least": (6, NEYMAN),
    "rewards.functions": (("format",), {}),
    "rewards.steps": ("one", PROCESS),
    "rewards.overlong": (7, {}),
    "rewards.clip": ((0.0, 0.5), {}),
    "rewards.repetition": (1, {}),
    "rewards.cosine": (8, {}),
    "rewards.cosine_right": ((2.0, 0.0), {"rewards.cosine": 8}),
    "rewards.cosine_wrong": ((-2.0, 0.0), {"rewards.cosine": 8}),
    "rewards.truncated": ("dropped", {}),
    "rewards.most_unscored": (0.1, {"rewards.functions": ("blank",)}),
    "rewards.program_seconds": (2.0, {"rewards.functions": ("code",)}),
    "rewards.program_memory": (64, {"rewards.functions": ("code",)}),
    "rewards.most_faults": (0.5, {"rewards.functions": ("odd",)}),
    "sft.steps": (3, SFT),
    "sft.batch_size": (3, SFT),
    "sft.learning_rate": (0.5, SFT),
    "sft.loss_mean": ("per_token", SFT),
    "rft.steps": (3, RFT),
    "rft.batch_size": (3, RFT),
    "rft.learning_rate": (0.5, RFT),
    "rft.loss_mean": ("per_token", RFT),
    "rft.questions": (5, RFT),
    "rft.samples": (5, RFT),
    "dpo.steps": (3, DPO),
    "dpo.batch_size": (3, DPO),
    "dpo.learning_rate": (0.5, DPO),
    "dpo.questions": (5, DPO),
    "dpo.samples": (5, DPO),
    "reward.labels": ("preferences", REWARD),
    "reward.steps": (3, REWARD),
    "reward.batch_size": (3, REWARD),
    "reward.learning_rate": (0.5, REWARD),
    "reward.longest": (7, REWARD | {"data.size": 1}),
    "reward.head": ("tokens", REWARD),
    "reward.good": ("y", REWARD | {"reward.head": "tokens"}),
    "reward.bad": ("n", REWARD | {"reward.head": "tokens"}),
    "reward.tag": ("@", REWARD | TAGGED),
    "reward_model.name": ("another", ASKING),
    "reward_model.output": ("probability", ASKING),
    "reward_model.of_steps": ("least", ASKING),
    "reward_model.batch_size": (3, ASKING),
    "iterative.rounds": (2, ROUNDS),
    "iterative.renews": ("reference", ROUNDS | {"iterative.replay": 0.1}),
    "iterative.questions": (5, ROUNDS),
    "iterative.samples": (5, ROUNDS),
    "iterative.replay": (0.25, ROUNDS),
    "iterative.replay_of": ("history", ROUNDS),
    "evaluation.every": (1, {}),
    "evaluation.questions": (3, {}),
    "evaluation.batch_size": (4, {}),
    "evaluation.samples": (2, {}),
    "evaluation.temperature": (0.5, {"evaluation.samples": 2}),
    "evaluation.others": (("sums-2",), {}),
    "keep.every": (1, {}),
    "keep.latest": (3, OFTEN),
    "keep.best": (2, OFTEN),
    "keep.samples": (1, {}),
    "keep.notice": (1.0, {"rewards.functions": ("last",)}),
    "dpo.loss": ("ipo", {}),
    "dpo.beta": (0.5, {}),
    "dpo.form": ("mean", {}),
    "dpo.label_smoothing": (0.2, {}),
    "rewards.seconds": (3.0, {}),
    "rewards.workers": (2, {}),
    "data.name": ("chains", {}),
    "data.subset": ("hard", {"data.name": "me/mine"}),
    "data.split": ("test", SET),
    "data.test": ("test", SET),
    "data.held_out": (0.5, {}),
    "data.question": ("asked", FILE),
    "data.answer": ("told", FILE),
    "data.demonstration": ("told", FILE),
    "data.count": (30, {}),
    "data.size": (1, {}),
    "data.least": (1, {}),
    "data.wrong": (0.5, {}),
    "data.instruction": ("steps", {}),
    "data.wrapping": ("paper", {}),
    "data.shots": (1, {}),
}


def forgetful():
    """Right about one question less each time that it is asked."""
    before = []

    def says(question, number, sample):
        before.append((number, sample))
        text, ended = runs.says(question, 1, 1)
        is_right = before.count((number, sample)) < number
        return (text if is_right else text + "0"), ended

    return says


def stopped():
    """Asked to stop within the second step."""
    before = []

    def says(question, number, sample):
        before.append((number, sample))
        if number == 4 and before.count((4, 0)) == 2:
            signal.raise_signal(signal.SIGTERM)
        return runs.says(question, number, sample)

    return says


def odd(question, completion, answer):
    """Fails for every fourth sample: those that are cut, and full of blanks."""
    if completion.endswith(" "):
        raise ValueError(completion)
    return 1.0


def blank(question, completion, answer):
    """Cannot tell of every fourth sample."""
    return None if completion.endswith(" ") else 1.0


STEP_REWARDS = {
    "length": lambda question, steps, answer: [float(len(step)) for step in steps],
    "one": lambda question, steps, answer: [1.0 for _ in steps],
}


def clock():
    """Goes on by a second each time that somebody looks."""
    seconds = iter(range(10**6))
    return types.SimpleNamespace(perf_counter=lambda: float(next(seconds)))


def on_a_run(chosen, says=runs.says):
    """What was asked and learned, and what the folder holds in the end."""
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
        runs.stubbed(says) as trace,
    ):
        folder = pathlib.Path(name) / "run"
        patch.setattr(run, "time", clock())
        needed = lambda: trace.append("deterministic")  # noqa: E731
        patch.setattr(processes, "need_deterministic", needed)
        try:
            own = {"rewards": {"odd": odd, "blank": blank}}
            runs.train(chosen, folder, **own, step_rewards=STEP_REWARDS)
            end = "done"
        except (Refused, stopping.Stopped) as error:
            end = str(error)
            stops = [str(stopping.Stopped(step)) for step in (1, 2)]
            limits = "rewards failed", "could not be scored"
            assert any(x in end for x in limits) or end in stops
        kept = sorted(path.name for path in folder.glob("checkpoints/*"))
        tables = sorted(path.name for path in folder.glob("samples/*"))
        return [end, trace, runs.rows(folder), kept, tables]


def on_pairs(chosen):
    """What DPO's loss is of two pairs."""
    spec, logp = examples.SPECS["qwen2"], -jnp.arange(1.0, 17).reshape(2, 2, 4)
    ids = jnp.ones((2, 2, 4), int)
    is_token = jnp.array(np.arange(4) < np.array([[4, 2], [1, 3]])[:, :, None])
    texts = scoring.Texts(ids[:, 0], ids[:, 0] > 0, ids, is_token)
    batch = offline.Pairs(texts, 1.3 * logp, jnp.array([0.75, 0.25]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "log_probs", lambda *_: scoring.Scores(logp, None))
        given = spec, Numerics(), Lora(), None, {}, batch, None
        loss, measured = offline.pair_loss(chosen.dpo, *given)
    return [float(loss), *map(float, statistics.values(measured).values())]


def on_a_grader(chosen):
    """How many threads there are, and whether one answer in five seconds comes in time.

    By a clock that goes on by a second each time that somebody looks.
    """
    seconds, done, started = iter(range(10**6)), threading.Event(), []

    def monotonic():
        now = next(seconds)
        if now == 6:
            done.set()
        return float(now)

    start = calls.Pool._start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "time", types.SimpleNamespace(monotonic=monotonic))
        patch.setattr(calls.Pool, "_start", lambda x: started.append(1) or start(x))
        slow = {"last": lambda *texts: float(done.wait())}
        grader = grading.Grader(chosen.rewards, "last", slow)
        workers = len(started)
        found = grader.collect([grader.submit(Problem("q", "a"), ["x"], [True])])
        done.set()
    return [workers, found.faults, np.nan_to_num(found.parts, nan=-1).tolist()]


def on_programs(chosen):
    """With which limits one is run."""
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "judged", lambda *some: given.append(some) or 1.0)
        grader = grading.Grader(chosen.rewards, "last", {})
        grader.collect([grader.submit(Problem("q", "a"), ["x"], [True])])
    return given


@functools.cache
def folder_of_data():
    folder = pathlib.Path(tempfile.mkdtemp())
    for split in ("train", "test"):
        rows = [{"question": f"{split} {i}", "answer": f"#### {i}"} for i in range(9)]
        path = folder / sets.SETS["gsm8k"].files[split]
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)))
    row = {"question": "a", "asked": "b", "answer": "1", "told": "2"}
    (folder / "a file.jsonl").write_text(json.dumps(row))
    return folder


def of_the_hub(name, subset, split):
    return [{"question": f"{subset} {i}", "answer": "1"} for i in range(9)]


def on_a_task(chosen):
    """All problems, and how the first is put."""
    folder = folder_of_data()
    if chosen.data.name.endswith(".jsonl"):
        name = str(folder / chosen.data.name)
        data = chosen.data.__class__(**(vars(chosen.data) | {"name": name}))
        chosen = config.Config(data=data, sampling=chosen.sampling)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sets.FOLDER, str(folder))
        patch.setattr(datasets, "load_dataset", of_the_hub)
        made = task.make(chosen, examples.SPECS["qwen2"], Bytes())
    asked = made.question(made.train[0])
    return [made.train, made.held_out, asked, chosen.data.name]


def on_a_reward_model(chosen):
    """What it would learn from first, at which rate, and by which tokens."""
    spec = dataclasses.replace(examples.SPECS["qwen2"], vocab=257)
    known = labels.make(chosen, spec, Bytes())
    read = labels.reader(chosen, Bytes())
    candidates = labels.candidates(chosen.reward, Bytes())
    made = judging.make(spec, chosen, candidates, None)
    rate, head = made.settings.optimizer.learning_rate, made.has_head
    given = beginning.legs(chosen)[0].last, chosen.reward.batch_size
    items = [labels.item(read, one) for one in known.train]
    return [*given, items, candidates, rate, head]


def on_a_judge(chosen):
    """What a model says of two completions of a question, and how often it is asked."""
    calls, asked = [], chosen.reward_model
    run = config.Config(stages=("reward",), reward=config.Reward(labels="steps"))

    def find(named, kind):
        calls.append(named.name)
        base = load.Found(None, Bytes(), None, {})
        return runs_.Found(base, run, pathlib.Path())

    def score(judge, asked, at_once, meanwhile):
        calls.append(at_once)
        scores = [1.0, -1.0, 0.5]
        return [[scores[: len(row.ends)] for row in rows] for _, rows in asked]

    spec = examples.SPECS["qwen2"]
    made = load.Model(spec, {"head": {}}, Bytes(), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs_, "find", find)
        patch.setattr(runs_, "step", lambda *_: 1)
        patch.setattr(runs_, "read", lambda *_, **__: made)
        patch.setattr(runs_, "identity", lambda *_: "")
        patch.setattr(judging, "score", score)
        mesh = sharding.mesh(1, 1, 1, jax.devices()[:1])
        model = neural.load(asked, mesh, print)
        if chosen.rewards.steps == "model":
            return [calls, _said_of_steps(model)]
        found, _ = neural.outcomes(model, ["q"], [["a\nb\nc", "d"]])
    return [calls, found.tolist()]


def on_rounds(chosen):
    """The runs that are made, how often a policy is asked, and what judges read."""
    trace = []

    def train(settings, folder, **options):
        every, model = settings.reference.every, settings.reward_model.name
        trace.append([folder.name, settings.training.steps, every, len(model or "")])
        return run.Result(folder, runs.model(chosen.model), {})

    def complete(path, inquiry, numbers, params, meanwhile):
        G, at_once = inquiry.asker.sampler.group_size, inquiry.at_once
        key = crossing.down(jax.random.key_data(inquiry.key)).tolist()
        trace.append([numbers.start, numbers.stop, G, at_once, key])
        told = {"completions": ["1"], "is_correct": [True]}
        each = len(numbers)
        return [
            {"round": i // each, "question": f"{i}"} | told for i in range(numbers.stop)
        ]

    base = load.find(chosen.model)
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(run, "train", train)
        patch.setattr(own_answers, "complete", complete)
        patch.setattr(runs_, "find", lambda model, kind="policy": runs_.Found(base))
        patch.setattr(iterative, "_draw", lambda job: None)
        folder = pathlib.Path(name)
        iterative.train(chosen, folder, screen=display.Screen(is_quiet=True))
        trace += [p.read_text() for p in sorted(folder.glob("mix-*"))]
    return trace


def _said_of_steps(model):
    cut = [
        stepwise.Stepped(texts, np.arange(len(texts), dtype=np.int32), np.zeros(0))
        for texts in (["a", "b", "c"], ["d"])
    ]
    by_step = stepwise.Graded([cut], [])
    asked = asking.Asked([Problem("q", "a")], [], [], [], None, by_step)
    found = neural.stepped(model, asked, lambda: None).stepped.groups
    return [[one.reward.tolist() for one in group] for group in found]


ON_PAIRS = ("dpo.loss", "dpo.beta", "dpo.form", "dpo.label_smoothing")
ON_A_GRADER = ("rewards.seconds", "rewards.workers")
SAYING = {"keep.best": forgetful, "keep.notice": stopped}


def way(path):
    """How a field is observed; and one observation serves all that are so alike."""
    for name, paths in (("pairs", ON_PAIRS), ("a grader", ON_A_GRADER)):
        if path in paths:
            return name
    if path.startswith("rewards.program"):
        return "programs"
    starts = {"reward": "a reward model", "reward_model": "a judge"}
    starts |= {"iterative": "rounds"}
    if path.split(".")[0] in starts:
        return starts[path.split(".")[0]]
    if path.startswith("data."):
        return "a task"
    return path if path in SAYING else "a run"


@functools.cache
def observe(way, items):
    values = dict(items)
    if way == "pairs":
        chosen = runs.build(config.Config, {"stages": ("dpo",)} | values)
        return json.dumps(on_pairs(chosen))
    if way == "a grader":
        return json.dumps(on_a_grader(runs.build(config.Config, values)))
    if way == "rounds":
        return json.dumps(on_rounds(runs.build(config.Config, runs.SMALL | values)))
    if way == "programs":
        return json.dumps(on_programs(runs.build(config.Config, values)))
    if way == "a reward model":
        return json.dumps(on_a_reward_model(runs.build(config.Config, values)))
    if way == "a judge":
        return json.dumps(on_a_judge(runs.build(config.Config, ASKING | values)))
    if way == "a task":
        few = {} if "data.name" in values else {"data.count": 20}
        few |= {"sampling.max_new": 16}
        return json.dumps(on_a_task(runs.build(config.Config, few | values)))
    says = SAYING[way]() if way in SAYING else runs.says
    return json.dumps(on_a_run(runs.build(config.Config, runs.SMALL | values), says))


@pytest.mark.parametrize("path", PROOFS)
def test_changing_the_field_changes_what_is_observed(path):
    value, given = PROOFS[path]
    before = observe(way(path), tuple(given.items()))
    after = observe(way(path), tuple((given | {path: value}).items()))
    assert before != after


@pytest.mark.parametrize("path", ["name", "output", "batch_size"])
def test_the_settings_of_a_model_that_rewards_steps_matter_there_too(path):
    value, _ = PROOFS[f"reward_model.{path}"]
    changed = BY_MODEL | {f"reward_model.{path}": value}
    before, after = (
        on_a_judge(runs.build(config.Config, x)) for x in (BY_MODEL, changed)
    )
    assert before != after
    assert before[1] == [[[1.0, -1.0, 0.5], [1.0]]]


@pytest.mark.parametrize("name", ["a run", "pairs", "a grader", "a task", "a judge"])
def test_the_same_settings_give_the_same_observation(name):
    first = observe(name, ())
    observe.cache_clear()
    assert observe(name, ()) == first
