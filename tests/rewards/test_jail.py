"""What a program does besides comes to nothing, and so for its tests."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from grpo_jax.rewards import code, jail


def alone(program, tests, seconds=5.0, mebibytes=256):
    return code.judged(program, tests, seconds, mebibytes)


def raises(body, error=Exception):
    """A program whose function tells whether the attempt was forbidden."""
    body = "\n    ".join(body.splitlines())
    return f"""
def tried():
  try:
    {body}
  except {error.__name__}:
    return True
  return False
"""


def forbidden(body, error=OSError, **limits):
    """To the program, and to its tests too."""
    tries = raises(body, error)
    program = alone(tries, "assert tried()", **limits) == 1.0
    tests = alone("", f"{tries}\nassert tried()", **limits) == 1.0
    assert program == tests, (program, tests)
    return program


def test_what_is_allowed_is_told_apart_from_what_is_not():
    assert not forbidden("import math\nmath.sqrt(2)")
    assert not forbidden("open(__import__('os').__file__).read()")


@pytest.mark.parametrize(
    "body",
    [
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import os\nos.setsid()",
        "import os\nos.kill(1, 0)",
    ],
)
def test_it_starts_no_process_and_signals_none(body):
    assert forbidden(body)


def test_it_starts_no_thread():
    start = "import threading\nthreading.Thread(target=print).start()"
    assert forbidden(start, RuntimeError)


def test_a_fork_bomb_is_over_at_once():
    before = len([*pathlib.Path("/proc").iterdir()])
    start = time.monotonic()
    bomb = "import os\nwhile True: os.fork()"
    assert alone(bomb, "f()") == 0.0
    assert time.monotonic() - start < 4  # and not after its time
    assert len([*pathlib.Path("/proc").iterdir()]) < before + 100


def test_it_has_no_powers_of_root():
    assert forbidden("import socket\nsocket.sethostname(socket.gethostname())")
    assert forbidden("import os\nos.chroot('/')")


def test_it_reaches_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reach = (
            f"import socket\nsocket.create_connection(('127.0.0.1', {port})).close()"
        )
        exec(reach)  # it is there to be reached
        assert forbidden(reach)
    assert forbidden("import socket\nsocket.socket(socket.AF_UNIX)")
    assert forbidden("import socket\nsocket.create_server(('127.0.0.1', 0)).close()")


def test_it_writes_and_removes_nothing(tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("here")
    tmp_path.chmod(0o777)
    kept.chmod(0o666)
    for body in (
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(kept)!r}, 'a')",
        "open('beside', 'w')",
        f"import os\nos.remove({str(kept)!r})",
        f"import os\nos.truncate({str(kept)!r}, 0)",
        f"import os\nos.chmod({str(kept)!r}, 0)",
        f"import os\nos.utime({str(kept)!r})",
        f"import os\nos.rename({str(kept)!r}, {str(tmp_path / 'b')!r})",
        f"import os\nos.mkdir({str(tmp_path / 'folder')!r})",
        f"import os\nos.symlink('a', {str(tmp_path / 'link')!r})",
        "import os\nos.write(os.memfd_create('x'), b'x')",
    ):
        assert forbidden(body), body
    assert list(tmp_path.iterdir()) == [kept] and kept.read_text() == "here"


def test_it_reads_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    (tmp_path / "key").write_text("x")
    empty = "import os\nassert not os.environ.get('SECRET')\nraise OSError"
    assert forbidden(empty)
    for path in (
        tmp_path / "key",
        f"/proc/{os.getpid()}/environ",
        "/proc/self/environ",
        "/etc/passwd",
    ):
        pathlib.Path(path).open("rb").close()
        assert forbidden(f"open({str(path)!r}, 'rb')"), path
    assert forbidden(f"import os\nos.listdir({str(tmp_path)!r})")
    parent = "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')"
    assert forbidden(parent)


@pytest.mark.parametrize(
    "call",
    [
        "inotify_init()",
        "inotify_init1(0)",
        "inotify_add_watch(0, b'/etc', 2)",
        "fanotify_init(0x200, 0)",
    ],
)
def test_it_is_not_told_what_others_do_with_files(call):
    tries = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.{call}"
    assert forbidden(f"{tries}\nif ctypes.get_errno() == 1: raise OSError")


@pytest.mark.parametrize("body", ["while True: pass", "import time\ntime.sleep(99)"])
def test_it_has_so_many_seconds(body):
    body = "\n    ".join(body.splitlines())
    for program in (f"if True:\n    {body}", f"def add(x, y):\n    {body}"):
        start = time.monotonic()
        assert alone(program, "add(0, 1)", seconds=0.5) == 0.0
        assert time.monotonic() - start < 4
    slow = "import time\ndef f(): time.sleep(0.4)"
    assert alone(slow, "f()", seconds=0.2) == 0.0 and alone(slow, "f()") == 1.0


def test_it_has_so_much_memory():
    large = "x = bytearray(150 << 20)\ndef f(): return len(x)"
    tests = "assert f() == 150 << 20"
    assert alone(large, tests) == 1.0 and alone(large, tests, mebibytes=128) == 0.0


def test_what_it_prints_is_thrown_away():
    program = """
