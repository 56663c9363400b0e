"""Iterative RL, the paper's Algorithm 1: runs, one after another, in one folder.

    start ──► policy-0 ──► policy-1 ──► policy-2     each goes on from the one before
                 ▲            ▲            ▲         ... judged by
              judge-0 ───► judge-1 ───► judge-2      each goes on from the one before
                 ▲            ▲            ▲         ... and learns what is in
              mix-0        mix-1        mix-2        answers of the policy by then,
                                                     judged by the data's own checker

`start` is made of the stages ahead. A stage reward directly ahead of online makes
judge-0 of the data instead, which may prefer answers; a single round will do then.

A policy is forked from the one before: its optimizer and its questions go on, its
steps and rows are counted through, and at the end of a round the reference becomes the
policy. Each is a run like any other, which may be stopped or killed at any instant; the
same command goes on where it was.
"""

import contextlib
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from grpo_jax import (
    config,
    crossing,
    display,
    examination,
    experiment,
    labels,
    own_answers,
    plots,
    prng,
    programs,
    replay,
    run,
    runs,
    sharding,
    stage,
    stopping,
    task,
    trainer,
    workdir,
)
from grpo_jax.groups import Group
from grpo_jax.models.settings import Model, Tiny
from grpo_jax.rewards.calls import Reward
from grpo_jax.rewards.grading import Grader
from grpo_jax.section import Refused

ANSWERS = "answers.jsonl"  # all that policies said between rounds; only added to
ANOTHER = 1 << 32  # no run's seed is as large


class Job(NamedTuple):
    """All rounds, in this process."""

    settings: config.Config
    folder: pathlib.Path
    stop: stopping.Stop
    screen: display.Screen


def train(
    settings: config.Config,
    folder: pathlib.Path | str = "runs/train",
    **options: Any,
) -> run.Result:
    """One run, or those of several rounds: see run.train, which has the options."""
    if not settings.makes_several:
        return run.train(settings, folder, **options)
    for name in ("model", "fork_from"):
        if options.pop(name, None) is not None:
            raise Refused(
                f"{name} is given, and these settings take several runs, which are "
                "begun from each other. Name a model or a run in model.name."
            )
    programs.keep()
    folder = pathlib.Path(folder).resolve()  # what runs know each other by
    screen = options.pop("screen", None) or display.Screen()
    is_first = crossing.place()[0] == 0
    stop = stopping.Stop(settings.keep.notice)
    with workdir.locked(folder, is_first=is_first), contextlib.closing(stop):
        _check(settings, options.get("rewards") or {})
        if is_first:
            workdir.settle(folder, {"config": dataclasses.asdict(settings)}, MAY_CHANGE)
        return _rounds(Job(settings, folder, stop, screen), options)


# How many rounds, and what no update changes by; the runs themselves say what changed.
MAY_CHANGE = ("iterative.rounds", "evaluation.", "keep.", "training.mesh")
MAY_CHANGE += ("training.parts", "training.packed", "training.deterministic")
# Of evaluation; they are examined before they learn and after.
OF_JUDGES = "questions", "batch_size"


def _rounds(job: Job, options: dict[str, Any]) -> run.Result:
    chosen, model = job.settings.iterative, job.settings.model
    start = of_start(job.settings)
    if start is not None:
        _made(job, 0, "start", start, **options)
        model = of_run(model, job.folder / "start")
    judge, policy, before, draws = job.settings.reward_model.name, model, None, 0
    taught: list[own_answers.Row] = []  # to the first judge
    for number in range(chosen.rounds + 1):
        found = None  # or there would be two policies
        if judge is None or (number and chosen.renews_model):
            begins = model if judge is None else of_run(model, judge)
            if number == 0 and "reward" in job.settings.stages:
                settings = of_judge(job.settings, begins, of_verdicts(job.settings))
                taught = _verdicts(settings) if chosen.renews_model else []
            else:
                mix = _learned_from(job, number, draws, policy, taught)
                settings = of_judge(job.settings, begins, of_mix(job.settings, mix))
                draws += 1
            _made(job, number, f"judge-{number}", settings)
            judge = str(job.folder / f"judge-{number}")
        settings = of_policy(job.settings, number, model, judge)
        fork = options | {"fork_from": before}
        found = _made(job, number, f"policy-{number}", settings, **fork)
        before = job.folder / f"policy-{number}"
        policy = of_run(model, before)
    if crossing.place()[0] == 0:
        _draw(job)
    return found


