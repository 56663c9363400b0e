"""What a person sees of samples, and of a warning."""

import io

from rich.console import Console

from grpo_jax import display


def shown(show, *, is_quiet=False):
    screen = display.Screen(is_quiet=is_quiet)
    text = io.StringIO()
    screen.console = Console(file=text, width=200, highlight=False)
    show(screen)
    return text.getvalue().splitlines()


def sample(said, advantage=0.0, **more):
    row = {"question": "2+2=", "completion": said, "answer": "4"}
    return row | {"advantage": advantage} | more


def test_the_most_rewarded_of_the_wrong_comes_first():
    given = [(1.0, True), (2.0, False), (None, False), (3.0, True), (2.5, False)]
    given += [(0.5, False), (9.0, None)]
    table = [
        sample(f"text {i}", reward=reward, right=right)
        for i, (reward, right) in enumerate(given)
    ]
    lines = shown(lambda screen: screen.answers(table))
    assert lines == [
        "  2+2= text 4 (+0.00; WRONG, rewarded with 2.5; right: 4)",
        "  2+2= text 0 (+0.00; right, rewarded with 1; right: 4)",
        "  2+2= text 2 (+0.00; right: 4)",
    ]
    assert len(shown(lambda screen: screen.answers(table[:2]))) == 2


def test_without_a_reward_model_samples_are_shown_as_they_come():
    table = [sample(f"text {i}", float(i)) for i in range(6)]
    lines = shown(lambda screen: screen.answers(table))
    assert [line.split(" (")[0][-6:] for line in lines] == [
        "text 0",
        "text 2",
        "text 4",
    ]
    assert lines[1] == "  2+2= text 2 (+2.00; right: 4)"


def test_a_warning_is_seen_where_it_is_quiet_too():
    for is_quiet in (False, True):
        lines = shown(lambda screen: screen.warn("[so] it is"), is_quiet=is_quiet)
        assert lines == ["warning: [so] it is"]


def test_what_a_run_was_examined_on_is_told():
    row = {"step": 4, "stage": "online", "eval/accuracy": 0.5}
    row |= {"eval/accuracy_low": 0.4, "eval/accuracy_high": 0.6}
    own = "50.0% (95%: 40.0% to 60.0%) of held-out questions right"
    assert shown(lambda x: x.show(row))[-1] == f"online, step 4: {own}"
    row |= {"eval/chains-6/accuracy": 0.125, "eval/chains-6/accuracy_low": 0.1}
    assert (
        shown(lambda x: x.show(row))[-1] == f"online, step 4: {own}; of chains-6 12.5%"
    )
    alone = {k: x for k, x in row.items() if not k.startswith("eval/accuracy")}
    assert shown(lambda x: x.show(alone))[-1] == "online, step 4: of chains-6 12.5%"
