"""Settings refuse what they cannot mean, by name, value, rule and remedy."""

import dataclasses
import inspect
import re

import pytest

from grpo_jax import config, presets
from grpo_jax.models.settings import Lora
from grpo_jax.section import Refused

NAN = float("nan")
BY_STEP = config.Algorithm(advantage=config.Advantage(supervision="process"))
REFUSED = [  # section, values, what the message must hold
    (config.Algorithm, {"group_size": 1}, "algorithm.group_size is 1; .*2 or more"),
    (config.Algorithm, {"group_size": 0}, "algorithm.group_size is 0; .*2 or more"),
    (config.Algorithm, {"mu": 0}, "algorithm.mu is 0; .*once"),
    (config.Algorithm, {"beta": -0.1}, "algorithm.beta is -0.1; .*not negative"),
    (config.Algorithm, {"beta": NAN}, "algorithm.beta is nan; .*finite"),
    (config.Algorithm, {"beta": float("inf")}, "algorithm.beta is inf; .*finite"),
    (config.Algorithm, {"clip_low": -0.1}, "clip_low is -0.1; .*not negative"),
    (config.Algorithm, {"clip_low": 1.1}, "clip_low is 1.1; no ratio is below 0"),
    (config.Algorithm, {"ratio_max": 1.1}, "ratio_max is 1.1; .*clip_high"),
    (config.Algorithm, {"dual_clip": 1.0}, "dual_clip is 1.0; .*on policy"),
    (
        config.Algorithm,
        {"surrogate": "cispo", "dual_clip": 3.0},
        "dual_clip is 3.0; algorithm.surrogate 'cispo' does not read it",
    ),
    (
        config.Algorithm,
        {"surrogate": "cispo", "clip_high": 0.28},
        "clip_high is 0.28; .*'cispo' does not read it. Leave it at 0.2, or choose",
    ),
    (
        config.Algorithm,
        {"surrogate": "cispo", "weight_low": 1.2, "weight_high": 0.8},
        "weight_low is 1.2; it must be below algorithm.weight_high, 0.8",
    ),
    (config.Algorithm, {"loss_mean": "over_constant"}, "Set algorithm.loss_constant"),
    (config.Algorithm, {"loss_constant": 5}, "loss_constant is 5; .*does not read"),
    (config.Algorithm, {"top_entropy": 0.0}, r"top_entropy is 0.0; .*\(0, 1\]"),
    (config.Algorithm, {"top_entropy": 1.1}, "top_entropy is 1.1"),
    (config.Algorithm, {"log_ratio_limit": 0.0}, "log_ratio_limit is 0.0; .*positive"),
    (
        config.Algorithm,
        {"surrogate": "clip_cov", "cov_low": 5.0, "cov_high": 5.0},
        "cov_low is 5.0; it must be below algorithm.cov_high",
    ),
    (
        config.Algorithm,
        {"beta": 0.0, "kl": config.KL(target=0.1)},
        "algorithm.beta is 0.0; the controller multiplies",
    ),
    (config.KL, {"horizon": 10.0}, "algorithm.kl.horizon is 10.0; .*target"),
    (config.KL, {"limit": -1.0}, "algorithm.kl.limit is -1.0; .*positive"),
    (
        config.KL,
        {"placed": "reward", "gradient": "ratio"},
        "algorithm.kl.gradient is 'ratio'; .*'reward' does not read it",
    ),
    (config.Advantage, {"eps": -1e-6}, "algorithm.advantage.eps is -1e-06; .*negative"),
    (config.Advantage, {"gamma": 1.1}, r"gamma is 1.1; it must lie in \[0, 1\]"),
    (config.Advantage, {"estimator": "rank"}, "scale_rewards is 'group'; .*'rank'"),
    (
        config.Advantage,
        {"scale_rewards": "none", "ddof": 1},
        "ddof is 1; .*no standard deviation",
    ),
    (
        config.Advantage,
        {"supervision": "process", "estimator": "length_weighted"},
        "estimator is 'length_weighted'; .*pools steps",
    ),
    (
        config.Advantage,
        {"supervision": "process", "group_by": "type"},
        "group_by is 'type'; .*one question",
    ),
    (config.Advantage, {"supervision": "process", "gamma": 0.9}, "gamma is 0.9"),
    (
        config.Advantage,
        {"supervision": "process", "normalise_each": True},
        "normalise_each is True; .*per step",
    ),
    (
        config.Advantage,
        {"estimator": "none", "scale_rewards": "none", "whiten": "rows"},
        "whiten is 'rows'; .*per token",
    ),
    (
        config.Advantage,
        {"normalise_each": True, "scale_rewards": "none"},
        "normalise_each is True; without a scale",
    ),
    (
        config.Correction,
        {"level": "token", "mode": "mask", "high": None},
        "mode is 'mask'; neither .*low nor high",
    ),
    (
        config.Algorithm,
        {"surrogate": "reinforce", "log_ratio_limit": 5.0},
        "log_ratio_limit is 5.0; .*'reinforce' does not read it",
    ),
    (
        config.Algorithm,
        {"group_size": 1, "advantage": config.Advantage(estimator="given")},
        "scale_rewards is 'group'; algorithm.group_size is 1",
    ),
    (
        config.Algorithm,
        {"surrogate": "gmpo", "loss_mean": "per_token"},
        "loss_mean is 'per_token'; gmpo has one loss for a row",
    ),
    (
        config.Algorithm,
        {"importance_level": "sequence", "top_entropy": 0.2},
        "top_entropy is 0.2; the ratio of a whole row",
    ),
    (
        config.Algorithm,
        {
            "kl": config.KL(placed="reward"),
            "advantage": config.Advantage(estimator="indicator", scale_rewards="none"),
        },
        "algorithm.kl.placed is 'reward'; indicator and nonzero ask",
    ),
    (
        config.Algorithm,
        {
            "kl": config.KL(placed="reward"),
            "advantage": config.Advantage(scale_rewards="nonzero"),
        },
        "algorithm.kl.placed is 'reward'; indicator and nonzero ask",
    ),
    (
        config.Algorithm,
        {
            "kl": config.KL(placed="reward"),
            "advantage": config.Advantage(supervision="process"),
        },
        "algorithm.kl.placed is 'reward'; it is taken from an output's",
    ),
    (
        config.Algorithm,
        {
            "kl": config.KL(placed="reward"),
            "advantage": config.Advantage(normalise_each=True),
        },
        "algorithm.kl.placed is 'reward'; it is taken from an output's",
    ),
    (
        config.Advantage,
        {"supervision": "process", "reward_weights": (2.0,)},
        "reward_weights is .2.0,.; .*one question's steps",
    ),
    (
        config.Advantage,
        {"estimator": "softmax", "scale_rewards": "none", "reward_temperature": 0.0},
        "reward_temperature is 0.0; .*positive",
    ),
    (config.Correction, {"mode": "mask"}, "mode is 'mask'; .*level 'none'"),
    (
        config.Correction,
        {"level": "token", "low": 3.0},
        "low is 3.0; it must be below algorithm.correction.high, 2.0",
    ),
    (config.Rejection, {"high": 2.0}, "high is 2.0; .*statistic 'none'"),
    (config.Rejection, {"statistic": "token"}, "nothing would be rejected"),
    (
        config.Rejection,
        {"statistic": "token", "measure": "k2", "low": 0.1, "high": 1.0},
        "low is 0.1; k2 and k3 are 0",
    ),
    (config.Sampling, {"temperature": -1.0}, "sampling.temperature is -1.0; a temper"),
    (config.Sampling, {"temperature": 1e-5}, r"\(greedy\), or 1e-4 and more"),
    (config.Sampling, {"top_p": 0.0}, r"sampling.top_p is 0.0; it is a share in \(0"),
    (config.Sampling, {"min_p": 1.5}, "sampling.min_p is 1.5; it is a share"),
    (config.Sampling, {"top_k": 0}, "sampling.top_k is 0; it must be positive"),
    (config.Sampling, {"max_new": 0}, "sampling.max_new is 0; it must be positive"),
    (config.Sampling, {"min_new": 257}, "sampling.min_new is 257; it must lie in"),
    (config.Sampling, {"stop_strings": ("a", "")}, "an empty string would end every"),
    (
        config.Sampling,
        {"temperature": 0.0, "top_k": 3},
        "sampling.top_k is 3; at temperature 0 nothing is drawn",
    ),
    (
        config.Config,
        {"rewards": config.Rewarding(steps="chain")},
        "rewards.steps is 'chain'; algorithm.advantage.supervision is 'outcome'",
    ),
    (
        config.Config,
        {"rewards": config.Rewarding(overlong=8), "algorithm": BY_STEP},
        "rewards.overlong is 8; .*'process', which learns from rewards of steps",
    ),
    (
        config.Config,
        {"rewards": config.Rewarding(clip=(0.0, 1.0)), "algorithm": BY_STEP},
        r"rewards.clip is \(0.0, 1.0\); .*'process', which learns from rewards",
    ),
    (
        config.Config,
        {
            "groups": config.Groups(allocation="neyman"),
            "algorithm": dataclasses.replace(
                BY_STEP,
                loss_mean="per_question",
                advantage=config.Advantage(
                    supervision="process",
                    estimator="leave_one_out",
                    scale_rewards="none",
                ),
            ),
        },
        "groups.allocation is 'neyman'; .*'process', .* its rule is for these",
    ),
    (
        config.Config,
        {"sampling": config.Sampling(temperature=0.0)},
        "temperature is 0; training draws",
    ),
    (config.Optimizer, {"learning_rate": -1e-6}, "learning_rate is -1e-06; .*positive"),
    (config.Optimizer, {"b1": 1.0}, r"optimizer.b1 is 1.0; it must lie in \[0, 1\)"),
    (config.Optimizer, {"warmup": -1}, "optimizer.warmup is -1; it must not be neg"),
    (config.Optimizer, {"clip_norm": 0.0}, "clip_norm is 0.0; it must be positive"),
    (
        config.Optimizer,
        {"final_rate": 0.5},
        "final_rate is 0.5; optimizer.schedule 'constant' does not read it",
    ),
    (
        config.Optimizer,
        {"name": "sgd", "b1": 0.5},
        "b1 is 0.5; optimizer.name 'sgd' does not read it. .* adamw or lion",
    ),
    (config.Training, {"steps": 0}, "training.steps is 0; it must be positive"),
    (config.Data, {"split": "test"}, "split is 'test'; .* 'sums', which has no splits"),
    (config.Data, {"name": "a.jsonl", "test": "test"}, "test is 'test'; .*no splits"),
    (config.Data, {"name": "a.parquet", "split": "b"}, "split is 'b'; .*no splits"),
    (config.Data, {"question": "q"}, "question is 'q'; .*whose columns are known"),
    (config.Data, {"name": "gsm8k", "answer": "a"}, "answer is 'a'; .*are known"),
    (
        config.Data,
        {"name": "gsm8k", "test": "test", "held_out": 0.2},
        "held_out is 0.2; data.test names a split",
    ),
    (config.Config, {"seed": -1}, r"seed is -1; it must lie in \[0, 2\*\*32\)"),
]
WRONG_TYPES = [
    (config.Algorithm, {"beta": "0.1"}, "beta is '0.1'; it must be of type float"),
    (config.Algorithm, {"group_size": 8.0}, "group_size is 8.0; .*type int"),
    (config.Algorithm, {"group_size": True}, "group_size is True; .*type int"),
    (config.Algorithm, {"surrogate": "ppo"}, "surrogate is 'ppo'; .*one of 'clipped'"),
    (config.Algorithm, {"kl": {"estimator": "k2"}}, "algorithm.kl is"),
    (
        config.Advantage,
        {"reward_weights": [1.0]},
        r"reward_weights is \[1.0\]; .*tuple",
    ),
    (config.Advantage, {"reward_weights": (1.0, NAN)}, "reward_weights .*finite"),
]


