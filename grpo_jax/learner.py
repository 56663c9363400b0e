"""What a policy learns from one rollout: scores, advantages, and μ · M updates.

    run = learner.make(spec, settings, updates, mesh)
    state = learner.begin(run, params, key)
    state, measured, _ = learner.learn(run, state, rollout, rewards, key, beta=0.04)

Log-probabilities of before and of the reference are computed only where a setting reads
them: a single update on policy needs neither, unless β is above 0.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from grpo_jax import (
    config,
    crossing,
    optimizers,
    packing,
    prepare,
    programs,
    reference,
    sampled,
    scoring,
    sharding,
    train_step,
    tree,
)
from grpo_jax.losses import statistics
from grpo_jax.models import heads, kernels, lora, transformer
from grpo_jax.models.spec import Spec
from grpo_jax.records import Rewards
from grpo_jax.sampled import Rollout
from grpo_jax.section import Refused


class State(NamedTuple):
    """All that a run carries from step to step."""

    policy: train_step.State  # with adapters: of these alone
    critic: train_step.State | None = None  # on a trunk of its own
    reference: transformer.Params | None = None
    frozen: transformer.Params | None = None  # what adapters adapt


class Trained(NamedTuple):
    """One set of parameters that is trained."""

    begin: Callable  # parameters, which are gone then → their first state
    update: Callable
    state: train_step.State  # its shapes and places


class Learner(NamedTuple):
    """How a run learns: its settings, and the programs made for them."""

    spec: Spec
    settings: config.Config
    mesh: Mesh
    programs: programs.Learning
    policy: Trained
    critic: Trained | None
    has_head: bool = False  # it is a reward model, with a head that says its score


def make(
    spec: Spec,
    settings: config.Config,
    updates: int,
    mesh: Mesh | None = None,
    loss: train_step.Loss = train_step.policy_loss,
    *,
    has_head: bool = False,
) -> Learner:
    """For a run of so many updates; without a mesh on the first device."""
    if mesh is None:
        mesh = sharding.mesh(1, 1, 1, jax.local_devices()[:1])
    chosen = settings.model
    _need_float32(settings)
    of_model = spec, chosen.numerics
    known = *of_model, chosen.lora
    params = transformer.abstract(spec, chosen.dtype)
    split = functools.partial(_split, spec, settings, has_head)
    trained, own, _ = jax.eval_shape(split, params, jax.random.key(0))

    def of(loss, optimizer, params):
        return _trained(loss, optimizers.make(optimizer, updates), params, mesh)

    loss = functools.partial(loss, *known)
    policy, critic = of(loss, settings.optimizer, trained), None
    if own is not None:
        rate = settings.critic.learning_rate
        optimizer = dataclasses.replace(settings.optimizer, learning_rate=rate)
        loss = functools.partial(train_step.critic_loss, *of_model)
        critic = of(loss, optimizer, own)
    run = programs.learning(*known, mesh)
    return Learner(spec, settings, mesh, run, policy, critic, has_head)


def _need_float32(settings: config.Config):
    """Refuses to train what is stored in fewer bits: small steps are rounded away."""
    is_policy = not settings.model.lora.rank
    has_trunk = settings.algorithm.has_critic and settings.critic.trunk == "own"
    if settings.model.dtype != "float32" and (is_policy or has_trunk):
        raise Refused(
            f"model.dtype is {settings.model.dtype!r}; what is trained is stored in "
            "float32. Set model.dtype to float32 and model.numerics.compute to "
            f"{settings.model.dtype}."
        )


def begin(run: Learner, params: transformer.Params, key: Key[Array, ""]) -> State:
    """The state before the first update. The parameters given are gone then."""
    settings, held = run.settings, None
    trained, own, frozen = _split(run.spec, settings, run.has_head, params, key)
    critic = None if own is None else run.critic.begin(programs.copy(own))
    policy = run.policy.begin(trained)
    if frozen is not None:
        layout, _ = sharding.of_params(frozen, run.mesh)
        frozen = jax.device_put(frozen, layout, donate=True)
    if settings.algorithm.needs_reference and frozen is None:
        held = reference.hold(settings.reference, policy.params)
    return State(policy, critic, held, frozen)


def abstract(run: Learner) -> State:
    """Shapes and places of such a state."""
    policy, chosen = run.policy.state, run.settings
    held = frozen = None
    if chosen.model.lora.rank:
        frozen = transformer.abstract(run.spec, chosen.model.dtype)
        frozen = heads.trunk(frozen) if run.has_head else frozen
        frozen = sharding.placed(frozen, run.mesh)
    elif chosen.algorithm.needs_reference:
        held = reference.abstract(chosen.reference, policy.params)
    critic = None if run.critic is None else run.critic.state
    return State(policy, critic, held, frozen)


def _split(spec: Spec, settings: config.Config, has_head: bool, params, key):
    """What is trained as the policy, what as a critic, and what stays as it is."""
    begun = params.get("head")  # of a reward model that is trained on
    params = {k: x for k, x in params.items() if k != "head"}
    if has_head:
        params = heads.trunk(params)
    trained, critic, frozen = params, None, None
    for_adapters, for_head = jax.random.split(key)
    if settings.model.lora.rank:
        trained = lora.init(params, settings.model.lora, for_adapters)
        frozen = params
    if has_head:
        begun = heads.init_scalar(spec, for_head) if begun is None else begun
        trained = trained | {"head": begun}
    if settings.algorithm.has_critic:
        head = {"head": heads.init_scalar(spec, for_head)}
        if settings.critic.trunk == "shared":
            trained = trained | head
        else:
            critic = heads.trunk(params) | head
    return trained, critic, frozen


def _trained(loss, optimizer, params, mesh: Mesh) -> Trained:
    layout, _ = sharding.of_params(params, mesh)
    moments = sharding.of_optimizer(optimizer, params, layout)
    where = train_step.State(layout, moments)
    begin = programs.begin(optimizer, where)
    state = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        jax.eval_shape(begin, params),
        where,
    )
    return Trained(begin, programs.update(loss, optimizer, where), state)


def policy(run: Learner, state: State) -> transformer.Params:
    """The parameters to sample with, or to go on from; adapters are multiplied out.

    A critic's head is left behind, and a reward model's is not.
    """
    params = {k: x for k, x in state.policy.params.items() if k != "head"}
    if state.frozen is not None:
        params = programs.merged(state.frozen, params, run.settings.model.lora)
    if run.has_head:
        params = params | {"head": state.policy.params["head"]}
    return params


class _Rollout(NamedTuple):
    """On the devices: in the questions' order, and laid out in minibatches."""

    rewards: Rewards
    sampler_logp: Array
    is_row: Array
    number: Array  # of the question
    shares: train_step.Share  # [M, ...]


