"""Questions as models are asked them, to the letter."""

import pytest

from grpo_jax.text import prompts, tokenizer


class Started(tokenizer.Bytes):
    start_ids = (256,)

    def chat(self, messages):
        return f"<{messages[0]['role']}>{messages[0]['content']}<answer>"


STEPS = "Please reason step by step, and put your final answer within \\boxed{}."


@pytest.mark.parametrize(
    ("instruction", "wrapping", "text"),
    [
        ("none", "raw", "1+1="),
        ("steps", "paper", f"User: 1+1=\n{STEPS}\n\nAssistant:"),
        ("steps", "chat", f"<user>1+1=\n{STEPS}<answer>"),
        (
            "steps-zh",
            "raw",
            "1+1=\n请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。",
        ),
    ],
)
def test_a_prompt_to_the_letter(instruction, wrapping, text):
    options = {"instruction": instruction, "wrapping": wrapping}
    ids = prompts.prompt("1+1=", Started(), **options)
    assert ids[: 1 - (wrapping == "chat")] == [256] * (wrapping != "chat")
    assert Started().decode(ids) == text


def test_solved_examples_come_first():
    options = {"instruction": "none", "wrapping": "raw", "examples": "2+2=4\n"}
    ids = prompts.prompt("1+1=", tokenizer.Bytes(), **options)
    assert ids == list(b"2+2=4\n1+1=\n")