def ids(case):
    return str(case) if isinstance(case, dict) else ""


@pytest.mark.parametrize(("section", "values", "message"), REFUSED, ids=ids)
def test_a_value_that_cannot_be_is_refused(section, values, message):
    with pytest.raises(Refused, match=message):
        section(**values)


@pytest.mark.parametrize(("section", "values", "message"), WRONG_TYPES, ids=ids)
def test_a_value_of_the_wrong_type_is_refused(section, values, message):
    # The shape checker of the tests would refuse it first; users do not run under it.
    made = object.__new__(section)
    for field in dataclasses.fields(section):
        object.__setattr__(made, field.name, values.get(field.name, field.default))
    with pytest.raises(Refused, match=message):
        section.__post_init__(made)


def test_a_warmup_is_shorter_than_every_stage():
    """Of updates, of which a step of stage online has μ · M; but for a last stage that
    may go on."""
    warm = config.Optimizer(warmup=6, schedule="linear")
    few = config.Training(steps=2, batch_size=8)
    with pytest.raises(Refused, match=r"optimizer\.warmup is 6; stage online has 2 up"):
        config.Config(optimizer=warm, training=few)
    four = config.Algorithm(mu=2, minibatches=2)
    config.Config(optimizer=warm, training=few, algorithm=four)
    short = {"stages": ("sft", "online"), "sft": config.SFT(steps=6)}
    with pytest.raises(Refused, match="stage sft has 6 updates and would not get beyo"):
        config.Config(optimizer=warm, **short)
    config.Config(optimizer=config.Optimizer(warmup=5), **short)
    config.Config(optimizer=config.Optimizer(warmup=6), training=few)
    with pytest.raises(Refused, match="stage sft has 6 updates"):
        config.Config(optimizer=config.Optimizer(warmup=6), **short)
    config.Config(training=config.Training(steps=1))  # none at all is no warm-up


