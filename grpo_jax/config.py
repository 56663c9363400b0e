"""An experiment's settings, their meanings and defaults: section by section.

Nested frozen dataclasses, checked when they are made (see `section`). The comment
behind a field is its help text. Choices are Literals beside the fields; the functions
they name stand in one dict beside those functions.
"""

import dataclasses
from typing import Any, Literal

from grpo_jax.algorithm import KL as KL
from grpo_jax.algorithm import Advantage as Advantage
from grpo_jax.algorithm import Algorithm as Algorithm
from grpo_jax.algorithm import Correction as Correction
from grpo_jax.algorithm import Rejection as Rejection
from grpo_jax.data.settings import Data as Data
from grpo_jax.models.settings import Model as Model
from grpo_jax.rewards.settings import MODEL
from grpo_jax.rewards.settings import Rewarding as Rewarding
from grpo_jax.rewards.settings import RewardModel as RewardModel
from grpo_jax.sampling.settings import Sampling as Sampling
from grpo_jax.section import Refused, Section
from grpo_jax.training import DPO as DPO
from grpo_jax.training import RFT as RFT
from grpo_jax.training import SFT as SFT
from grpo_jax.training import Critic as Critic
from grpo_jax.training import Evaluation as Evaluation
from grpo_jax.training import Groups as Groups
from grpo_jax.training import Iterative as Iterative
from grpo_jax.training import Keep as Keep
from grpo_jax.training import Optimizer as Optimizer
from grpo_jax.training import Reference as Reference
from grpo_jax.training import Reward as Reward
from grpo_jax.training import Training as Training

Stage = Literal["sft", "rft", "dpo", "reward", "online"]


