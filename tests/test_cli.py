"""Every command alike: its help, its exit codes, and what it says of an error."""

import os
import pathlib
import re
import runpy
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from grpo_jax import cli, config, display, iterative, stopping, task
from grpo_jax.section import Refused
from grpo_jax.text.tokenizer import Bytes

SMALL = "from grpo_jax import config\ndef get_config(): return config.Config(seed=5)\n"


def fails_with(monkeypatch, error):
    def command(words):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "sample", command)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Refused("a is 1; b. Do c."), 2, "refused: a is 1; b. Do c."),
        (
            stopping.Stopped(7),
            33,
            "stopped after step 7, and saved: the same command goes on",
        ),
        (
            RuntimeError("out of\n  memory"),
            1,
            "failed: RuntimeError: out of memory (--debug shows where)",
        ),
        (
            KeyboardInterrupt(),
            1,
            "failed: KeyboardInterrupt (--debug shows where)",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(monkeypatch, capsys, error, code, said):
    fails_with(monkeypatch, error)
    assert cli.main(["sample"]) == code
    assert capsys.readouterr() == ("", said + "\n")
    for words in (["--debug", "sample"], ["sample", "--n", "--debug"]):
        assert cli.main(words) == code
        text = capsys.readouterr().err
        assert text.startswith("Traceback") and text.endswith(f"{said}\n")


def test_the_word_debug_is_not_for_the_command(monkeypatch):
    given = []
    monkeypatch.setitem(cli.COMMANDS, "sample", lambda words: given.append(words) or 0)
    assert cli.main(["sample", "--debug", "tiny"]) == 0 and given == [["tiny"]]


def test_the_usage_names_every_command_and_exit_code(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {name}\b", text, re.M) for name in cli.COMMANDS)
    assert all(re.search(rf"^  {code} +\w", text, re.M) for code in (0, 1, 2, 33))


QUICK = """
import os, sys
from grpo_jax import cli
assert cli.main(["--help"]) == 0
assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
heavy = {"jax", "transformers", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_waits_for_no_library_of_models():
    known = {k: x for k, x in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    subprocess.run([sys.executable, "-c", QUICK], env=known, check=True)


BENCHES = "losses", "sampling", "update", "step", "trainer", "compile"
COMMANDS = [
    ["sample"],
    ["models"],
    ["convert"],
    ["evaluate"],
    ["label"],
    ["train", "small.py"],
    *(["bench", name] for name in BENCHES),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_has_a_meaning_and_a_default(
    command, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    pathlib.Path("small.py").write_text(SMALL)
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    lines = [line.strip("│ ") for line in text.splitlines()]
    assert any(line.startswith("-h, --help") for line in lines)
    assert "33 stopped on request" in " ".join(lines) and "--debug" in text
    # An option, then nothing but its default: on its line, or on the next.
    alone = re.compile(r"--\S+( \S+)*( {2,}\(default.*)?")
    bare = [
        line
        for line, behind in zip(lines, [*lines[1:], ""], strict=True)
        if alone.fullmatch(line) and ("(def" in line or behind.startswith("(def"))
    ]
    assert not bare


def test_bench_says_what_there_is(capsys):
    assert cli.main(["bench", "--help"]) == 0
    assert "sampling,update" in capsys.readouterr().out


class Trained(NamedTuple):
    settings: config.Config
    folder: pathlib.Path
    options: dict[str, Any]


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The calls of iterative.train, from a folder with an experiment in it."""
    calls = []

    def train(settings, folder, **options):
        calls.append(Trained(settings, folder, options))

    monkeypatch.setattr(iterative, "train", train)
    monkeypatch.chdir(tmp_path)
    pathlib.Path("small.py").write_text(SMALL)
    return calls


def test_train_begins_a_run_and_says_what_it_does(trained, capsys):
    assert cli.main(["train", "small.py", "--data.size", "3"]) == 0
    (one,) = trained
    assert one.folder == pathlib.Path("runs/small")
    assert one.settings == config.Config(seed=5, data=config.Data(size=3))
    assert one.options["fork_from"] is None and not one.options["screen"].is_quiet
    said = "small.py → runs/small\n  seed = 5\n  data.size = 3\n\n"
    assert capsys.readouterr().out == said


def test_train_forks_where_it_is_told(trained, capsys):
    words = ["--workdir", "new", "--fork-from", "old"]
    assert cli.main(["train", "small.py", *words]) == 0
    (one,) = trained
    assert one.folder == pathlib.Path("new")
    assert one.options["fork_from"] == pathlib.Path("old")
    assert "small.py → new from old\n" in capsys.readouterr().out


def test_train_is_quiet(trained, capsys):
    assert cli.main(["train", "small.py", "--quiet"]) == 0
    assert trained[0].options["screen"].is_quiet and capsys.readouterr().out == ""


@pytest.mark.parametrize("word", [["--quiet"], ["--fork-from", "old"]])
def test_an_experiment_that_runs_itself_reads_neither(trained, capsys, word):
    pathlib.Path("own.py").write_text(SMALL + "def run(settings, workdir): 1 / 0\n")
    assert cli.main(["train", "own.py", *word]) == 2
    assert "own.py runs itself" in capsys.readouterr().err
    assert cli.main(["train", "own.py"]) == 1
    assert "failed: ZeroDivisionError: division by zero" in capsys.readouterr().err


ROW = {
    "step": 3,
    "stage": "online",
    "loss": 0.5,
    "eval/accuracy": 0.25,
    "eval/accuracy_low": 0.1,
    "eval/accuracy_high": 0.4,
}
SAMPLE = {
    "question": "2+2",
    "completion": "\x1b[31m4\r\x07",
    "answer": "4",
    "advantage": 1.0,
}


def shown(screen):
    known = task.Task([], [], ["x: 9 tokens"], config.Data(), Bytes())
    screen.begin(pathlib.Path("runs/a"), known, 0, 3)
    screen.show(ROW)
    screen.answers([SAMPLE])
    screen.tell("checkpoint 2 is not used: it was changed")
    screen.end([ROW], pathlib.Path("figure.png"), pathlib.Path("runs/a"))


def test_where_there_is_no_terminal_nothing_steers_one(capsys):
    shown(display.Screen())
    text = capsys.readouterr().out
    assert "[31m4" in text and "runs/a: step 0 of 3" in text
    assert all(x == "\n" or x.isprintable() for x in text)


def test_a_quiet_screen_shows_warnings_and_the_result(capsys):
    shown(display.Screen(is_quiet=True))
    assert capsys.readouterr().out.splitlines() == [
        "1 problems are left out: x: 9 tokens",
        "checkpoint 2 is not used: it was changed",
        "step 3: 25.0% (95%: 10.0% to 40.0%) of held-out questions right",
        "figure: figure.png",
        "next: python -m grpo_jax evaluate runs/a --k 8",
    ]


@pytest.mark.parametrize("given", [None, "", "/elsewhere"])
def test_the_command_line_keeps_compiled_programs(monkeypatch, given):
    known = {"HOME": "/home/me"} | ({} if given is None else {CACHE: given})
    monkeypatch.setattr(os, "environ", known)
    monkeypatch.setattr(cli, "main", lambda: 33)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("grpo_jax", run_name="__main__")
    assert stop.value.code == 33
    expected = "/home/me/.cache/grpo_jax" if given is None else given
    assert known[CACHE] == expected


CACHE = "JAX_COMPILATION_CACHE_DIR"