def test_an_int_may_be_written_for_a_float():
    made = config.Algorithm(beta=1, gamma_positive=(2.0, 3.0))
    assert made.beta == 1.0 and type(made.beta) is float


def test_a_single_sample_is_fine_where_nothing_compares_samples():
    advantage = config.Advantage(estimator="given", scale_rewards="none")
    assert config.Algorithm(group_size=1, advantage=advantage).group_size == 1
    pooled = config.Advantage(group_by="level")
    assert config.Algorithm(group_size=1, advantage=pooled).group_size == 1


def test_the_published_names_and_defaults():
    made = config.Config()
    assert made.algorithm.group_size == 8
    assert made.algorithm.beta == 0.01
    assert made.algorithm.clip_low == made.algorithm.clip_high == 0.2
    assert made.sampling.temperature == 0.7


def test_every_field_says_what_it_means():
    sections = [c for c in config.Section.__subclasses__() if c.path != "spec"]
    for cls in sections:
        text = "".join(map(inspect.getsource, cls.__mro__[:-2]))
        for field in dataclasses.fields(cls):
            if not dataclasses.is_dataclass(field.type):
                assert re.search(rf"\n    {field.name}: [^\n]*( =|\()", text)
                lines = text[text.index(f"\n    {field.name}: ") :].split("\n")[1:6]
                assert any("# " in line for line in lines), field.name


