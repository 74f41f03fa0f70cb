"""Worker processes: order, time limits, deaths, errors, votes; as few processes as will do."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from thicket_jax.errors import ArgumentError, DataError, RunError, ScoreError
from thicket_jax.text.grading import Graders, Outcome, pool

ITEMS = [{"n": n, "list": [1, 2]} for n in range(5)]
GRADER = """
import os, re, signal, sys, time
from thicket_jax.text.grading.grading import Outcome

def grade(text, item):
    if text.startswith("hang"):
        re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter, so that only a kill helps
    if text == "sleep":
        time.sleep(1000)
    if text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if text == "raise":
        raise ValueError("no\\nway")
    if text == "leave":
        sys.exit("bye")
    if text == "once":
        if not os.path.exists("died"):
            open("died", "w").close()
            os._exit(1)
    if text == "chatter":
        print("x" * 300_000)
        assert sys.stdin.read() == ""
    if text == "other columns":
        return Outcome("a", 1.0, {"width": 1.0})
    score = item["n"] + len(item["list"])
    item["list"].clear()
    with open("graded", "a") as file:
        file.write("x")
    return Outcome(text[:20], score, {"length": len(text), "pid": os.getpid()})

def same(a, b):
    if "hang" in (a, b):
        time.sleep(1000)
    if "bad" in (a, b):
        raise ValueError("bad " + chr(0xD800))
    return a.lower() == b.lower()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grading")
    (folder / "user_grader.py").write_text(GRADER)
    return folder


@pytest.fixture(scope="module")
def graders(folder):
    before = pathlib.Path.cwd()
    os.chdir(folder)
    try:
        graders = Graders("user_grader:grade", ITEMS, workers=2, timeout=0.5)
    finally:
        os.chdir(before)
    with graders:
        yield graders


def graded(folder):
    return (folder / "graded").stat().st_size


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = pathlib.Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def pids(graders):
    return [worker.process.pid for worker in graders._pool._workers]


def test_texts_are_graded_in_order_and_equal_ones_once(graders, folder):
    texts = [(n % 5, f"text {n % 50}") for n in range(200)]
    outcomes = graders.grade(texts)
    assert [o.answer for o in outcomes] == [text for _, text in texts]
    assert [o.score for o in outcomes] == [index + 2 for index, _ in texts]  # its item is fresh
    assert graded(folder) == 50
    assert graders.grade(texts) == outcomes and graded(folder) == 50
    assert graders.grade([]) == []


def test_large_and_strange_texts_pass(graders):
    texts = [(0, "\ud800 \x00\u2028\r\n é"), (0, ""), (1, "x" * 3_000_000), (2, "y" * 3_000_000)]
    outcomes = graders.grade(texts)
    assert outcomes[0].answer == texts[0][1]
    assert [o.columns["length"] for o in outcomes] == [len(text) for _, text in texts]


def test_what_a_grader_prints_and_reads_does_not_disturb(graders):
    assert graders.grade([(0, "chatter"), (0, "quiet")])[0].answer == "chatter"


def test_a_text_that_hangs_costs_its_time_and_nothing_else(graders):
    before, counted = pids(graders), graders.timed_out
    start = time.monotonic()
    texts = [(0, "hang"), *((1, f"more {n}") for n in range(20))]
    outcomes = graders.grade(texts)
    missed = Outcome(None, 0.0, {"length": 0.0, "pid": 0.0})
    assert outcomes[0] == missed
    assert [o.answer for o in outcomes[1:]] == [text for _, text in texts[1:]]
    assert graders.grade(texts[:1]) == [missed]  # remembered
    assert graders.timed_out == counted + 1
    assert time.monotonic() - start < 30
    assert not any(map(alive, set(before) - set(pids(graders)))) and len(pids(graders)) == 2


def test_a_text_that_kills_its_worker_has_a_second_chance(graders):
    counted = graders.died
    outcomes = graders.grade([(0, "once"), (2, "fine"), (3, "crash")])
    assert [o.answer for o in outcomes] == ["once", "fine", None]
    assert [o.score for o in outcomes] == [2, 4, 0]
    assert graders.died == counted + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise", r"user_grader:grade raised ValueError: no way \(user_grader.py:13\) on item 3"),
        ("leave", "raised SystemExit: bye"),
        ("other columns", "returned the columns width for item 3, but its others are length, pid"),
    ],
)
def test_a_grader_that_raises_stops_everything_in_one_line(graders, text, message):
    with pytest.raises(ScoreError, match=message) as raised:
        graders.grade([(0, "before"), (3, text), (1, f"after {text}")])
    assert "\n" not in str(raised.value)
    assert graders.grade([(1, f"after {text}")])[0].answer == f"after {text}"


def test_answers_to_one_item_fall_into_classes(graders):
    answers = np.array(
        [["a", "A", None], ["A", "b", "hang"], ["b", "a", "x"], [None, "B", "hang"]], object
    )
    expected = [[0, 0, -1], [0, 1, 0], [1, 0, 1], [-1, 1, 0]]
    missed = graders.timed_out
    classes = graders.classes(answers)
    assert classes.dtype == np.int32 and classes.tolist() == expected
    assert graders.classes(answers).tolist() == expected and graders.timed_out == missed + 1
    assert graders.classes(answers[:0]).shape == (0, 3)
    with pytest.raises(ScoreError, match=r"ValueError: bad .* on the answers 'a' and 'bad'; mend"):
        graders.classes(np.array([["a"], ["bad"]], object))


