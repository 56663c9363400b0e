"""A program run with its tests, so that neither can do harm and the first cannot cheat.

    python -I -S jail.py SECONDS MIB < (length, program, tests)

Two processes. One runs the program. The other runs the tests, and what a test calls is
asked of the first through a pipe: plain data go out and come back, never an object that
could say it equals anything. The program knows neither the tests nor whether it passed.
Neither may start a process, open a socket, or write. Both may read Python's and the
system's libraries; of other files and processes they see that they are there, and not
what is in them. Landlock, seccomp and limits of the kernel see to it; powers of root
they have none.

No module of this package is imported here: the file is run by its path.
"""

import builtins
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig

BEGUN, PASSED, FAILED, UNFIT = "begun\n", "passed\n", "failed\n", "unfit\n"
LONGEST = 1 << 22  # bytes of a message: more is no answer
LIBRARIES = "/lib", "/lib64", "/usr/lib", "/usr/lib64"


class Opaque:
    """What a program gave that is no plain data; it equals nothing."""

    __hash__ = None

    def __eq__(self, other):
        return False


def main(seconds: float, mebibytes: int):
    """Reads the program, parts from it, and only then reads the tests."""
    (size,) = struct.unpack("<Q", _read(0, 8))
    program = _read(0, size).decode()
    null = os.open(os.devnull, os.O_RDWR)
    _limit(seconds, mebibytes)
    _give_up_powers()
    _confine()
    import random  # noqa: F401  (if Python's own files cannot be read, it says so here)

    asked, answered, said = os.pipe(), os.pipe(), os.dup(1)
    tester = os.getpid()
    if os.fork() == 0:
        try:
            _die_with(tester)
            for pipe in (asked[1], answered[0], said):
                os.close(pipe)
            _silence(null)
            _forbid()
            _serve(program, asked[0], answered[1])
        finally:
            os._exit(0)
    _forbid()
    os.close(asked[0])
    os.close(answered[1])
    tests = b"".join(iter(lambda: os.read(0, 1 << 16), b"")).decode()
    os.write(said, BEGUN.encode())
    _silence(null)
    _judge(tests, seconds, asked[1], answered[0], said)


# What the two may do.


def _limit(seconds: float, mebibytes: int):
    for name, most in (
        ("CPU", int(seconds) + 1),
        ("AS", mebibytes << 20),
        ("FSIZE", 0),
        ("NOFILE", 32),
        ("CORE", 0),
    ):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CAPSET, CAPABILITY_VERSION_3 = 126, 0x20080522
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ_FILE, READ_DIR = 1 << 2, 1 << 3
EVERYTHING = (1 << 13) - 1  # of Landlock's first version: execute, write, make, remove


def _call(what: str, result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what} is not possible here")
    return result


def _give_up_powers():
    """Of root, if it is root: no process that it might become gets them back."""
    header, none = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    _call("capset", LIBC.syscall(CAPSET, header, none))
    _call("prctl", LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    # What is in its memory cannot be read by another process of this user.
    _call("prctl", LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))


def _confine():
    """Landlock: libraries may be read, and no other file; none may be changed. Names
    anywhere can be seen all the same, with what stat says of them."""
    handled = ctypes.c_uint64(EVERYTHING)
    size = ctypes.c_size_t(8)
    given = ctypes.byref(handled), size, 0
    rules = _call("Landlock", LIBC.syscall(CREATE_RULESET, *given))
    own = sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")
    for folder in {*own, f"{sys.base_prefix}/lib", *LIBRARIES}:
        try:
            at = os.open(folder, os.O_PATH)
        except FileNotFoundError:
            continue
        rule = struct.pack("=Qi", READ_FILE | READ_DIR, at)  # packed, as C has it
        _call("Landlock", LIBC.syscall(ADD_RULE, rules, 1, rule, 0))
        os.close(at)
    _call("Landlock", LIBC.syscall(RESTRICT_SELF, rules, 0))
    os.close(rules)


FORBIDDEN = {  # numbers of Linux on x86_64
    "network": (41, 42, 43, 49, 50, 53, 288, 425),  # the last: io_uring makes sockets
    "new processes": (56, 57, 58, 435, 59, 322, 101, 272, 308, 317, 321, 323, 298, 157),
    "signals": (62, 129, 200, 234, 297, 424, 434, 438, 109, 112),
    "other processes": (310, 311, 440, 256, 279, 302, 141, 144, 203, 251, 314),
    "watching files": (253, 254, 294, 300, 301),
    "shared memory": (29, 64, 68, 240, 319, 248, 249, 250),
    "files": (
        *(76, 77, 90, 91, 92, 93, 94, 132, 188, 189, 190, 197, 198, 199),
        *(235, 260, 261, 268, 280, 452),
    ),
}  # fmt: skip
X86_64, ALLOW, DENY, KILL = 0xC000003E, 0x7FFF0000, 0x00050001, 0x80000000  # EPERM