LEAVE_ONE_OUT = config.Advantage(estimator="leave_one_out", scale_rewards="none")
NEYMAN = {
    "groups": config.Groups(allocation="neyman", mean=4),
    "algorithm": config.Algorithm(
        group_size=8, loss_mean="per_question", advantage=LEAVE_ONE_OUT
    ),
}
OF_SFT = {"stages": ("sft",)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stages": ("sft", "online", "sft")}, "at least one stage, and each once"),
        (
            {"algorithm": config.Algorithm(group_size=8, loss_mean="per_question")},
            "allocation is 'neyman'; its rule holds .*Set algorithm.advantage",
        ),
        (
            {"groups": config.Groups(allocation="neyman", mean=4, mixed=True)},
            "allocation is 'neyman'; groups.mixed drops",
        ),
        (
            {
                "groups": config.Groups(mixed=True),
                "algorithm": presets.algorithm("remax"),
            },
            "mixed is True; a group of 1 sample is never mixed",
        ),
        ({"sampling": config.Sampling(rows=7)}, "rows is 7; it must hold a whole"),
        (
            OF_SFT | {"training": config.Training(steps=9)},
            "training.steps is 9; stages are sft",
        ),
        (
            OF_SFT | {"optimizer": config.Optimizer(learning_rate=1e-4)},
            "optimizer.learning_rate is 0.0001; stages are sft",
        ),
        (
            OF_SFT | {"algorithm": config.Algorithm(mu=2)},
            "stages are sft, and nothing reads it. Leave algorithm",
        ),
        (OF_SFT | {"groups": config.Groups(mixed=True)}, "stages are sft. Leave"),
    ],
)
def test_what_no_stage_could_use_is_refused(changed, message):
    config.Config(**NEYMAN)
    given = changed if "stages" in changed else NEYMAN | changed
    with pytest.raises(Refused, match=message):
        config.Config(**given)