import os, sys
for _ in range(300):
    print('x' * 10**6)
    sys.stderr.write('x' * 10**6)
def f(): return sys.stdin.read() if sys.stdin else ''
"""
    assert alone(program, "assert f() == ''") == 1.0


def test_what_tests_print_is_no_verdict():
    prints = """
import os, sys
print('hello', flush=True)
sys.stderr.write('hello')
os.write(1, b'passed\\n')
"""
    for reward, end in ((1, "assert f() == 1"), (0, "assert f() == 2")):
        assert alone("def f(): return 1", prints + end) == reward
    assert alone("def f(): return 1", f"{prints}os._exit(0)") == 0


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    pids, begin = [], subprocess.Popen

    def remembered(*args, **named):
        running = begin(*args, **named)
        pids.append(running.pid)
        return running

    monkeypatch.setattr(code.subprocess, "Popen", remembered)
    monkeypatch.setattr(code.tempfile, "tempdir", str(tmp_path))
    lasting = "import time\ndef f(): time.sleep(60)"
    assert alone(lasting, "f()", seconds=0.5) == 0.0
    assert list(tmp_path.iterdir()) == []
    _await(lambda: not any(map(_session, pids)))


def _session(pid):
    """Those that are running in it."""
    stats = pathlib.Path("/proc").glob("[0-9]*/stat")
    return [p for p in stats if _is_running(p.parent.name, session=pid)]


def test_another_processor_is_told():
    program = "import platform\nplatform.machine = lambda: 'vax'\n"
    program += (
        f"exec(open({jail.__file__!r}).read().split('if __name__')[0])\n_forbid()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.returncode == 1 and b"of vax's calls are not known" in done.stderr


def test_a_jail_dies_with_what_it_holds(tmp_path):
    """Also one that is ended from outside, as by a run that is over."""
    held = subprocess.Popen(
        [sys.executable, "-I", "-S", jail.__file__, "60", "256"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    program = b"import time\ntime.sleep(60)"
    told = len(program).to_bytes(8, "little") + program + b"f()"
    held.stdin.write(told)
    held.stdin.close()
    assert held.stdout.readline() == jail.BEGUN.encode()
    (child,) = (
        pathlib.Path(f"/proc/{held.pid}/task/{held.pid}/children").read_text().split()
    )
    os.killpg(held.pid, signal.SIGKILL)
    held.wait()
    held.stdout.close()
    _await(lambda: not _is_running(child))


def _await(happens):
    deadline = time.monotonic() + 10
    while not happens() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert happens()


def _is_running(pid, session=None):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    state, _, _, its_session = stat[stat.rindex(")") + 1 :].split()[:4]
    return state != "Z" and session in (None, int(its_session))