def _forbid():
    """seccomp: the system calls that Landlock and limits leave."""
    if platform.machine() != "x86_64":
        raise OSError(f"the numbers of {platform.machine()}'s calls are not known here")
    numbers = [n for some in FORBIDDEN.values() for n in some]
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    rows = [(load, 0, 0, 4), (equal, 1, 0, X86_64), (give, 0, 0, KILL), (load, 0, 0, 0)]
    # Each jumps over the rows behind it, and over the last but one, which allows.
    checks = [(above, 0x40000000), *((equal, n) for n in numbers)]
    rows += [(op, len(checks) - i, 0, k) for i, (op, k) in enumerate(checks)]
    rows += [(give, 0, 0, ALLOW), (give, 0, 0, DENY)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *r) for r in rows))
    whole = struct.pack("@HP", len(rows), ctypes.addressof(code))
    _call("seccomp", LIBC.prctl(PR_SET_SECCOMP, 2, whole, 0, 0))


def _die_with(parent: int):
    """The kernel ends it, for neither of the two may send a signal."""
    _call("prctl", LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:  # which was over before
        os._exit(0)


def _silence(null: int):
    """What either prints is read by nobody, and is not where the verdict goes."""
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


# What the two say to each other.


def _serve(program: str, requests: int, replies: int):
    """The program's process: defines, says what, and answers."""
    space = {"__name__": "program"}
    exec(compile(program, "program", "exec"), space)
    _send(replies, [name for name, x in space.items() if callable(x)])
    while True:
        name, args, named = map(unpacked, _receive(requests))
        try:
            reply = "gave", _or_opaque(space[name](*args, **named))
        except Exception as error:
            reply = "raised", type(error).__name__
        _send(replies, [*reply, [_or_opaque(x) for x in args]])


def _or_opaque(x):
    try:
        return packed(x)
    except TypeError:
        return ["opaque"]


def packed(x):
    """As JSON: plain data, and of what is built on them the plain part."""
    if x is None or isinstance(x, bool):
        return x
    for plain in (int, float, str):
        if isinstance(x, plain):
            return plain(x)
    if isinstance(x, dict):
        return ["dict", *([packed(k), packed(v)] for k, v in x.items())]
    for plain in (list, tuple, set, frozenset):
        if isinstance(x, plain):
            return [plain.__name__, *map(packed, x)]
    if isinstance(x, bytes):
        return ["bytes", x.hex()]
    if isinstance(x, complex):
        return ["complex", x.real, x.imag]
    raise TypeError(f"{type(x).__name__} is no plain data")


def unpacked(x):
    if not isinstance(x, list):
        return x
    kind, *parts = x
    if kind == "opaque":
        return Opaque()
    if kind == "dict":
        return {unpacked(k): unpacked(v) for k, v in parts}
    if kind == "bytes":
        return bytes.fromhex(*parts)
    makes = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    if kind in makes:
        return makes[kind](map(unpacked, parts))
    return {"complex": complex}[kind](*parts)


def _send(pipe: int, message):
    said = json.dumps(message).encode()
    said = struct.pack("<Q", len(said)) + said
    while said:
        said = said[os.write(pipe, said) :]


def _receive(pipe: int):
    (size,) = struct.unpack("<Q", _read(pipe, 8))
    if size > LONGEST:
        raise EOFError("too long")
    return json.loads(_read(pipe, size))


def _read(pipe: int, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        more = os.read(pipe, min(size - len(found), 1 << 16))
        if not more:
            raise EOFError("there is no more")
        found += more
    return bytes(found)


# The tests.


def _judge(tests: str, seconds: float, requests: int, replies: int, said: int):
    """Ends its process with the verdict: an exception could be caught by a test."""

    def end(verdict):
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.write(said, verdict.encode())
        finally:
            os._exit(0)

    def given(x):
        """The program is to blame for what it gave itself, the tests for all else."""
        try:
            return packed(x)
        except TypeError as error:
            end(FAILED if Opaque.__name__ in str(error) else UNFIT)

    def asking(name):
        def call(*args, **named):
            # Before anything is sent: these are the tests' own.
            question = [name, given(list(args)), given(named)]
            try:
                _send(requests, question)
                kind, told, after = _receive(replies)
                _change(args, map(unpacked, after))
                told = unpacked(told)
            except Exception:
                end(FAILED)
            return told if kind == "gave" else _raise(told)

        return call

    signal.signal(signal.SIGALRM, lambda number, frame: end(FAILED))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        # Python's own names mean what they mean, whatever the program calls its own.
        defined = [x for x in map(str, _receive(replies)) if not hasattr(builtins, x)]
        own = {"__name__": "tests"} | {name: asking(name) for name in defined}
        exec(compile(tests, "tests", "exec"), own)
    except BaseException:
        end(FAILED)
    end(PASSED)


def _change(args: tuple, after):
    """What the program changed in a list, a dict or a set is changed."""
    for old, new in zip(args, after, strict=True):
        if type(old) is type(new) is list:
            old[:] = new
        elif type(old) is type(new) and isinstance(old, dict | set):
            old.clear()
            old.update(new)


def _raise(name: str):
    error = getattr(builtins, str(name), None)
    is_error = isinstance(error, type) and issubclass(error, Exception)
    raise (error if is_error else Exception)("raised by the program")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