def _check(settings: config.Config, rewards: dict[str, Reward]):
    """Refuses at once what one of the runs would refuse, when others are done."""
    named, chosen = settings.reward_model.name, settings.iterative
    base = runs.find(settings.model).base
    of_start(settings)
    policy = of_policy(settings, 0, settings.model, named or "judge-0")
    known = task.make(policy, base.spec, base.tokenizer)
    task.need_answers(policy, known)
    trainer.need_weights(policy, Grader(policy.rewards, known.checker, rewards).names)
    if "reward" in settings.stages:
        of_judge(settings, settings.model, of_verdicts(settings))
    if settings.judges_answers:
        if not known.has_answers:
            raise Refused(
                f"iterative.rounds is {chosen.rounds}, and of answers to the questions "
                f"of {settings.data.name} nobody says which are right, as a judge must "
                "learn. Set iterative.renews to reference, and give it a judge: a "
                "stage reward ahead, or reward_model.name."
            )
        of_judge(settings, settings.model, of_mix(settings, pathlib.Path("a.jsonl")))
    if named is not None and chosen.renews_model:
        _need_alike(settings, named)


def _need_alike(settings: config.Config, named: str):
    """A judge that is given goes on learning as it did."""
    theirs = runs.find(Model(name=named), "reward").settings
    fields = [f"reward.{name}" for name in ("labels", "head", "good", "bad", "tag")]
    fields += ["data.instruction", "data.wrapping"]
    ours, before = (experiment.flat(one) for one in (settings, theirs))
    changed = [name for name in fields if ours[name] != before[name]]
    if changed:
        listed = "; ".join(f"{x} was {before[x]!r}, is {ours[x]!r}" for x in changed)
        raise Refused(
            f"reward_model.name is {named}, which would go on learning with other "
            f"settings than it has learned with: {listed}. Set them alike."
        )


def _made(
    job: Job, number: int, name: str, settings: config.Config, **options: Any
) -> run.Result:
    """One of the runs of a round."""
    _glance(job, number)
    if not job.screen.is_quiet:
        job.screen.tell(f"{name}, of {job.settings.iterative.rounds + 1} rounds")
    both = {"screen": job.screen, "stop": job.stop}
    return run.train(settings, job.folder / name, **both, **options)


def _glance(job: Job, number: int):
    """Stops between two runs, or while a policy is asked, when so many rounds are done;
    of several processes only a run is stopped."""
    if job.stop.is_alone and job.stop.is_asked():
        raise stopping.Stopped(number, "round")


# The settings of the runs -------------------------------------------------------------
def of_run(model: Model, folder: pathlib.Path | str) -> Model:
    """A model like that, as a run left it."""
    return dataclasses.replace(model, name=str(folder), tiny=Tiny())


def of_start(settings: config.Config) -> config.Config | None:
    """What is learned before there are rewards; None: nothing is."""
    stages = tuple(x for x in settings.stages if x not in ("reward", "online"))
    return _without_rewards(settings, stages=stages) if stages else None


def of_policy(
    settings: config.Config, number: int, model: Model, judge: str
) -> config.Config:
    """One round: so many steps more."""
    steps, reference = settings.training.steps, settings.reference
    if settings.iterative.renews_reference:
        reference = dataclasses.replace(reference, every=steps)
    return dataclasses.replace(
        settings,
        stages=("online",),
        model=model,
        iterative=config.Iterative(),
        reward=config.Reward(),
        reward_model=dataclasses.replace(settings.reward_model, name=judge),
        reference=reference,
        training=dataclasses.replace(settings.training, steps=steps * (number + 1)),
        **_plain("sft", "rft", "dpo"),
    )


def of_verdicts(settings: config.Config) -> config.Data:
    """The run's own data, as what says how good answers are."""
    plain = config.Data()
    unread = ("answer", "demonstration", "shots", "wrong")
    return dataclasses.replace(settings.data, **{k: getattr(plain, k) for k in unread})


def of_mix(settings: config.Config, path: pathlib.Path) -> config.Data:
    """What was judged between rounds. Of the questions that the policy is trained on
    as large a share is held out as of all."""
    share, put = settings.data.held_out, ("instruction", "wrapping")
    if settings.data.test is None:  # by the same hash: so none of those is among them
        share += (1 - share) * share
    same = {k: getattr(settings.data, k) for k in put}
    return config.Data(name=str(path), held_out=share, **same)


def of_judge(settings: config.Config, model: Model, data: config.Data) -> config.Config:
    """What a reward model learns."""
    return _without_rewards(
        settings,
        stages=("reward",),
        model=model,
        reward=settings.reward,
        data=data,
        evaluation=dataclasses.replace(
            config.Evaluation(),
            **{k: getattr(settings.evaluation, k) for k in OF_JUDGES},
        ),
        **_plain("sampling", "sft", "rft", "dpo"),
    )


