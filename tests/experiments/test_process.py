"""The two arms of the experiment differ in what is rewarded alone."""

from grpo_jax import experiment

PATH = "experiments/process.py"
OUTCOME = ["--algorithm.advantage.supervision", "outcome", "--rewards.steps", "None"]


def test_the_command_of_the_other_arm_changes_what_is_rewarded_alone():
    module = experiment.load(PATH)
    assert " ".join(OUTCOME) in " ".join(module.__doc__.replace("\\", "").split())
    ours, theirs = (
        experiment.flat(experiment.parse(module, words).config)
        for words in ([], OUTCOME)
    )
    assert {k: (ours[k], theirs[k]) for k in ours if ours[k] != theirs[k]} == {
        "algorithm.advantage.supervision": ("process", "outcome"),
        "rewards.steps": ("chain", None),
    }
