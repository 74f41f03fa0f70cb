"""The sandbox: programs are judged by what they do, and what they do stays inside."""

import collections
import decimal
import fractions
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from thicket_jax.errors import ArgumentError, DataError, ThicketError
from thicket_jax.text.sandbox import sandbox as sandbox_module
from thicket_jax.text.sandbox.sandbox import Check, Sandbox, SandboxError
from thicket_jax.text.sandbox.values import LONGEST, describe

ROOT = pathlib.Path(__file__).parents[2]
LIMIT, SHORT, MARGIN = 10.0, 0.4, 5.0  # seconds; a busy machine needs the margin
MEMORY, OUTPUT = 256 << 20, 100_000
pytestmark = pytest.mark.usefixtures("confined")


@pytest.fixture(scope="module")
def patient():
    with Sandbox(time_limit=LIMIT, memory_bytes=MEMORY, output_bytes=OUTPUT) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def impatient():
    with Sandbox(time_limit=SHORT, memory_bytes=MEMORY, output_bytes=OUTPUT) as sandbox:
        yield sandbox


@pytest.fixture
def box(patient):
    """A sandbox that the test must leave as it was."""
    yield patient
    unharmed(patient)


@pytest.fixture
def short(impatient):
    """The same, with a time limit that tests can wait for."""
    yield impatient
    unharmed(impatient)


def unharmed(sandbox):
    helper = sandbox._process.pid
    result = sandbox.run("import os\ndef f(x): return x, os.listdir()", ["assert f(1) == (1, [])"])
    assert result.checks == (Check("value", "(1, [])", True),), result
    assert sandbox._process.pid == helper, "the helper process was replaced"
    assert len(os.listdir(sandbox._root)) <= 1, "a run left its directory behind"


def one(box, body, check="assert f() == 1"):
    """The result of `def f(): body`, and that it came in time."""
    lines = "\n    ".join(body.strip().split("\n"))
    return whole(box, f"def f():\n    {lines}\n    return 1\n", check)


def whole(box, code, check="assert f() == 1"):
    began = time.monotonic()
    result = box.run(code, [check])
    assert time.monotonic() - began < box._settings["time_limit"] + MARGIN
    return result


# Values.


class Always:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


Point = collections.namedtuple("Point", "x y")
PLAIN = [
    None, True, 0, 1, 2, -1, 2**100, 2**100 + 1, 0.1, 1.0, -0.0, 0.5, 1e300, int(1e300),
    float("inf"), fractions.Fraction(1, 2), fractions.Fraction(1, 10), decimal.Decimal("0.1"),
    decimal.Decimal("1.0"), 1j, 1 + 0j, complex(0, 0.5), "", "1", "a", "None", "<a>", "\ud800",
    b"a", bytearray(b"a"), (), [], {}, set(), frozenset(), (1,), [1], [True], (1.0, [2]),
    [(1, 2)], Point(1, 2), (1, 2), {1, 2}, {2, 1.0}, frozenset({1, 2}), {1: 2}, {True: 2.0},
    {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}.keys(), {"a"},
    collections.OrderedDict(b=2, a=1), collections.Counter("abb"), {"b": 2, "a": 1.0},
    ["a, b"], ["a", "b"], fractions.Fraction(10**400, 3), signal.SIGINT, int(signal.SIGINT),
]  # fmt: skip


