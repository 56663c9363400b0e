"""What the README shows in Python runs as it stands there."""

import pathlib
import re

import pytest

SNIPPETS = re.findall(
    r"```python\n(.*?)```", pathlib.Path("README.md").read_text(), re.S
)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(number):
    exec(compile(SNIPPETS[number], f"README.md, snippet {number}", "exec"), {})


def test_there_are_snippets():
    assert len(SNIPPETS) >= 2