HUMANEVAL = {"data": config.Data(name="humaneval")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overlong": -1}, "overlong is -1; a number of tokens is not negative"),
        ({"repetition": -1}, "repetition is -1; a number of tokens"),
        ({"overlong": 300}, "overlong is 300; it must be at most sampling.max_new"),
        ({"cosine": 300}, "cosine is 300; it must be at most sampling.max_new"),
        ({"cosine_right": (2.0, 1.0)}, "cosine_right is .*; rewards.cosine is 0"),
        ({"clip": (1.0, 1.0)}, "clip is .* must be below the second"),
        ({"most_faults": 1.1}, "most_faults is 1.1; it is a share"),
        ({"most_unscored": -0.1}, "most_unscored is -0.1; it is a share"),
        ({"program_seconds": 2.0}, "program_seconds is 2.0; no program is run"),
        ({"program_memory": 64}, "program_memory is 64; no program is run"),
        (
            {"functions": ("code",), "seconds": 3.0},
            "program_seconds is 5.0; it must be below rewards.seconds, 3",
        ),
        ({"program_memory": 0}, "program_memory is 0; it must be positive"),
    ],
)
def test_rewards_that_cannot_be_are_refused(given, message):
    sampling = config.Sampling(max_new=256)
    with pytest.raises(Refused, match=message):
        config.Config(rewards=config.Rewarding(**given), sampling=sampling)


def test_programs_of_known_data_have_limits_without_a_function():
    config.Config(**HUMANEVAL, rewards=config.Rewarding(program_memory=64))


def test_rewards_of_tokens_are_online_s():
    with pytest.raises(Refused, match="repetition is 2; stages are sft"):
        config.Config(**OF_SFT, rewards=config.Rewarding(repetition=2))


def test_weights_that_weigh_nothing_are_refused():
    advantage = config.Advantage(reward_weights=(0.0, 0.0))
    algorithm = config.Algorithm(advantage=advantage)
    with pytest.raises(Refused, match="all rewards would count nothing"):
        config.Config(algorithm=algorithm)
    config.Advantage(reward_weights=(0.0, -1.0))  # one may be only logged


def test_what_is_right_for_cosine_can_be_said():
    algorithm = config.Algorithm(advantage=config.Advantage(correct_above=0.9))
    config.Config(algorithm=algorithm, rewards=config.Rewarding(cosine=16))