def learn(
    run: Learner,
    state: State,
    rollout: Rollout,
    rewards: Rewards,  # of the same questions and columns
    key: Key[Array, ""],  # of the step: prng.step_key
    *,
    beta: float | Float[Array, ""],
) -> tuple[State, statistics.Statistics, Float[Array, "B G C"]]:
    """The state after μ · M updates, what was measured, and the advantages.

    The state given is gone.
    """
    chosen, do = run.settings.algorithm, run.programs
    check_state(run, state)
    sampled.check(chosen, rollout, rewards)
    given = _lay_out(run, rollout, rewards)
    known = train_step.Known(chosen, run.settings.sampling.temperature, beta)
    known, numbers = crossing.up(
        (known, list(range(chosen.mu * chosen.minibatches))), do.everywhere
    )
    shares = [do.pick(given.shares, m) for m in numbers[: chosen.minibatches]]
    before, scores, value = _before(run, state, shares, known)
    scores = scores._replace(sampler_logp=given.sampler_logp)
    rewards = given.rewards._replace(value=value)
    ready = known.settings, rewards, scores, given.is_row
    batch, measured = do.prepare(*ready, beta=known.beta)
    of_updates = []
    for number, at in enumerate(numbers):
        m = number % chosen.minibatches
        now = None
        if chosen.selects:
            is_same = number == 0 and before
            now = before[0] if is_same else _score(run, state, shares[m], known)
        ready = known.settings, batch, numbers[m], now, given.number, key, at
        policy = do.minibatch(*ready, shares[m])
        state, more = _update(run, state, known, shares[m], policy)
        of_updates.append(more)
    measured |= functools.reduce(do.merge, of_updates)
    return state, measured, batch.advantage


def _update(run: Learner, state: State, known, share: train_step.Share, policy):
    """One step of the policy, and of a critic on its own trunk."""
    parts, critic = run.settings.training.parts, None
    if run.settings.algorithm.has_critic:
        critic = crossing.up(run.settings.critic, run.programs.everywhere)
    batch, errors = (train_step.Batch(share.texts, policy), share.place), {}
    if run.critic is not None:
        given = known._replace(critic=critic), *batch
        after, errors = run.critic.update(state.critic, *given, parts=parts)
        state, critic = state._replace(critic=after), None
    given = known._replace(critic=critic, frozen=state.frozen), *batch
    after, measured = run.policy.update(state.policy, *given, parts=parts)
    errors = {f"critic_{k}" if k in measured else k: x for k, x in errors.items()}
    return state._replace(policy=after), measured | errors


