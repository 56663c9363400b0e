"""Where a text gives its answer."""

import pytest

from grpo_jax.text import answers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} and then \boxed{ 2 }", "2"),
        (r"our answer is $\boxed 2$.", "2"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),  # \{ is no brace
        (r"\boxed{never closed", None),
        (r"\boxed{5} or rather \boxed{6", None),
        (r"in \boxed{ we put \boxed{5}", "5"),
        (r"\boxed{6 \boxed{5}}", r"6 \boxed{5}"),
        (r"\boxed{ \boxed{\boxed{5}}}", "5"),
        (r"\boxed{}", None),
        (r"\boxed", None),
        ("12 + 3 = 15\n#### 15", "15"),
        ("#### 1,000 \nand more", "1,000"),
        ("so it is #### 15", None),  # not a line of its own
        ("#### 15\nor #### 16", "15"),
        ("##### 15", None),  # a heading
        ("####", None),
        ("#### 4\n####", None),
        (r"\boxed{3} but #### 4", "3"),
        ("\\boxed{3}\n#### 4", "4"),
        (r"#### 4, no: \boxed{3}", "3"),
        (r"#### 4 \boxed{", None),
        ("15", None),
        ("", None),
    ],
)
def test_the_last_answer_counts(text, answer):
    assert answers.final(text) == answer


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("so 1\n#### 12", ""),
        ("#### 18\nNo:\n#### 17", ""),
        ("#### 18\n##", ""),
        (r"\boxed{18} or \boxed{17", ""),
        (r"\boxed{18} or \bo", ""),
        (r"\boxed{18} or \fbox", ""),
        (r"\boxed{18} or $\b", r"\boxed{18} or "),
        (r"\boxed{18} or \boxed{\frac{1}{2}", r"\boxed{18} or \boxed{\frac{1}{2}"),
        ("#### 12", ""),
        ("#### 12\n", "#### 12\n"),
        ("#### 12\nand s", "#### 12\nand "),
        (r"\boxed{5}", r"\boxed{5}"),
        (r"\boxed{5}. I ho", r"\boxed{5}. I "),
        (r"\boxed 12", r"\boxed "),
        ("12  2  32", "12  2  "),
        ("", ""),
    ],
)
def test_a_text_that_was_cut_loses_what_may_be_unfinished(text, left):
    assert answers.whole(text) == left


def test_a_long_text_takes_no_longer():
    """A megabyte of braces, or of marks, in one pass."""
    many = 500_000
    assert answers.final(r"\boxed{" + "{" * many + "}" * many) is None
    assert answers.final(r"\boxed{" * many) is None
    assert answers.final(r"\boxed{" * many + "}" * many) is None
    assert answers.final(r"\boxed{x" * 400 + "}" * 400).startswith(r"x\boxed{x")
    assert answers.final(r"\boxed{1}" * many) == "1"
    assert answers.final("#### 1\n" * many) == "1"
    assert answers.whole("a" * many) == ""