def test_plain_values_have_equal_texts_exactly_where_they_are_equal():
    for a in PLAIN:
        text, plain = describe(a)
        assert plain and len(text) <= LONGEST
        for b in PLAIN:
            assert (text == describe(b)[0]) == (a == b), (a, b)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Always(), f"<Always <{__name__}.Always object>>"),
        ([1, Always()], f"[1, <Always <{__name__}.Always object>>]"),
        (float("nan"), "nan"),
        (decimal.Decimal("1e999999"), "<Decimal Decimal('1E+999999')>"),
        (range(3), "<range range(0, 3)>"),
        ([0] * 10**7, "<too large>"),
        ("a" * 10**7, "<too large>"),
        (1 << 10**7, "<too large>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_not_plain(value, text):
    assert describe(value) == (text, False)


def test_a_long_value_is_known_by_its_hash():
    first, second = list(range(9000)), [*range(8999), -1]
    assert describe(first)[0].startswith("sha256 ") and len(describe(first)[0]) < 80
    assert describe(first) == describe(list(map(float, first))) != describe(second)


def test_a_value_that_holds_itself_or_fails_to_show_itself(box):
    code = "class A:\n def __repr__(self): raise KeyError\nx = []\nx.append(x)\ny = A()"
    result = box.run(code, ["assert x == 1", "assert y == 1"])
    assert [check.passed for check in result.checks] == [False, False]
    assert result.checks[1].text == "<A repr raises KeyError>"


# Checks.


def test_each_kind_of_check(box):
    code = "def f(x): return {'n': 1.0, 's': {2, 1}} if x else 1 / x"
    checks = [
        "assert f(1) == {'s': {1, 2}, 'n': 1}, 'a message'",
        "assert f(1) == dict(n=1, s=set([1, 2]))",
        "assert f(2)['n'] == 2 - 1",
        "assert f(1) == {}",
        "assert f(0) == 1",
        "assert not f(1)",
        "assert f(1)",
        "assert 0 < f(1)['n'] == 1",
        "y = f(1); assert y",
        "for i in range(2): assert f(i + 1)['n'] == 2",
        "assert nothing",
        "assert f(1)['n'] == nothing",
    ]
    text = "{'n': 1, 's': {1, 2}}"
    result = box.run(code, checks)
    assert result.status == "ended" and result.names == ("f",)
    assert result.checks == (
        Check("value", text, True),
        Check("value", text, True),
        Check("value", "1", True),
        Check("value", text, False),
        Check("raises", "ZeroDivisionError", False),
        Check("truth", "False", False),
        Check("truth", "True", True),
        Check("truth", "True", True),
        Check("truth", "True", True),
        Check("truth", "False", False),
        Check("raises", "NameError", False),
        Check("raises", "NameError", False),
    )


def test_what_is_expected_is_not_in_the_child(box):
    code = """
import gc, sys
def f():
    frame, seen = sys._getframe(), []
    while frame:
        seen += [repr(frame.f_locals)]
        frame = frame.f_back
    return "".join(["731", "9557"]) in repr(seen) + repr(gc.get_objects())
"""
    assert box.run(code, ["assert f() == 7319557"]).checks[0].text == "0"
    assert box.run(code, ["assert f() == int(7319557)"]).checks[0].text == "1"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def f(:", "syntax"),
        ("def f(): return '\0'", "syntax"),
        ("x = '\ud800'", "syntax"),
        ("(" * 10_000, "syntax"),
        ("f = 1 / 0", "raised"),
        ("raise SystemExit", "raised"),
        ("import sys\nsys.exit(0)", "raised"),
        ("raise KeyboardInterrupt", "raised"),
        ("import jax", "raised"),
        ("input()", "raised"),
        ("exit()", "raised"),
        ("def f(): return 1", "ended"),
    ],
)
def test_status_of_the_program_itself(box, code, status):
    result = whole(box, code)
    assert result.status == status
    assert result.checks[0].passed == (status == "ended")


def test_setup_runs_between_the_program_and_the_checks(box):
    code = "class Node:\n    value = 3"
    assert box.run(code, ["assert n.value == 3"], setup="n = Node()\r\n").checks[0].passed
    assert box.run(code, ["assert n.value == 3"], setup="n = 1 / 0").status == "raised"


def test_no_checks_and_a_check_that_is_not_python(box):
    assert box.run("x = 1", []).checks == ()
    with pytest.raises(DataError, match=r"the test 'assert f\(' is not Python"):
        box.run("x = 1", ["assert f("])