def _before(run: Learner, state: State, shares: list[train_step.Share], known):
    """What the policy, the reference and the critic say before the first update."""
    chosen, do = run.settings.algorithm, run.programs
    before = logp = ref_logp = value = None
    if chosen.needs_old:
        before = [_score(run, state, share, known) for share in shares]
        logp = do.whole([scores.logp for scores in before], chosen.group_size)
    if chosen.needs_reference:
        held = state.frozen
        if state.reference is not None:
            held = reference.at_hand(state.reference)
        given = known.temperature, run.settings.training.parts
        scores = [
            do.score(held, None, share, *given, with_entropy=False) for share in shares
        ]
        ref_logp = do.whole([one.logp for one in scores], chosen.group_size)
    if chosen.has_critic:
        params = state.policy.params, state.frozen
        if state.critic is not None:
            params = state.critic.params, None
        parts = run.settings.training.parts
        found = [do.value(*params, share, parts) for share in shares]
        value = do.whole(found, chosen.group_size)
    return before, prepare.Scores(logp, ref_logp, None), value


def _score(
    run: Learner, state: State, share: train_step.Share, known
) -> scoring.Scores:
    """The policy's log-probabilities, and entropies where tokens are chosen by them."""
    given = state.policy.params, state.frozen, share, known.temperature
    parts, chooses = run.settings.training.parts, run.settings.algorithm.selects
    return run.programs.score(*given, parts, with_entropy=chooses)


def follow(run: Learner, state: State, step: int) -> State:
    """The state after `step` steps, its reference drawn to the policy if it is time."""
    chosen = run.settings.reference
    if state.reference is None or chosen.every is None or step % chosen.every:
        return state
    given = state.reference, state.policy.params, run.programs.everywhere
    drawn = reference.follow(chosen, *given)
    return state._replace(reference=drawn)


def _lay_out(run: Learner, rollout: Rollout, rewards: Rewards) -> _Rollout:
    parts, M = run.settings.training.parts, run.settings.algorithm.minibatches
    most = rollout.completion.shape[-1]
    size = most, rollout.question.shape[1]
    packs = run.settings.training.packed
    known = lanes(run.mesh), M, parts, *size
    layout = packing.lay(rollout.length, *known, packs=packs)
    short = slice(None), slice(None), slice(layout.columns)
    is_token = np.arange(layout.columns) < rollout.length[:, :, None]
    everyone = np.ones(rollout.length.shape, bool)
    rewards = rewards._replace(is_completion=rewards.is_completion[short])
    natural = rewards, rollout.logp[short], everyone, rollout.number
    count = layout.stands.size // layout.split
    natural = jax.tree.map(lambda x: _filled(x, count), natural)
    questions = rollout.question, rollout.is_question
    texts = [packing.laid(x, layout) for x in questions]
    texts[1][:, :, -1] = True  # or an empty block would have nothing to begin with
    texts += laid_samples(layout, rollout.completion[short], is_token)
    shares = share(run, layout, scoring.Texts(*texts))
    return _Rollout(*crossing.up(natural, run.programs.rows), shares)


def laid_samples(layout: packing.Layout, *arrays: np.ndarray) -> list[np.ndarray]:
    return [packing.laid(x, layout, of_samples=True) for x in arrays]


def share(
    run: Learner, layout: packing.Layout, texts: scoring.Texts
) -> train_step.Share:
    """Texts that were laid out, on the devices: [M, ...]."""
    place = None
    if layout.place is not None and kernels.serves_bins(run.settings.model.numerics):
        place = crossing.up(layout.place, run.programs.cells)
    laid = crossing.up((texts, layout.order, layout.stands), run.programs.shares)
    return train_step.Share(*laid, place)


def lanes(mesh: Mesh) -> packing.Lanes:
    """Those that this process feeds."""
    return packing.Lanes(*sharding.own_lanes(mesh), crossing.agreed)


def _filled(x: np.ndarray, count: int) -> np.ndarray:
    """With questions that are nothing, up to so many."""
    return np.pad(x, [(0, count - len(x))] + [(0, 0)] * (x.ndim - 1))


def check_state(run: Learner, state: State):
    """Refuses one of another run, and one whose gradients are no numbers any more."""
    trained = {"policy": (run.policy, state.policy)}
    if run.critic is not None:
        trained["critic"] = run.critic, state.critic
    for name, (made, held) in trained.items():
        tree.need_alike(f"the {name}'s state", held, made.state)
        optimizers.check(run.settings.optimizer, held.optimizer)
