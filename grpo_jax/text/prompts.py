r"""How a question is put to a model: its instruction, and what is wrapped around it.

The paper's own: a question, a line that asks for steps and a boxed answer, and
`User: ...\n\nAssistant:` with no space behind. Chat models have a template instead.
"""

from collections.abc import Callable

from grpo_jax.text.tokenizer import Tokenizer

INSTRUCTIONS = {
    "none": "",
    "steps": (
        "Please reason step by step, and put your final answer within \\boxed{}."
    ),
    "steps-zh": "请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。",
    "program": (
        "Please integrate natural language reasoning with programs to solve the "
        "problem above, and put your final answer within \\boxed{}."
    ),
    "program-zh": (
        "请结合自然语言和Python程序语言来解答问题，并把最终答案放置于\\boxed{}中。"
    ),
    "function": "Complete this function. Write all of it in one block of ```python.",
    "hashes": "Reason step by step, and end with a line `#### ` and the answer.",
}


def _raw(content: str, tokenizer: Tokenizer) -> str:
    return content


def _paper(content: str, tokenizer: Tokenizer) -> str:
    return f"User: {content}\n\nAssistant:"


def _chat(content: str, tokenizer: Tokenizer) -> str:
    return tokenizer.chat([{"role": "user", "content": content}])


WRAPPINGS: dict[str, Callable[[str, Tokenizer], str]] = {
    "raw": _raw,
    "paper": _paper,
    "chat": _chat,
}


def prompt(
    question: str,
    tokenizer: Tokenizer,
    *,
    instruction: str = "steps",
    wrapping: str = "chat",
    examples: str = "",
) -> list[int]:
    """The tokens that the model continues; `examples` are solved ones to begin with."""
    asked = INSTRUCTIONS[instruction]
    content = f"{examples}{question}\n{asked}" if asked or examples else question
    ids = tokenizer.encode(WRAPPINGS[wrapping](content, tokenizer))
    # A template writes what a text begins with itself.
    return ids if wrapping == "chat" else [*tokenizer.start_ids, *ids]