def test_equal_programs_behave_equally_in_every_sandbox(box, short):
    code = (
        "import random, time\ndef f(): return list(set('abcdefgh')), random.random(), time.tzname"
    )
    first, second = (sandbox.run(code, ["assert f() == 0"]).checks for sandbox in (box, short))
    assert first == second and first[0].kind == "value"


# What a program may try.


ENDLESS = {
    "a loop": "while True: pass",
    "a loop that catches everything": "while True:\n    try:\n        while True: pass\n"
    "    except BaseException: pass",
    "one long operation": "10 ** 10 ** 9",
    "sleep": "import time\ntime.sleep(1e6)",
    "a read that waits": "import os\nos.read(os.pipe()[0], 1)",
    "a regular expression": "import re\nre.match(r'(a+)+$', 'a' * 50 + 'b')",
    "signals ignored": "import signal\nfor s in range(1, 65):\n    try:\n"
    "        signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\nwhile True: pass",
    "an endless repr": "class A:\n    def __repr__(self):\n        while True: pass\nreturn A()",
    "an endless deletion": "class A:\n    def __del__(self):\n        while True: pass\nA()",
    "an endless comparison": "class A:\n    def __eq__(self, other):\n        while True: pass\n"
    "return A()",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_program_ends_at_its_limit(short, name):
    check = "assert f() == int(1)" if "comparison" in name else "assert f() == 1"
    result = one(short, ENDLESS[name], check)
    assert result.status == "timeout" and result.seconds >= SHORT
    assert result.checks == (Check("stopped", "timeout", False),)


REFUSED = {
    "fork": "import os\nos.fork()",
    "fork by hand": "import ctypes\nif ctypes.CDLL(None).fork() == -1: raise PermissionError",
    "posix_spawn": "import os\nos.posix_spawn('/bin/true', ['true'], {})",
    "subprocess": "import subprocess\nsubprocess.run(['/bin/true'])",
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "multiprocessing": "import multiprocessing as m\n"
    "m.get_context('fork').Process(target=f).start()",
    "a thread": "import threading\nthreading.Thread(target=f).start()",
    "a socket": "import socket\nsocket.socket()",
    "a local socket": "import socket\nsocket.socket(socket.AF_UNIX)",
    "a socket pair": "import socket\nsocket.socketpair()",
    "a download": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1/')",
    "killing the parent": "import os\nos.kill(os.getppid(), 9)",
    "stopping the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)",
    "killing everything": "import os\nos.kill(-1, 0)",
    "a signal by way of a pipe": "import fcntl, os\n"
    "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
    "the parent's limits": "import os, resource\n"
    "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "its own limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "priority": "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "a file elsewhere": "open('BAIT/new', 'w')",
    "a file beside": "open('../escaped', 'w')",
    "a folder elsewhere": "import os\nos.mkdir('BAIT/new')",
    "deleting": "import os\nos.rmdir('..')",
    "deleting a file": "import os\nos.unlink('BAIT/file')",
    "deleting a folder": "import shutil\nshutil.rmtree('BAIT')",
    "renaming": "import os\nos.rename('BAIT/file', 'BAIT/new')",
    "fetching": "import os\nos.rename('BAIT/file', 'mine')",
    "linking": "import os\nos.link('BAIT/file', 'mine')",
    "appending": "open('BAIT/file', 'a').write('more')",
    "truncating": "import os\nos.truncate('BAIT/file', 0)",
    "truncating when reading": "import os\nos.open('BAIT/file', os.O_RDONLY | os.O_TRUNC)",
    "a mode": "import os\nos.chmod('BAIT/file', 0o777)",
    "a time": "import os\nos.utime('BAIT/file', (0, 0))",
    "through a link": "import os\nos.symlink('BAIT/new', 'a')\nopen('a', 'w')",
    "the password file": "open('/etc/passwd')",
    "the caller's memory": "import os\nopen(f'/proc/{os.getppid()}/environ')",
    "shared memory": "import os\nos.memfd_create('a')",
    "a host name": "import socket\nsocket.sethostname(socket.gethostname())",
    "a new namespace": "import ctypes\n"
    "if ctypes.CDLL(None).unshare(0x10000000) == -1: raise PermissionError",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_raises(box, name, tmp_path):
    if not box.layers["landlock"] and name in {"the password file", "the caller's memory"}:
        pytest.skip("reading is not confined without Landlock")
    bait = tmp_path / "file"
    bait.write_text("content")
    before = bait.stat()
    result = one(box, REFUSED[name].replace("BAIT", str(tmp_path)))
    assert result.status == "ended"
    known = {"PermissionError", "OSError", "URLError", "RuntimeError", "ValueError"}
    assert result.checks[0].kind == "raises" and result.checks[0].text in known, result
    assert bait.read_text() == "content" and os.listdir(tmp_path) == ["file"]
    assert (bait.stat().st_mode, bait.stat().st_mtime) == (before.st_mode, before.st_mtime)


FULL = "output or timeout"  # a slow disk decides
STOPPED = "exit or MemoryError or timeout"
ENDED = {  # status and, where the check was reached, what became of it
    "os._exit": ("import os\nos._exit(0)", "exit"),
    "a crash": ("import ctypes\nctypes.string_at(0)", "exit"),
    "abort": ("import os\nos.abort()", "exit"),
    "an alarm": ("import signal, time\nsignal.setitimer(0, 0.01)\ntime.sleep(1)", "exit"),
    "deep recursion": ("import sys\nsys.setrecursionlimit(10**9)\nreturn f()", STOPPED),
    "recursion": ("return f()", "RecursionError"),
    "SystemExit": ("raise SystemExit(0)", "SystemExit"),
    "sys.exit": ("import sys\nsys.exit()", "SystemExit"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "GeneratorExit": ("raise GeneratorExit", "GeneratorExit"),
    "memory": ("'a' * 10**11", "MemoryError"),
    "memory by and by": ("x = []\nwhile True: x.append(bytes(10**6))", "MemoryError"),
    "many files open": ("x = [open('/dev/null') for i in range(100)]", "OSError"),
    "a large file": ("open('a', 'wb').write(bytes(10**7))", "OSError"),
    "1 GB printed": ("for i in range(1000): print('a' * 10**6)", "output"),
    "many files": ("for i in range(10**9): open(str(i), 'w')", FULL),
    "much in files": (
        "for i in range(10**6): open(str(i % 99), 'wb').write(bytes(90000))",
        FULL,
    ),
    "a deep tree": ("import os\nwhile True:\n    os.mkdir('a')\n    os.chdir('a')", FULL),
    "every file closed": ("import os\nos.closerange(0, 100)", "exit"),
    "every file closed, then a loop": (
        "import os\nos.closerange(0, 100)\nwhile True: pass",
        "exit",
    ),
}


@pytest.mark.parametrize("name", ENDED)
def test_what_ends_or_fills_the_process(box, short, name):
    body, expected = ENDED[name]
    result = one(short if "timeout" in expected else box, body)
    assert not result.checks[0].passed
    assert {result.status, result.checks[0].text} & set(expected.split(" or ")), result
    assert len(result.output) <= OUTPUT


HARMLESS = {
    "exit at the end": "import atexit, time\natexit.register(time.sleep, 1e6)",
    "an endless deletion": "global x\nclass A:\n    def __del__(self):\n        while True: pass\n"
    "x = A()",
    "standard output closed": "import sys\nsys.stdout.close()\nsys.stderr.close()",
    "standard output gone": "import sys\nsys.stdout = sys.__stdout__ = None",
    "a file of its own": "open('a', 'w').write('b')\nassert open('a').read() == 'b'",
    "a temporary file": "import tempfile\ntempfile.TemporaryFile().write(b'a')",
    "writing to nowhere": "open('/dev/null', 'w').write('b')",
    "a folder without rights": "import os\nos.makedirs('a/b/c')\nos.mkdir('a/b/c/d', 0)",
    "an alarm later": "import signal\nsignal.alarm(1)",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_passes(box, name):
    writes = {
        "a file of its own",
        "a temporary file",
        "writing to nowhere",
        "a folder without rights",
    }
    if not box.layers["landlock"] and name in writes:
        pytest.skip("no file is written without Landlock")
    result = one(box, HARMLESS[name])
    assert result.checks == (Check("value", "1", True),)


CHEATS = {
    "always equal": "class A:\n    def __eq__(self, other): return True\ndef f(): return A()",
    "an equal int": "class A(int):\n    def __eq__(self, other): return True\n"
    "    def __repr__(self): return '1'\ndef f(): return A(2)",
    "an equal list": "class A(list):\n    def __eq__(self, other): return True\n"
    "    def __iter__(self): return iter([1])\ndef f(): return A()",
    "patched builtins": "import builtins\n"
    "for n in 'repr type issubclass compile eval bool len sorted str exec'.split():\n"
    "    setattr(builtins, n, lambda *a, **k: '1')\ndef f(): return 2",
    "patched __builtins__": "__builtins__.eval = lambda *a: 1\ndef f(): return 2",
    "patched json": "import json\njson.dumps = json.JSONEncoder.encode = lambda *a: '1'\n"
    "def f(): return 2",
    "printed": 'def f(): print(\'1\'); print(\'["check", "value", "1", true]\'); return 2',
    "reported": 'import os\nos.write(3, b\'["check", "value", "1", true]\\n\')\ndef f(): return 2',
    "an exit of success": "import os\nos._exit(0)\ndef f(): return 2",
    "assert as nothing": "AssertionError = None\ndef f(): return 2",
}


@pytest.mark.parametrize("check", ["assert f() == 1", "assert f() == int('1')"])
@pytest.mark.parametrize("name", CHEATS)
def test_a_wrong_program_does_not_pass(box, name, check):
    # What is not a literal is compared in the child, by the program's own rule: documented.
    lost = name == "always equal" and "int" in check
    assert whole(box, CHEATS[name], check).checks[0].passed == lost


def test_output_is_kept_and_bounded(box):
    result = box.run("print('seen')\nimport sys\nprint('too', file=sys.stderr)", [])
    assert result.output.split() == ["seen", "too"] and result.status == "ended"
    loud = box.run("print('a' * 10**6)", [])
    assert loud.status == "output" and len(loud.output) == OUTPUT


def test_the_helper_is_replaced_when_it_dies_and_leaves_nothing():
    sandbox = Sandbox(time_limit=LIMIT)
    program = ("def f(): return 1", ["assert f() == 1"])
    assert sandbox.run(*program).checks[0].passed
    first, root = sandbox._process, sandbox._root
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert sandbox.run(*program).checks[0].passed
    assert sandbox._process.pid != first.pid
    root = sandbox._root
    sandbox.close()
    assert not os.path.exists(root)
    assert sandbox.run(*program).checks[0].passed
    sandbox.close()
    sandbox.close()


def test_a_child_dies_with_the_helper():
    with Sandbox(time_limit=60.0) as sandbox:
        request = {"code": "while True: pass", "setup": "", "checks": []}
        data = json.dumps(request).encode()
        sandbox._process.stdin.write(len(data).to_bytes(4, "big") + data)
        children = pathlib.Path(
            f"/proc/{sandbox._process.pid}/task/{sandbox._process.pid}/children"
        )
        if not children.exists():
            pytest.skip("this kernel does not list children")
        deadline = time.monotonic() + 10
        while not (child := children.read_text().split()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        sandbox._process.kill()
        sandbox._process.wait()
        while os.path.exists(f"/proc/{child[0]}/cwd") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.monotonic() < deadline


# Kernels that have less: system calls taken away before the sandbox starts.


LESS = """
import ctypes, errno, sys, types
package = sys.modules["thicket_jax"] = types.ModuleType("thicket_jax")
package.__path__ = ["thicket_jax"]  # without what the package imports, which takes seconds
from thicket_jax.text.sandbox import sandbox
I = type("I", (ctypes.Structure,), {"_fields_": [("c", ctypes.c_ushort), ("t", ctypes.c_ubyte),
    ("f", ctypes.c_ubyte), ("k", ctypes.c_uint)]})
P = type("P", (ctypes.Structure,), {"_fields_": [("n", ctypes.c_ushort), ("i", ctypes.POINTER(I))]})
libc = ctypes.CDLL(None)
def take_away(number, argument, value, error):
    code = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16 + 8 * argument),
            (0x15, 0, 1, value), (6, 0, 0, 0x50000 | error), (6, 0, 0, 0x7FFF0000)]
    program = P(len(code), (I * len(code))(*code))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
take_away(444, 0, 0, errno.ENOSYS)
layers = sandbox.layers()
assert layers == {"seccomp": True, "landlock": False, "capabilities": True}, layers
with sandbox.Sandbox() as box:
    for body, kind in [("open('a', 'w')", "raises"), ("import os; os.mkdir('a')", "raises"),
                       (f"open({sys.argv[1]!r}, 'w')", "raises"),
                       ("import os; os.fork()", "raises"), ("import dis, wave", "value"),
                       (f"import os; os.unlink({sys.argv[1]!r})", "raises")]:
        result = box.run(f"def f():\\n    {body}\\n    return 1", ["assert f() == 1"])
        assert result.checks[0].kind == kind, (body, result)
take_away(PRCTL, 0, 22, errno.EINVAL)
assert sandbox.layers()["seccomp"] is False
try:
    sandbox.Sandbox().run("x = 1", [])
except sandbox.SandboxError as error:
    assert "seccomp" in str(error) and "\\n" not in str(error)
else:
    raise SystemExit("it ran unconfined")
with sandbox.Sandbox(allow_unsafe=True) as box:
    assert box.run("def f(): return 1", ["assert f() == 1"]).checks[0].passed
"""


def test_where_the_kernel_has_less(tmp_path):
    (bait := tmp_path / "file").write_text("content")
    prctl = {"x86_64": 157, "aarch64": 167}[os.uname().machine]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LESS.replace("PRCTL", str(prctl)), str(bait)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert bait.read_text() == "content"


def test_an_interpreter_that_does_not_start_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(sandbox_module, "_RUNNER", pathlib.Path("/nowhere/runner.py"))
    with pytest.raises(SandboxError, match=r"does not start with .*: .*can't open file") as caught:
        Sandbox().run("x = 1", [])
    assert "\n" not in str(caught.value) and isinstance(caught.value, ThicketError)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"time_limit": 0}, "time_limit=0 must be"),
        ({"time_limit": float("nan")}, "time_limit=nan must be"),
        ({"time_limit": "5"}, "time_limit='5' must be"),
        ({"memory_bytes": 1000}, "memory_bytes=1000 must be at least"),
        ({"output_bytes": 0}, "output_bytes=0 must be at least"),
    ],
)
def test_limits_that_cannot_work(limits, message):
    with pytest.raises(ArgumentError, match=message):
        Sandbox(**limits)


@pytest.mark.parametrize(
    ("body", "checks"),
    [
        ("return np.sum(x)", ["assert f([1, 2]) == 3", "assert [f([1, 2])] == [3]"]),
        ("return np.mean(x)", ["assert f([1, 2]) == 1.5"]),
        ("return np.max(x) > 1", ["assert f([1, 2]) == True"]),
        ("return np.linalg.solve(np.eye(99), np.ones(99)).tolist()", ["assert f(0)[:2] == [1, 1]"]),
        ("return int(np.random.default_rng(x).integers(1, 2))", ["assert f(0) == 1"]),
        ("return (np.ones((300, 300)) @ np.ones((300, 300)))[0, 0]", ["assert f(0) == 300"]),
    ],
)
def test_numpy_is_there_without_threads_of_its_own(box, body, checks):
    result = box.run(f"import numpy as np\ndef f(x): {body}", checks)
    assert all(check.passed for check in result.checks), result
    assert not box.run("import numpy\ndef f(): import jax", ["assert f()"]).checks[0].passed
