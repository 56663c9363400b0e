"""A file of answers: what is missing is asked, and it comes out the same."""

import pytest

from grpo_jax import own_answers, workdir


def complete(path, numbers, monkeypatch, at_once=3, dies=None):
    """The rows, and which questions were asked; it dies before row `dies`."""
    asked = []

    def answers(inquiry, params, numbers):
        assert params == "of now"
        for number in numbers:
            if number == dies:
                raise KeyboardInterrupt
            asked.append(number)
            yield {"number": number}

    monkeypatch.setattr(own_answers, "_asked", answers)
    inquiry = own_answers.Inquiry(None, None, None, None, 0, at_once)
    given = path, inquiry, numbers, lambda: "of now", lambda: None
    try:
        rows = own_answers.complete(*given)
    except KeyboardInterrupt:
        rows = None
    return rows and [row["number"] for row in rows], asked


def test_each_question_is_asked_once(tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    assert complete(path, range(4), monkeypatch) == ([0, 1, 2, 3], [0, 1, 2, 3])
    whole = path.read_text()
    assert complete(path, range(4), monkeypatch) == ([0, 1, 2, 3], [])
    assert complete(path, range(4, 6), monkeypatch) == (list(range(6)), [4, 5])
    assert path.read_text().startswith(whole)
    # What was added since is there for who asks again for less.
    assert complete(path, range(4), monkeypatch) == (list(range(6)), [])


@pytest.mark.parametrize(("dies", "again"), [(4, 4), (6, 4), (7, 7), (9, 7)])
def test_a_part_of_what_is_asked_at_once_is_asked_again(
    dies, again, tmp_path, monkeypatch
):
    """Counted from where these questions begin, at 4; half a line is nothing."""
    path = tmp_path / "answers.jsonl"
    complete(path, range(4), monkeypatch)
    assert complete(path, range(4, 10), monkeypatch, dies=dies)[0] is None
    with path.open("a") as file:
        file.write('{"numb')
    found, asked = complete(path, range(4, 10), monkeypatch)
    assert found == list(range(10)) and asked == list(range(again, 10))
    assert [row["number"] for row in workdir.rows(path)] == list(range(10))