ROUNDS = {"iterative": config.Iterative(rounds=2)}
OF_REWARD = {"stages": ("reward",)}
ASKING = {"rewards": config.Rewarding(functions=("model",))}
JUDGE = {"reward_model": config.RewardModel(name="runs/rm")}
IN_ROUNDS = ROUNDS | ASKING
BY_STEPS = {"algorithm": BY_STEP, "rewards": config.Rewarding(steps="model")}
OF_STEPS = {"reward": config.Reward(labels="steps")}
STEPS_BY_MODEL = {"rewards": config.Rewarding(steps="model"), "algorithm": BY_STEP}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"stages": ("sft", "reward")},
            "is no policy any more. Let it be the only one",
        ),
        (
            {"stages": ("reward", "online")},
            "makes a model, and rewards.functions does not ask it",
        ),
        (
            ASKING | JUDGE | {"stages": ("reward", "online")},
            "name is 'runs/rm'; the stage reward makes one",
        ),
        (
            ASKING | {"stages": ("reward", "sft", "online")},
            "is no policy any more. Let it be the only one, or online the next",
        ),
        (
            IN_ROUNDS | {"stages": ("reward", "sft", "online")},
            "a judge is made directly ahead of what it judges",
        ),
        (
            BY_STEPS | {"stages": ("reward", "online")},
            "reward.labels is 'correct'; rewards.steps 'model' asks",
        ),
        (
            BY_STEPS | OF_STEPS | {"stages": ("rft", "reward", "online")},
            "ahead of a judge is learned without rewards",
        ),
        ({"reward": config.Reward(steps=3)}, "reward is .* a stage reward"),
        (
            OF_REWARD | {"sampling": config.Sampling(max_new=9)},
            "stages are reward, and nothing reads it. Leave sampling",
        ),
        (OF_REWARD | {"rewards": config.Rewarding(workers=9)}, "Leave rewards"),
        (OF_REWARD | {"data": config.Data(wrong=0.5)}, "data.wrong is 0.5; stages are"),
        (
            OF_REWARD | {"evaluation": config.Evaluation(samples=2)},
            "evaluation.samples is 2; stages are reward",
        ),
        (JUDGE, "reward_model is .*; model is not among rewards.functions"),
        (ASKING, "reward_model.name is None; rewards.functions names model"),
        (
            ASKING | JUDGE | {"stages": ("rft", "online")},
            "only a stage online asks a reward model",
        ),
        (ASKING | JUDGE | {"stages": ("sft",)}, "only a stage online asks"),
        (STEPS_BY_MODEL, "reward_model.name is None; rewards.steps is model"),
        (
            {"rewards": config.Rewarding(steps="model")} | JUDGE,
            "rewards.steps is 'model'; algorithm.advantage.supervision is 'outcome'",
        ),
        (
            STEPS_BY_MODEL
            | {"reward_model": config.RewardModel(name="runs/rm", of_steps="least")},
            "of_steps is 'least'; model is not among rewards.functions",
        ),
        (
            {"rewards": config.Rewarding(steps="chain"), "algorithm": BY_STEP} | JUDGE,
            "reward_model is .*; model is not among rewards.functions, and not",
        ),
    ],
)
def test_what_has_to_do_with_reward_models_fits_together(changed, message):
    config.Config(**ASKING, **JUDGE)
    config.Config(**STEPS_BY_MODEL, **JUDGE, stages=("rft", "online"))
    both = config.Rewarding(steps="model", functions=("model",))
    least = config.RewardModel(name="runs/rm", of_steps="least")
    config.Config(rewards=both, algorithm=BY_STEP, reward_model=least)
    parts = config.Training(parts=2)
    config.Config(**OF_REWARD, training=parts, reward=config.Reward(steps=3))
    config.Config(**ASKING, stages=("sft", "reward", "online"))
    with pytest.raises(Refused, match=message):
        config.Config(**changed)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"good": "y"}, "reward.good is 'y'; reward.head 'scalar' does not read it"),
        ({"tag": "@"}, "reward.tag is '@'; reward.labels 'correct' does not read it"),
        ({"labels": "steps", "tag": " "}, "reward.tag is ' '; it is empty"),
        ({"head": "tokens", "bad": "+"}, "reward.good and bad are the same token"),
    ],
)
def test_what_a_reward_model_does_not_read_is_refused(values, message):
    with pytest.raises(Refused, match=message):
        config.Reward(**values)