@dataclasses.dataclass(frozen=True)
class Config(Section):
    """An experiment."""

    seed: int = 0  # every random draw and the order of the data follow from it
    stages: tuple[Stage, ...] = ("online",)  # what is learned by, one after another
    model: Model = Model()
    data: Data = Data()
    rewards: Rewarding = Rewarding()
    reward_model: RewardModel = RewardModel()
    algorithm: Algorithm = Algorithm()
    groups: Groups = Groups()
    sampling: Sampling = Sampling()
    sft: SFT = SFT()
    rft: RFT = RFT()
    dpo: DPO = DPO()
    reward: Reward = Reward()
    iterative: Iterative = Iterative()
    optimizer: Optimizer = Optimizer()
    reference: Reference = Reference()
    critic: Critic = Critic()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    keep: Keep = Keep()

    @property
    def makes_several(self) -> bool:
        """Whether it takes several runs: see `iterative`."""
        return self.iterative.rounds > 0 or self.stages[-2:] == ("reward", "online")

    @property
    def judges_answers(self) -> bool:
        """Whether the policy is asked between rounds, for a judge to learn from it."""
        is_made = self.reward_model.name is not None or "reward" in self.stages
        rounds = self.iterative
        return rounds.renews_model or (rounds.rounds > 0 and not is_made)

    def of_stage(self, name: str) -> Any:
        """The section that says how many steps a stage has."""
        return self.training if name == "online" else getattr(self, name)

    def check(self):
        rule = "it must lie in [0, 2**32)"
        self.need("seed", 0 <= self.seed < 2**32, rule, "Try 0.")
        rule = "sampling.temperature is 0; training draws from softmax(logits/T)"
        self.need("sampling", self.sampling.temperature > 0, rule, "Make it positive.")
        B, M = self.training.batch_size, self.algorithm.minibatches
        rule = f"algorithm.minibatches is {M}, and {B} questions make no {M} equal ones"
        self.training.need("batch_size", B % M == 0, rule, f"{B + -B % M} would do.")
        self._check_stages()
        self._check_reward()
        self._check_reward_model()
        self._check_iterative()
        self._check_groups()
        self._check_steps()
        self._check_reference()
        rule = "only algorithm.advantage.estimator 'gae' has a critic"
        is_read = self.algorithm.has_critic or self.critic == Critic()
        self.need("critic", is_read, rule, "Leave critic.* alone.")

    def _check_stages(self):
        rule = "a run has at least one stage, and each once"
        once = len(set(self.stages)) == len(self.stages) > 0
        self.need("stages", once, rule, "Try online.")
        reason = f"stages are {', '.join(self.stages)}"
        is_online = "online" in self.stages
        self.need_read("groups", is_online, reason, "a stage online")
        self.optimizer.need_read("learning_rate", is_online, reason, "a stage online")
        for name in ("steps", "packed"):
            self.training.need_read(name, is_online, reason, "a stage online")
        told = self.algorithm.advantage.correct_above
        plain = dataclasses.replace(
            Algorithm(), advantage=Advantage(correct_above=told)
        )
        rule = f"{reason}, and nothing reads it"
        holds = is_online or self.algorithm == plain
        remedy = "Leave algorithm.* alone, but for advantage.correct_above."
        self.need("algorithm", holds, rule, remedy)
        for name in ("sft", "rft", "dpo", "reward"):
            is_read = name in self.stages
            is_read |= name == "reward" and self.iterative.rounds > 0
            self.need_read(name, is_read, reason, f"a stage {name}")

        chosen = self.algorithm.advantage
        asks = chosen.estimator == "indicator" or {"rft", "dpo"} & set(self.stages)
        asks = asks or self.rewards.cosine > 0
        reason = f"{chosen.dotted('estimator')} {chosen.estimator!r} does not read it"
        readers = "indicator, rewards.cosine, or a stage rft or dpo"
        chosen.need_read("correct_above", bool(asks), reason, readers)
        self._check_warmup()
        self._check_rewards()

    def _check_warmup(self):
        """The last stage may go on, with more steps or in rounds, where no schedule has
        an end: so it may be shorter so far."""
        algorithm, warmup = self.algorithm, self.optimizer.warmup
        goes_on = self.optimizer.schedule == "constant"
        for name in self.stages[:-1] if goes_on else self.stages:
            of_step = algorithm.mu * algorithm.minibatches if name == "online" else 1
            updates = self.of_stage(name).steps * of_step
            rule = f"stage {name} has {updates} updates and would not get beyond it"
            holds = warmup < updates or warmup == 0
            self.optimizer.need("warmup", holds, rule, "Make it shorter.")

    def _check_rewards(self):
        chosen, stages = self.rewards, ", ".join(self.stages)
        for name in ("overlong", "repetition", "cosine", "truncated"):
            is_online = "online" in self.stages
            reason = f"stages are {stages}, and a reward of tokens is for online"
            chosen.need_read(name, is_online, reason, "a stage online")
        for name in ("overlong", "cosine"):
            rule = f"it must be at most sampling.max_new, {self.sampling.max_new}"
            fits = getattr(chosen, name) <= self.sampling.max_new
            chosen.need(name, fits, rule, "Shorten it.")
        runs = "code" in chosen.functions or self.data.name == "humaneval"
        reason = "no program is run: rewards.functions has no 'code'"
        for name in ("program_seconds", "program_memory"):
            chosen.need_read(name, runs, reason, "that function, or humaneval")
        rule = f"it must be below rewards.seconds, {chosen.seconds:g}"
        fits = chosen.program_seconds < chosen.seconds or not runs
        chosen.need("program_seconds", fits, rule, "Raise that.")
        weights = self.algorithm.advantage.reward_weights
        rule = "all rewards would count nothing"
        holds = not weights or any(weights)
        remedy = "Give one that counts a weight, or none at all."
        self.algorithm.advantage.need("reward_weights", holds, rule, remedy)

    def _check_reward(self):
        """A run that makes a reward model does nothing else, and asks no questions."""
        if "reward" not in self.stages:
            return
        rule = "what becomes of stage reward is no policy any more"
        remedy = "Let it be the only one, or online the next: it is judged by that."
        several = self.makes_several
        self.need("stages", self.stages == ("reward",) or several, rule, remedy)
        if several:
            rule = "stage reward makes a model, and rewards.functions does not ask it"
            asks, remedy = self.rewards.asks_a_model, "Name model there."
            self.need("stages", asks, rule, remedy)
            rule = "a judge is made directly ahead of what it judges"
            last = self.stages[-2:] == ("reward", "online")
            self.need("stages", last, rule, "Put reward next to online.")
            by_step = self.reward.labels == "steps" or self.rewards.steps != MODEL
            rule = "rewards.steps 'model' asks for a reward of each step"
            self.reward.need("labels", by_step, rule, "Set it to steps.")
            rule = "the stage reward makes one"
            named = self.reward_model.name is not None
            self.reward_model.need("name", not named, rule, "Leave one of both out.")
            return
        rule = "stages are reward, and nothing reads it"
        for name in ("sampling", "rewards", "training"):
            chosen, plain = getattr(self, name), type(getattr(self, name))()
            if name == "training":
                on = ("mesh", "parts", "deterministic")
                known = {k: getattr(chosen, k) for k in on}
                plain = dataclasses.replace(plain, **known)
            remedy = f"Leave {name}.* alone."
            self.need(name, chosen == plain, rule, remedy)
        for name in ("answer", "demonstration", "shots", "wrong"):
            self.data.need_read(name, False, rule, "another stage")
        for name in ("samples", "others"):
            self.evaluation.need_read(name, False, rule, "another stage")

    def _check_reward_model(self):
        reads, of_outputs = self.rewards.asks_a_model, MODEL in self.rewards.functions
        reason = "model is not among rewards.functions"
        readers = "rewards.functions model"
        either = f"{readers}, or rewards.steps model"
        is_none = f"{reason}, and not rewards.steps"
        self.need_read("reward_model", reads, is_none, either)
        self.reward_model.need_read("of_steps", of_outputs, reason, readers)
        named = self.reward_model.name is not None or not reads
        named |= self.makes_several
        rule = f"rewards.{'functions names' if of_outputs else 'steps is'} model"
        remedy = "Name the run of a reward model, like runs/reward_model."
        self.reward_model.need("name", named, rule, remedy)
        asks = {"rft", "dpo"} & set(self.stages) or "online" not in self.stages
        rule = "only a stage online asks a reward model"
        remedy = "Leave model out of rewards.functions, or other stages out."
        self.rewards.need("functions", not (of_outputs and asks), rule, remedy)
        rule = "what is learned ahead of a judge is learned without rewards"
        apart = not (self.makes_several and {"rft", "dpo"} & set(self.stages))
        remedy = "Make another run of such stages, and name it in model.name."
        self.need("stages", apart, rule, remedy)

    def _check_iterative(self):
        chosen = self.iterative
        if not chosen.rounds:
            return
        rule = "its rounds are of a stage online, the last of the list"
        holds = self.stages[-1] == "online"
        chosen.need("rounds", holds, rule, "Make it the last of stages.")
        rule = "rewards.functions has no model, and no rule is made anew"
        remedy = "Name model there."
        chosen.need("rounds", self.rewards.asks_a_model, rule, remedy)
        draws = self.judges_answers
        rule = "whole completions are judged between rounds"
        holds = self.reward.labels == "correct" or not draws
        self.reward.need("labels", holds, rule, "Try that.")
        rule = "between rounds it would have to begin again"
        holds = self.optimizer.schedule == "constant"
        self.optimizer.need("schedule", holds, rule, "Set it to constant.")
        rule = "a judge is made of whole completions, and all that it does is measure"
        holds = self.algorithm.advantage.supervision == "outcome" or not draws
        chosen.need("rounds", holds, rule, "Set supervision to outcome.")
        reason = "a judge is there, and it is not made anew"
        for name in ("questions", "samples"):
            chosen.need_read(name, draws, reason, "to renew it")
        read = draws or self.reward == Reward() or "reward" in self.stages
        self.need("reward", read, reason, "Leave reward.* alone.")
        reason = "judges that are made here score whole completions"
        self.reward_model.need_read("of_steps", not draws, reason, "one that is given")
        rule = "its rule holds while one judges, and another is made for each round"
        equal = self.groups.allocation == "equal" or not chosen.renews_model
        self.groups.need("allocation", equal, rule, "Set it to equal.")
        self._check_renewed_reference()

    def _check_renewed_reference(self):
        chosen = self.iterative
        has_one = self.algorithm.needs_reference and not self.model.lora.rank
        rule = "there is no reference that could follow, or adapters are trained"
        remedy = "Set it to model or none, or set algorithm.beta."
        holds = has_one or not chosen.renews_reference
        chosen.need("renews", holds, rule, remedy)
        rule = "it follows at the end of each round, by iterative.renews"
        holds = self.reference.every is None or not chosen.renews_reference
        self.reference.need("every", holds, rule, "Leave it at None.")

    def _check_groups(self):
        G, chosen = self.algorithm.group_size, self.groups
        equal = chosen.allocation == "equal"
        rows = self.sampling.rows
        rule = f"it must hold a whole group, of algorithm.group_size, {G}"
        self.sampling.need("rows", rows is None or rows >= G, rule, "Raise it.")
        asking = [x for x in (self.rft, self.dpo) if x.path in self.stages]
        asking += [self.iterative] * self.judges_answers
        for one in asking:
            rule = f"sampling.rows, {rows}, must hold all answers to a question"
            fits = rows is None or one.samples <= rows
            one.need("samples", fits, rule, "Raise that.")
        rule = f"algorithm.group_size, {G}, is the most that a question gets"
        chosen.need("mean", equal or chosen.mean <= G, rule, "Raise that.")
        weighed = equal or self.algorithm.loss_mean == "per_question"
        rule = "questions with more samples would count more"
        remedy = "Set algorithm.loss_mean to per_question."
        chosen.need("allocation", weighed, rule, remedy)
        compared = self.algorithm.advantage
        unbiased = compared.estimator, compared.scale_rewards
        rule = "its rule holds for gradients that no number of samples biases"
        remedy = (
            "Set algorithm.advantage to estimator leave_one_out, scale_rewards none."
        )
        holds = equal or unbiased == ("leave_one_out", "none")
        chosen.need("allocation", holds, rule, remedy)
        rule = "groups.mixed drops what it would learn from: groups that agree"
        holds = equal or not chosen.mixed
        chosen.need("allocation", holds, rule, "Choose one of the two.")
        rule = f"a group of {G} sample is never mixed"
        chosen.need("mixed", G > 1 or not chosen.mixed, rule, "Raise its size.")

    def _check_steps(self):
        """What process supervision reads, and what it would silently ignore."""
        chosen = self.algorithm.advantage
        by_step = chosen.supervision == "process"
        reason = f"{chosen.dotted('supervision')} is {chosen.supervision!r}"
        self.rewards.need_read("steps", by_step, reason, "process")
        reason += ", which learns from rewards of steps, and not of a whole output"
        for name in ("overlong", "repetition", "cosine", "clip"):
            self.rewards.need_read(name, not by_step, reason, "outcome")
        rule = f"{reason}; its rule is for these"
        equal = not by_step or self.groups.allocation == "equal"
        self.groups.need("allocation", equal, rule, "Set it to equal.")

    def _check_reference(self):
        plain = self.reference == Reference()
        rule = "nothing in algorithm.* compares the policy with a reference"
        remedy = "Leave reference.* alone, or set algorithm.beta."
        compares = self.algorithm.needs_reference or "dpo" in self.stages
        self.need("reference", plain or compares, rule, remedy)
        rule = "with adapters the reference is the model without them, which stays"
        has_adapters = self.model.lora.rank > 0
        remedy = "Leave reference.* alone."
        self.need("reference", plain or not has_adapters, rule, remedy)


def of(values: dict[str, Any], section: type = Config) -> Any:
    """The settings that `dataclasses.asdict` wrote as JSON, checked again.

    What an older version did not know is at its default; what this one does not know is
    refused.
    """
    known = {field.name: field.type for field in dataclasses.fields(section)}
    unknown = ", ".join(sorted(values.keys() - known.keys()))
    if unknown:
        where = f"{section.path}." * bool(section.path)
        raise Refused(
            f"{where}{unknown} is no setting of this version, but of that which wrote "
            "the file. Use that one."
        )
    made = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(known[name]):
            value = of(value, known[name])
        made[name] = tuple(value) if isinstance(value, list) else value
    return section(**made)


def nested(named: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": x} → {"a": {"b": x}}: what has dotted names, as a tree."""
    out: dict[str, Any] = {}
    for path, value in named.items():
        *sections, name = path.split(".")
        at = out
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return out
