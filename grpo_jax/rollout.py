"""Completions of many questions: the host's side of sampling.

    for answers in rollout.answers(sampler, params, questions, key):
        ...  # one question's group, as soon as its last row has ended

Rows are decoded a segment at a time. Between segments the host looks: rows that ended
leave, questions that wait come in, and what is left is laid into the smallest of a few
shapes that holds it (see `pool`). A question that is done is handed out after the next
segment has been dispatched, so what its reader does is done while the device decodes.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Array, Key

from grpo_jax import crossing, prng
from grpo_jax.models import transformer
from grpo_jax.pool import Answers, Pool, Question, Sampler, Watch
from grpo_jax.section import Refused


def answers(
    sampler: Sampler,
    params: transformer.Params,
    questions: Sequence[Question],
    key: Key[Array, ""],  # of the step: prng.step_key
    watch: Watch | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[Answers]:
    """Each question's group, in the order in which they are done.

    `meanwhile` is called while the device decodes, once a segment.
    """
    if not questions:
        return
    _check(sampler, questions)
    if sampler.settings.stop_strings and watch is None:
        raise Refused(
            "sampling.stop_strings are texts, and sampling sees none. Give a watch: "
            "rollout.stop_strings(strings, decode)."
        )
    pool = Pool(sampler, params, questions, key)
    done = []
    while pool.is_busy:
        pool.arrange()
        drawn = pool.dispatch()
        yield from done
        meanwhile()
        pool.take(crossing.down(drawn), watch)
        done = pool.leave()
    yield from done


def warm_up(sampler: Sampler, params: transformer.Params, questions: int, prompt: int):
    """Compiles every shape that rollouts of so many questions can come to.

    Of questions up to `prompt` tokens, in the bucket of that length; with
    sampling.max_prompt there is one bucket.
    """
    asked = [Question(i, [0] * prompt) for i in range(questions)]
    Pool(sampler, params, asked, prng.root(0)).warm_up()


def stop_strings(
    strings: Sequence[str], decode: Callable[[Sequence[int]], str]
) -> Watch:
    """Ends a row with the token that completes one of the strings.

    Of each row only what is new is decoded, and as much before it as a string may begin
    in. It remembers the rows: make one for each rollout.
    """
    if not strings:
        raise Refused("there are no strings to stop at. Give at least one.")
    longest = max(map(len, strings))
    seen: dict[tuple[int, int], np.ndarray] = {}  # rows without any of them

    def begin(tokens: np.ndarray) -> int:
        """Where a string that ends behind these tokens may begin, or before that.

        Tokens may have no text of their own, and bytes of a character that is cut in
        two make those beside them unreadable; neither counts.
        """
        start = len(tokens)
        while start > 0:
            start = max(0, start - longest - 4)
            text = decode(tokens[start:].tolist())
            if not text.startswith(LOST) and len(text.replace(LOST, "")) >= longest:
                break
        return start

    def watch(number: int, sample: int, tokens: np.ndarray) -> int | None:
        before = seen.get((number, sample), tokens[:0])
        same = np.array_equal(before, tokens[: len(before)])  # no other rollout's
        start = begin(before) if same else 0

        def is_complete(n):
            text = decode(tokens[start:n].tolist())
            return any(string in text for string in strings)

        if not is_complete(len(tokens)):
            seen[number, sample] = tokens.copy()
            return None
        low, high = start, len(tokens)  # complete with `high` tokens, not with `low`
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_complete(middle) else (middle, high)
        return high

    return watch


LOST = "\N{REPLACEMENT CHARACTER}"


def _check(sampler: Sampler, questions: Sequence[Question]):
    """Refuses what cannot be answered, before anything compiles."""
    settings, G = sampler.settings, sampler.group_size
    if G < 1:
        raise Refused(f"a group of {G} samples is empty. Ask for at least one.")
    if settings.rows is not None and settings.rows < G:
        raise Refused(
            f"sampling.rows is {settings.rows}; it must hold a whole group of {G} "
            "samples. Raise it, or make the group smaller."
        )
    numbers = [question.number for question in questions]
    if len(set(numbers)) < len(numbers):
        raise Refused("two questions have the same number: they would draw the same.")
    for question in questions:
        _check_question(sampler, question)


def _check_question(sampler: Sampler, question: Question):
    settings, most = sampler.settings, sampler.spec.max_length
    where, n = f"question {question.number}", len(question.tokens)
    if n == 0:
        raise Refused(f"{where} is empty. Give it at least one token.")
    if settings.max_prompt is not None and n > settings.max_prompt:
        raise Refused(
            f"{where} has {n} tokens; sampling.max_prompt is {settings.max_prompt}. "
            "Raise it, or leave such questions out."
        )
    budgets = question.budgets
    new = settings.max_new if budgets is None else max(budgets, default=0)
    if n + new > most:
        named = "sampling.max_new" if budgets is None else "its budget"
        raise Refused(
            f"{where} has {n} tokens; with {named}, {new}, that passes the {most} "
            "positions that the model was made for. Shorten either."
        )
    if not all(0 <= i < sampler.size for i in question.tokens):
        raise Refused(f"{where} has ids outside the {sampler.size} of the tokenizer.")
    if budgets is None:
        return
    inside = all(0 <= n <= settings.max_new for n in budgets) and any(budgets)
    if len(budgets) != sampler.group_size or not inside:
        raise Refused(
            f"{where} has the budgets {list(budgets)}; it must have one for each of "
            f"{sampler.group_size} samples, up to {settings.max_new}, and not all 0."
        )