def _without_rewards(settings: config.Config, **changed: Any) -> config.Config:
    """Settings of stages that no reward is read in."""
    training, rate = config.Training(), config.Optimizer().learning_rate
    on = ("mesh", "parts", "deterministic")
    known = {name: getattr(settings.training, name) for name in on}
    plain = _plain(
        "iterative", "reward", "reward_model", "rewards", "algorithm", "groups",
        "reference", "critic",
    )  # fmt: skip
    plain["training"] = dataclasses.replace(training, **known)
    optimizer = dataclasses.replace(settings.optimizer, learning_rate=rate)
    plain["optimizer"] = optimizer
    return dataclasses.replace(settings, **(plain | changed))


def _plain(*names: str) -> dict[str, Any]:
    plain = config.Config()
    return {name: getattr(plain, name) for name in names}


# What a judge learns from -------------------------------------------------------------
def _verdicts(settings: config.Config) -> list[own_answers.Row]:
    """What a judge was taught by the data, as if in a round before all others."""
    base = runs.find(settings.model, "either").base
    found = labels.make(settings, base.spec, base.tokenizer).train
    return [
        {
            "round": -1,
            "question": one.question,
            "completions": list(one.steps),
            "is_correct": [label > 0.5 for label in one.labels],
        }
        for one in found
    ]


def of_asking(settings: config.Config, policy: Model) -> config.Config:
    """Questions that the data's own checker judges answers to."""
    return dataclasses.replace(
        settings,
        stages=("online",),
        model=policy,
        rewards=dataclasses.replace(settings.rewards, functions=()),
        **_plain("iterative", "reward", "reward_model", "sft", "rft", "dpo"),
    )


def _learned_from(
    job: Job, number: int, draws: int, policy: Model, taught: list[own_answers.Row]
) -> pathlib.Path:
    """Asks the policy what was not asked yet; a file of what is new, and some old.

    It was so often asked before, each time about other questions, while there are any;
    in another order than it is trained on.
    """
    chosen, path = job.settings.iterative, job.folder / ANSWERS
    settings = of_asking(job.settings, policy)
    found = runs.find(policy)
    known = task.make(settings, found.base.spec, found.base.tokenizer)
    grader = Grader(settings.rewards, known.checker, {})
    mesh, root = sharding.of_axes(settings.training.mesh), prng.root(settings.seed)
    asking = stage.Run(settings, found.base.spec, known, grader, mesh, root)
    asker = stage.asker(asking, settings.sampling, chosen.samples)

    def params():
        step = runs.step(found, "latest", job.screen.tell)
        published = examination.published(asking, found, step)
        return sharding.own(published, asker.sampler.mesh)

    inquiry = own_answers.Inquiry(
        asking,
        asker,
        asking.key(prng.Stream.JUDGE, draws),
        functools.partial(judged, number),
        settings.seed + ANOTHER,
        settings.training.batch_size,
    )
    numbers = range(draws * chosen.questions, (draws + 1) * chosen.questions)
    glance = functools.partial(_glance, job, number)
    rows = own_answers.complete(path, inquiry, numbers, params, glance)
    data = job.folder / f"mix-{number}.jsonl"
    if crossing.place()[0] == 0:
        mix = replay.mix(chosen, settings.seed, [*taught, *rows], number)
        workdir.replace(data, "".join(map(workdir.line, mix)))
    crossing.agreed(0)  # nobody reads it before it is there
    return data


def judged(round_: int, group: Group) -> dict[str, Any]:
    """Of equal answers the first; none that the checker could not judge, and nothing
    that is blank, for a judge reads nothing there."""
    said = zip(group.texts, group.parts[:, 0].tolist(), strict=True)
    right: dict[str, bool] = {}
    for text, reward in said:
        if text is not None and text.strip() and reward == reward:
            right.setdefault(text, reward > 0.5)
    return {
        "round": round_,
        "number": group.question.number,
        "question": group.problem.question,
        "completions": list(right),
        "is_correct": list(right.values()),
    }


def _draw(job: Job):
    """The policy's rows are those of all rounds; each judge has its own."""
    count, steps = job.settings.iterative.rounds + 1, job.settings.training.steps
    last = job.folder / f"policy-{count - 1}" / workdir.METRICS
    of_judges = [
        list(workdir.rows(job.folder / f"judge-{number}" / workdir.METRICS))
        for number in range(count)
    ]
    path = job.folder / "figures" / "rounds.png"
    plots.rounds(list(workdir.rows(last)), of_judges, steps, path)
    job.screen.tell(f"figure: {path}")