LORA = {"model": config.Model(lora=Lora(rank=2))}
MANY = {"iterative": config.Iterative(rounds=1, samples=10)}
MANY |= {"algorithm": config.Algorithm(group_size=8)}
FOLLOWED = {"iterative": config.Iterative(rounds=2, renews="reference")}
KEPT = {"iterative": config.Iterative(rounds=2, renews="reference", samples=4)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (ROUNDS, "rounds is 2; rewards.functions has no model"),
        (
            IN_ROUNDS | {"stages": ("online", "sft")},
            "rounds is 2; its rounds are of a stage online, the last of the list",
        ),
        (
            IN_ROUNDS | {"reward": config.Reward(labels="steps")},
            "reward.labels is 'steps'; whole completions are judged between rounds",
        ),
        (
            IN_ROUNDS | {"optimizer": config.Optimizer(schedule="linear")},
            "schedule is 'linear'; between rounds it would have to begin again",
        ),
        (
            IN_ROUNDS | {"algorithm": config.Algorithm(beta=0.0)},
            "renews is 'both'; there is no reference .* Set it to model or none",
        ),
        (IN_ROUNDS | LORA, "renews is 'both'; there is no reference"),
        (
            IN_ROUNDS | {"algorithm": BY_STEP},
            "rounds is 2; a judge is made of whole completions",
        ),
        (
            IN_ROUNDS | {"sampling": config.Sampling(rows=9)} | MANY,
            "samples is 10; sampling.rows, 9, must hold",
        ),
        (
            IN_ROUNDS | {"reward_model": config.RewardModel(of_steps="least")},
            "of_steps is 'least'; judges that are made here score whole",
        ),
        (
            IN_ROUNDS | {"reference": config.Reference(every=3)},
            "reference.every is 3; it follows at the end of each round",
        ),
        (
            ASKING | JUDGE | KEPT,
            "samples is 4; a judge is there, and it is not made anew",
        ),
    ],
)
def test_rounds_are_of_a_policy_and_the_model_that_judges_it(changed, message):
    config.Config(**IN_ROUNDS, reward=config.Reward(steps=3))
    config.Config(**IN_ROUNDS, **JUDGE)
    config.Config(**ASKING, **KEPT)
    with pytest.raises(Refused, match=message):
        config.Config(**changed)


PREFERRED = {"reward": config.Reward(labels="preferences")}
FEW_ROWS = {"sampling": config.Sampling(rows=4)}
FEW_ROWS |= {"algorithm": config.Algorithm(group_size=4)}


@pytest.mark.parametrize(
    "given",
    [
        ASKING | PREFERRED | {"stages": ("reward", "online")},
        STEPS_BY_MODEL | JUDGE,
        STEPS_BY_MODEL | OF_STEPS | {"stages": ("reward", "online")},
        ASKING | JUDGE | FEW_ROWS,
    ],
)
def test_where_a_judge_stays_nothing_is_judged_between_rounds(given):
    """So it may be any judge; one that learns from answers judges whole ones."""
    config.Config(**FOLLOWED, **given)
    with pytest.raises(Refused, match=r"whole completions|must hold all answers"):
        config.Config(**ROUNDS, **given)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"renews": "none"}, "iterative.renews is 'none'; iterative.rounds is 0"),
        (
            {"rounds": 1, "renews": "reference", "replay": 0.2},
            "iterative.replay is 0.2; .* let the reward model be",
        ),
        ({"rounds": 1, "replay": 1.0}, "iterative.replay is 1.0; it is a share"),
        ({"rounds": -1}, "iterative.rounds is -1; .* is not negative"),
    ],
)
def test_what_rounds_do_not_read_is_refused(values, message):
    with pytest.raises(Refused, match=message):
        config.Iterative(**values)