def test_classes_do_not_depend_on_the_order_of_answers(folder):
    (folder / "near.py").write_text(
        "def grade(text, item):\n    return 0\n"
        # neither symmetric nor transitive
        "def same(a, b):\n    return int(b) - int(a) in (0, 1)\n"
    )
    orders = list(itertools.permutations(["1", "2", "3", "7", "5"]))
    with Graders(f"{folder}/near.py:grade", [{}] * len(orders), workers=1) as graders:
        classes = graders.classes(np.array(orders, object).T).T
    for order, found in zip(orders, classes.tolist(), strict=True):
        number = dict(zip(order, found, strict=True))
        assert number["1"] == number["2"] == number["3"]
        assert len({number["1"], number["5"], number["7"]}) == 3 == len(set(found))


def test_an_interrupt_leaves_workers_that_can_go_on(graders):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            graders.grade([(0, "hang on")])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert graders.grade([(0, "on")])[0].answer == "on"


def test_an_item_that_is_not_there_is_an_error(graders):
    for index in (5, -1):
        with pytest.raises(ArgumentError, match=f"item {index} is not one of the 5 items"):
            graders.grade([(index, "text")])


def test_closing_kills_the_workers_even_while_they_work(folder):
    graders = Graders(f"{folder}/user_grader.py:grade", ITEMS, workers=1, timeout=60)
    graders.ready()
    raised = []

    def work():
        try:
            graders.grade([(0, "hang")])
        except RunError as error:
            raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    running = pids(graders)
    graders.close()
    thread.join(10)
    assert raised == ["the graders were closed; open new ones"]
    assert not any(map(alive, running))
    with pytest.raises(RunError, match="closed"):
        graders.grade([(0, "text")])


def test_bad_options_start_nothing():
    for options in [{"workers": 0}, {"workers": 1.5}, {"timeout": 0}, {"timeout": float("inf")}]:
        with pytest.raises(ArgumentError, match=next(iter(options))):
            Graders("exact", [], **options)
    with pytest.raises(DataError, match="item 1 cannot be given to a grader"):
        Graders("exact", [{}, {"answer": {1, 2}}])


def test_a_grader_that_is_not_there_is_one_line():
    graders = Graders("no_such_module:grade", [], workers=1)
    with pytest.raises(ArgumentError, match="there is no module no_such_module") as raised, graders:
        pass
    assert "\n" not in str(raised.value)


def test_the_clock_of_a_start_runs_only_while_somebody_waits(folder, monkeypatch):
    """A pool that is left alone for longer than a start may take is as good as a new one."""
    (folder / "starts.py").write_text(
        f"open({str(folder / 'started')!r}, 'w').close()\n"
        "def grade(text, item):\n    return len(text)\n"
    )
    graders = Graders(f"{folder}/starts.py:grade", [{}], workers=1, timeout=60)
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (folder / "started").exists()  # nobody has asked for it yet
    for worker in graders._pool._workers:
        worker.since -= 1000  # as if it had been started long ago
    try:
        assert [o.score for o in graders.grade([(0, "abc"), (0, "ab")])] == [3, 2]
        with graders._pool._lock:
            graders._pool._replace(graders._pool._workers[0])
        for worker in graders._pool._workers:
            worker.since -= 1000
        assert graders.grade([(0, "abcd"), (0, "a")])[0].score == 4
    finally:
        graders.close()


def test_a_grader_that_kills_every_worker_ends_the_run_early_with_its_name(folder, monkeypatch):
    monkeypatch.setattr(pool, "_FIRST_DEATHS", 3)  # a worker takes a second to start
    (folder / "kills.py").write_text("import os\ndef grade(text, item):\n    os._exit(3)\n")
    with Graders(f"{folder}/kills.py:grade", [{}] * 50, workers=1) as graders:
        message = r"kills.py:grade died 3 times in a row, the last one ended with exit code 3 on it"
        with pytest.raises(ScoreError, match=message) as raised:
            graders.grade([(n, "text") for n in range(50)])
        assert "\n" not in str(raised.value)


def test_a_module_that_ends_its_process_is_one_line(folder):
    (folder / "ends.py").write_text("import os, sys\nos.write(2, b'oh no')\nos._exit(7)\n")
    graders = Graders(f"{folder}/ends.py:grade", [], workers=1)
    with pytest.raises(ScoreError, match="ended with exit code 7 at its start: oh no"), graders:
        pass


def test_equivalent_mathematical_answers_are_one_class():
    pytest.importorskip("math_verify")
    items = [{"answer": r"\frac{1}{2}"}, {"answer": "4"}]
    with Graders("math", items, workers=1, options={"extraction": "flexible"}) as graders:
        assert graders.columns == ("strict", "flexible")
        outcomes = graders.grade([(0, r"\boxed{0.5}"), (1, "It is $2+2$."), (1, "?")])
        assert [(o.answer, o.score) for o in outcomes] == [("0.5", 1), ("2+2", 1), (None, 0)]
        answers = np.array([["0.5", "4"], [r"\frac{1}{2}", "5"], ["1/2", "2+2"]], object)
        assert graders.classes(answers).tolist() == [[0, 0], [0, 1], [0, 0]]


PARENT = """
import json, os, sys, threading, time
from thicket_jax.text.grading.grading import Graders
graders = Graders(sys.argv[1], [{"n": 1, "list": []}], workers=1, timeout=60)
graders.ready()
print(json.dumps([worker.process.pid for worker in graders._pool._workers]), flush=True)
graders.grade([(0, "sleep")])
"""


def test_workers_die_with_a_parent_that_is_killed(folder):
    command = [sys.executable, "-c", PARENT, f"{folder}/user_grader.py:grade"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        workers = json.loads(parent.stdout.readline())
        time.sleep(0.3)
        assert all(map(alive, workers))
        parent.kill()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
