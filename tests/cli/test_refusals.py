"""Every option of every command and every task: read or refused, and refused before any work.

The commands run in this process up to the work itself, which is replaced: nothing is trained,
loaded, compiled or written. tyro takes a tenth of a second to read an option, so that most words
are read by a reader of a few lines here; tyro's own reading has tests of its own.
"""

import dataclasses
import functools
import typing

import jax
import numpy as np
import pytest
from language_cases import CASES
from language_models import make_checkpoint
from language_tasks import write
from sealed_runs import log_of, search, whole_record

import thicket_jax as tj
from thicket_jax.cli import density, export, landscape, machine, main, parsing, report, run
from thicket_jax.cli.options import ExportOptions, Machine, Out, ReportOptions, Selection
from thicket_jax.errors import ArgumentError
from thicket_jax.experts import leaves
from thicket_jax.runs import export as exports
from thicket_jax.runs import files
from thicket_jax.search import pipeline
from thicket_jax.tasks import registry
from thicket_jax.tasks.images import task as images
from thicket_jax.tasks.language import settings, shared
from thicket_jax.tasks.signals import task as signals
from thicket_jax.text import pretrained

pytest.importorskip("transformers")
pytest.importorskip("tensorflow_datasets")

hints_of = functools.cache(typing.get_type_hints)

LANGUAGE = [name for name in registry.REGISTRY if name not in ("signals", "digits")]
HUGE = str(10**12)
# What cannot be, whatever the option is, by its type. Of an option that takes one of them: FINE.
WRONG = {
    int: ("0", "-1", HUGE),
    float: ("0", "-1", "nan", "inf", "1e300"),
    tuple[int, ...]: ("0", "-1", "1,1", HUGE, "1,,2"),
    tuple[float, ...]: ("0", "-1", "nan", "inf", "1e300", "0.1,,0.2"),
    tuple[str, ...]: (),
    bool: (),
    str: ("nosuch",),
}
# What is as good as any other value.
FINE = {
    ("seed", "0"), ("rows", "0"), ("rows", HUGE), ("grade_workers", "0"), ("cpu_devices", "0"),
    ("margins", "0"), ("margins", "-1"), ("margins", "1e300"), ("system", "nosuch"),
    ("prompt", "nosuch"), ("name", "nosuch"), ("out", "nosuch"), ("cache", "nosuch"),
    ("to", "nosuch"), ("few_shot", "0"), ("temperature", "0"),
}  # fmt: skip
# Wrong values of single options, beside those of their type.
OWN = {
    "where": ("(",),
    "masses": ("=2", "kernel=0", "kernel=nan", "kernel=2,nosuch=2", "(=2"),
    "prompt": ("{nosuch}",),
    "template": ("nosuch", "=1", "1x=2", "nosuch=1", "mood=True"),
    "coordinator": ("host", "host:0", "host:99999"),
    "vote": ("mean,,median", "mean,mean"),
    "name": ("../x", "x" * 101),
    "out": ("/proc/x",),
    "cache": ("/proc/x",),
    "ranks": ("1", "1,2,3", "99,1"),
}
# What an option needs beside it, so that it is read.
BESIDE = {
    "rank": ("--noise", "low_rank"),
    "factors": ("--noise", "low_rank"),
    "masses": ("--scale", "modular"),
    "budget": ("--select", "halving"),
    "delta": ("--select", "race"),
    "ranks": ("--plane", "experts"),
    "top": ("--plane", "principal"),
    "choices": ("--grader", "contains-word"),
}


def kind_of(hint):
    """int, float, bool, str or a tuple, of what may be None too."""
    if typing.get_origin(hint) is typing.Literal:
        return str
    inside = [each for each in typing.get_args(hint) if each is not type(None)]
    return inside[0] if type(None) in typing.get_args(hint) else hint


def options_of(kind):
    """Name → type of every option of a record."""
    hints = hints_of(kind)
    return {field.name: kind_of(hints[field.name]) for field in dataclasses.fields(kind)}


def task_options(name):
    return options_of(registry.module(name).Options)


def flag(name):
    return "--" + name.replace("_", "-")


def read(kind, words, prog):
    """`parsing.parse` in a few lines, and in a thousandth of its time."""
    parsing.given(words)
    values, i = {}, 0
    while i < len(words):
        name = words[i].removeprefix("--").replace("-", "_")
        alone = i + 1 == len(words) or words[i + 1].startswith("--")
        values[name] = None if alone else words[i + 1]
        i += 1 if alone else 2
    made = _record(typing.get_args(kind)[0] if typing.get_args(kind) else kind, values)
    assert not values, f"no options: {values}"
    return made


def _record(kind, values):
    fields, hints = {}, hints_of(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            fields[field.name] = _record(hints[field.name], values)
        elif f"no_{field.name}" in values:
            fields[field.name] = values.pop(f"no_{field.name}") is not None
        elif field.name in values:
            fields[field.name] = _value(field.name, kind_of(hints[field.name]), values)
            known = typing.get_args(hints[field.name])
            if known and known[0].__class__ is str and fields[field.name] not in known:
                raise ArgumentError(f"{flag(field.name)} is none of {known}")
    return kind(**fields)


def _value(name, kind, values):
    text = values.pop(name)
    if kind is bool:
        return True
    try:
        if typing.get_origin(kind) is tuple:
            return tuple(typing.get_args(kind)[0](word) for word in text.split(","))
        return kind(text)
    except ValueError as error:
        raise ArgumentError(f"Error parsing {flag(name)}: {error}") from None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A checkpoint, data of every task, a finished run of signals and one that is not."""
    folder = tmp_path_factory.mktemp("world")
    make_checkpoint(folder / "model", chat=True, says="0")
    make_checkpoint(folder / "other_model", says="1")
    for name, case in CASES.items():
        place, rows = folder / name.split()[0], [case.row(i) for i in range(12)]
        if place.name == "qa":
            rows = [{**row, "options": [row["answer"], "7"], "number": "7"} for row in rows]
        write(place / "train.jsonl", rows)
        write(folder / f"other_{place.name}" / "train.jsonl", rows[3:])
        write(folder / f"test_{place.name}" / "test.jsonl", rows)
    record = whole_record()
    stored = signals.Options(num=5, k=(1, 3), train_items=4, test_items=4).resolved().to_json()
    record.config.update(task="signals", options=stored, command="thicket run signals")
    search(record, folder / "run")
    log_of(record, folder / "unfinished").close()
    files.write_json(folder / "unfinished" / "config.json", record.config)
    return folder


@pytest.fixture
def unworked(monkeypatch, tmp_path):
    """Reaching any work fails; options are read by `read`."""

    def reached(what):
        def fail(*_, **__):
            raise AssertionError(f"{what} was reached")

        return fail

    for module, name in (
        (signals, "pretrain"), (images, "pretrain"), (pretrained, "load"), (shared, "Graders"),
        (pipeline, "execute"), (exports, "export"), (jax.distributed, "initialize"),
        (landscape, "_score_all"), (jax.stages.Lowered, "compile"), (machine, "_await"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, reached(name))
    for module in (run, density, landscape, report, export):
        monkeypatch.setattr(module, "parse", read)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def refusal(capsys, *words):
    """The one line with which a command is refused; what went wrong where it is not."""
    try:
        code = main.main([str(word) for word in words])
    except Exception as error:
        return f"RAISED {type(error).__name__}: {error}"
    captured = capsys.readouterr()
    lines = [x for x in captured.err.strip().splitlines() if x.startswith("thicket: ")]
    if (code, len(lines), captured.out) != (2, 1, ""):
        return f"CODE {code}: {captured}"
    return lines[0]


def base(name, world, cache):
    """The words of a small run of a task, as option → values."""
    words = {"num": 4, "k": "2", "train_items": 2, "test_items": 2, "cache": cache}
    if name == "digits":
        words |= {"validation_items": 2, "pretrain_items": 8}
    if name in LANGUAGE:
        words |= {"model": world / "model", "max_tokens": 4}
    if name in LANGUAGE and name != "stories":
        words["data"] = world / name
    return words


def spelled(words):
    return [str(word) for name, value in words.items() for word in (flag(name), value)]


def wrong_values(name, kind):
    typed = WRONG[str if typing.get_origin(kind) is typing.Literal else kind]
    return [x for x in ("", *typed, *OWN.get(name, ())) if (name, x) not in FINE]


def attempts(options):
    """(option, a value that cannot be) of all options."""
    return [(name, value) for name, kind in options.items() for value in wrong_values(name, kind)]


def says(line, name, value):
    """Whether a refusal names the option, or the value where that is a path or a name."""
    named = name in line.replace("-", "_") or (len(value) > 3 and value in line)
    return named and line.startswith("thicket: ")


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_a_wrong_value_of_any_option_of_a_task_is_one_line_before_any_work(
    name, world, cache, unworked, tmp_path, capsys
):
    options = task_options(name) | options_of(Selection)
    if name == "signals":  # what is of no task is tried with one
        options |= options_of(Machine) | options_of(Out)
    tried, faults = 0, []
    for option, value in attempts(options):
        beside = BESIDE.get(option, ())
        if name in ("stories", "countdown") and option in ("test_data", "data"):
            beside = ()
        words = {x: y for x, y in base(name, world, cache).items() if x != option}
        place = () if option == "out" else ("--out", tmp_path / "run")
        line = refusal(capsys, "run", name, *spelled(words), *beside, *place, flag(option), value)
        faults += [] if says(line, option, value) else [(option, value, line)]
        tried += 1
    assert faults == []
    assert tried > 3 * len(options) and list(tmp_path.iterdir()) == []


COMMANDS = {
    "resume": (Machine, ("resume", "unfinished"), ()),
    "report": (ReportOptions, ("report", "run"), ()),
    "landscape": (landscape.Options, ("landscape", "run"), ()),
    "export": (ExportOptions, ("export", "run"), ()),
    "density": (density.DensityOptions, ("density", "signals", "digits"), ()),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_value_of_any_option_of_a_command_is_one_line_before_any_work(
    name, world, cache, unworked, tmp_path, capsys
):
    kind, (command, *places), _ = COMMANDS[name]
    before = {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
    places = [world / place if (world / place).exists() else place for place in places]
    faults = []
    for option, value in attempts(options_of(kind)):
        if (name, option) in (("report", "to"), ("density", "out")) and value:
            continue
        beside = list(BESIDE.get(option, ()))
        if name == "export":
            beside += [] if option == "to" else ["--to", tmp_path / "x"]
            beside += [] if option in ("rank", "merge") else ["--rank", "1"]
            beside = [x for x in beside if x not in ("--noise", "low_rank")]
        line = refusal(capsys, command, *places, *beside, flag(option), value)
        faults += [] if says(line, option, value) else [(option, value, line)]
    assert faults == []
    assert list(tmp_path.iterdir()) == []
    assert before == {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}


class Ran(Exception):  # noqa: N818
    """A search would have begun; what it is."""


class Recorded:
    """Graders that keep what they were told."""

    def __init__(self, *told, **options):
        self.told = (told, options)

    def classes(self, answers):
        return answers

    def close(self):
        pass


def described(value, depth=5):
    """A function and what it closes over, graders and arrays, as values that can be compared."""
    if isinstance(value, Recorded):
        return value.told
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and depth:
        parts = [getattr(value, x.name) for x in dataclasses.fields(value)]
        return (type(value).__name__, *(described(x, depth - 1) for x in parts))
    if isinstance(value, jax.Array | np.ndarray):
        return files.fingerprint(value)
    if callable(value) and depth:
        value = getattr(value, "__wrapped__", value)
        cells = getattr(value, "__closure__", None) or ()
        bound = getattr(value, "__self__", None)
        return (
            getattr(value, "__qualname__", ""),
            tuple(described(cell.cell_contents, depth - 1) for cell in cells),
            described(bound, depth - 1) if bound is not None else None,
        )
    return repr(value)


@pytest.fixture
def runs_until_the_search(monkeypatch, tmp_path):
    """A run up to its search; returns a function, words → what would be searched, or a refusal."""
    told = []

    def note(name, value=None):
        def noted(*arguments, **options):
            told.append((name, str(arguments[1:]) if name == "cached" else described(arguments)))
            return value

        return noted

    def execute(problem, experts, settings, about):
        mapper = settings.placement.mapper
        facts = [experts.to_json(), settings.k, mapper.backend, settings.placement.block_size]
        facts += [settings.placement.stream, settings.run_dir, settings.rule, about["model"]]
        facts += [problem.metric.name, list(problem.combines), described(problem.score_fn)]
        facts += [described(problem.grade), described(problem.answering), about["notes"]]
        trees = (
            problem.params,
            problem.train,
            problem.test,
            problem.answering and (problem.answering.pieces, problem.answering.sampled),
        )
        raise Ran(repr([*facts, [files.fingerprint(tree) for tree in trees], told]))

    def cached(folder, name, fingerprint, make):
        told.append((str(folder), name, str(sorted(fingerprint.items()))))
        return make()

    def trained(module, *arguments):
        key, *how = [x for x in arguments if not isinstance(x, images.Net)]
        told.append([np.shape(x) if isinstance(x, jax.Array) else x for x in how])
        if module is signals:
            return signals.initialise(key, "xavier"), np.zeros(100)
        shapes = jax.eval_shape(arguments[0].initialise, key)
        return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes), np.zeros(100)

    real = images.open_images("digits", tmp_path / "tfds")

    def open_images(name, folder):
        told.append((name, str(folder)))
        return real

    update = jax.config.update
    for module in (signals, images):
        monkeypatch.setattr(module, "cached", cached)
        monkeypatch.setattr(module, "pretrain", lambda *x, module=module: trained(module, *x))
    monkeypatch.setattr(images, "open_images", open_images)
    monkeypatch.setattr(
        images,
        "_accuracies",
        lambda net, dtype, params, keys, held, *_: told.append(len(held)) or {},
    )
    monkeypatch.setattr(
        images, "apply_condition", lambda name, key, items, clean: told.append((name, key)) or clean
    )
    monkeypatch.setattr(shared, "Graders", Recorded)
    monkeypatch.setattr(pipeline, "execute", execute)
    monkeypatch.setattr(jax.distributed, "initialize", note("initialize"))
    monkeypatch.setattr(machine, "_await", note("await"))
    monkeypatch.setattr(jax.config, "update", lambda *x: told.append(x) or update(*x))
    monkeypatch.setattr(run.compiled, "keep", note("keep"))
    monkeypatch.setattr(run, "parse", read)
    monkeypatch.chdir(tmp_path)

    def outcome(capsys, *words):
        told.clear()
        try:
            code = main.main([str(word) for word in words])
        except Ran as ran:
            said = bool(capsys.readouterr().err)
            return "ran", f"{ran} {said}"
        assert code == 2
        return "refused", capsys.readouterr().err.splitlines()[-1]

    return outcome


# A value of every option, other than the one that `base` and the defaults have.
GOOD = {
    "num": "6", "k": "1", "sigma": "0.1", "noise": "rademacher", "rank": "2", "scale": "relative",
    "factors": "rademacher", "masses": "kernel=2", "where": "kernel", "antithetic": None,
    "prng": "threefry4x32", "seed": "1", "train_items": "3", "test_items": "3",
    "precision": "bfloat16", "pretrain": "line", "target": "line", "dataset": "mnist",
    "condition": "noisy", "pretrain_steps": "50", "pretrain_items": "9", "validation_items": "3",
    "max_tokens": "5", "no_chat": None, "system": "the", "rows": "1", "sample_temperature": "0.5",
    "sample_top_p": "0.5", "grade_workers": "1", "grade_seconds": "20", "question": "answer",
    "allow_test_selection": None, "answer": "question", "choices": "options", "reward": "position",
    "grader": "contains-word", "extraction": "flexible", "prompt": "a {question}",
    "program_seconds": "4", "program_megabytes": "256", "block_size": "1", "backend": "none",
    "cpu_devices": "8", "coordinator": "host:1", "processes": "2", "process_id": "1",
    "distributed": None, "stream": None, "no_compile_cache": None, "quiet": None,
    "template": "mood=1", "few_shot": "1", "stop": "0", "task_stops": None, "temperature": "0.5",
    "draft": "base", "rounded": None, "no_rounded": None, "select": "race", "budget": "0.9",
    "delta": "0.1", "out": "elsewhere", "cache": "other",
}  # fmt: skip
COMBINATIONS = {
    "signals": [
        {}, {"noise": "low_rank"}, {"noise": "tied_gaussian"}, {"scale": "modular"},
        {"noise": "low_rank", "scale": "modular"}, {"select": "halving", "budget": "0.8"},
        {"select": "race"},
        {"backend": "none"}, {"pretrain": "xavier"}, {"no_compile_cache": None},
        {"pretrain": "xavier", "no_compile_cache": None}, {"distributed": None},
        {"coordinator": "host:1", "processes": "2", "process_id": "1"},
    ],
    "qa": [
        {}, {"grader": "contains-word"}, {"grader": "numeric", "answer": "number"},
        {"grader": "language_tasks:write"}, {"no_compile_cache": None},
    ],
}  # fmt: skip


# What is tried in every combination: what belongs to another option, or has others belong to it.
BELONGING = {
    "noise", "rank", "factors", "rounded", "no_rounded", "scale", "masses", "select", "budget",
    "delta", "backend", "no_compile_cache", "pretrain", "coordinator",
    "processes", "process_id", "distributed", "grader", "choices", "extraction", "answer",
}  # fmt: skip


# What says where a search runs, and is given to every command of a machine alike.
OF_A_MACHINE = {"cache", "cpu_devices"}


def good_value(name, option, world):
    """Another value of an option, as a word; None for a flag."""
    if option in ("model", "data", "test_data"):
        place = {"model": "other_model", "data": f"other_{name}", "test_data": f"test_{name}"}
        return str(world / place[option])
    if name in LANGUAGE and option in ("masses", "where"):
        return {"masses": "mlp=2", "where": "mlp"}[option]
    if name == "qa" and option == "extraction":
        return "strict"
    return GOOD[option]


def options_to_try(name, first):
    """What a task has of its own; with `first`, what it shares with others too."""
    own = set(task_options(name)) - set(options_of(settings.Options))
    found = set(task_options(name)) if first else own | {"seed", "train_items"}
    if first and name == "signals":
        found |= {x for kind in (Machine, Selection, Out) for x in options_of(kind)}
    flags = {"chat": "no_chat", "compile_cache": "no_compile_cache"}
    flags |= {} if name in LANGUAGE else {"rounded": "no_rounded"}
    return sorted(flags.get(x, x) for x in found)


@pytest.mark.parametrize("name", registry.REGISTRY)
def test_an_option_changes_what_is_searched_or_is_refused(
    name, world, cache, runs_until_the_search, capsys
):
    first, faults = name in ("signals", "digits", "qa"), []
    for combination in COMBINATIONS.get(name, [{}]):
        plain = base(name, world, cache) | {"out": "run"} | combination
        without = runs_until_the_search(capsys, "run", name, *worded(plain))
        assert without[0] == "ran", (combination, without)
        for option in options_to_try(name, first):
            given = plain | {option: good_value(name, option, world)}
            if given == plain or (combination and option not in BELONGING):
                continue
            if option in OF_A_MACHINE:
                continue
            before = without
            if option == "allow_test_selection" and "data" in plain:
                given["data"] = world / f"test_{name}"
                plainly = worded(plain | {"data": given["data"]})
                before = runs_until_the_search(capsys, "run", name, *plainly)
            how, found = runs_until_the_search(capsys, "run", name, *worded(given))
            refused = how == "refused" and says(found, option.removeprefix("no_"), "")
            if not refused and (how, found) == before:
                faults.append((combination, option, how))
    assert not faults, "\n".join(map(str, faults))


def worded(words):
    """The words of options; None is a flag."""
    return [
        str(word)
        for name, value in words.items()
        for word in ((flag(name),) if value is None else (flag(name), value))
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--num", "many"), "Error parsing --num"),
        (("--num", "1.5"), "Error parsing --num"),
        (("--grade-seconds", "soon"), "Error parsing --grade-seconds"),
        (("--k", "1,,2"), "'1,,2' is not a comma-separated list of ints"),
        (("--sigma", "0.1;0.2"), "'0.1;0.2' is not a comma-separated list of floats"),
        (("--test-items", "many"), "'many' is not a whole number; see"),
        (("--budget", "1/2"), "'1/2' is not a number; see"),
        (("--antithetic", "yes"), "Unrecognized options: yes"),
        (("--out",), "--out"),
        (("--num", "4", "--num", "5"), "--num is given twice; give it once"),
        (("--chat", "--no-chat"), "--no-chat is given twice"),
        (("--train_items", "2", "--train-items=2"), "--train-items is given twice"),
        (("--where=",), "--where is empty; give it a value"),
        (("--nun", "4"), "perhaps you meant --num"),
    ],
)
def test_words_that_are_no_options(words, says, capsys):
    line = refusal(capsys, "run", "stories", "--model", "nowhere", *words)
    assert line.startswith("thicket: ") and says in line


def test_the_short_reader_reads_as_tyro_does():
    words = ["--num", "4", "--k", "1,2", "--sigma", "0.1", "--no-chat", "--model", "m", "--quiet"]
    words += ["--block-size", "2", "--no-compile-cache", "--sample-top-p", "0.5", "--stream"]
    parsed = run._parse("stories", words)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "parse", read)
        assert dataclasses.astuple(parsed) == dataclasses.astuple(run._parse("stories", words))


UNREAD = [
    (["landscape", "RUN", "--ranks", "1,2"], "--ranks belongs to --plane experts; leave it out"),
    (["landscape", "RUN", "--top", "2"], "--top belongs to --plane principal"),
    (["landscape", "RUN", "--plane", "experts", "--seed", "1"], "--seed belongs to --plane random"),
    (["export", "RUN", "--rank", "1", "--merge", "2", "--to", "x"], "either --rank or --merge"),
    (["density", "signals", "digits", "--digits.num", "4"], "--digits.num makes an expert, and"),
    (["density", "signals", "digits", "--rank", "1"], "--rank belongs to --noise low_rank"),
    (["density", "signals", "digits", "--signals.rank", "1"], "--signals.rank belongs to --noise"),
    (
        ["density", "signals", "--train-items", "4", "--signals.train-items", "5"],
        "--train-items is given to every task by itself too; leave it out",
    ),
    (["density", "signals", "--select", "race"], "no options: {'select'"),
    (["run", "digits", "--cpu-devices", "3"], "--cpu-devices 3 cannot be had: JAX has 8 cpu"),
    (["run", "digits", "--distributed", "--processes", "2"], "leave out --coordinator"),
    (["run", "digits", "--budget", "0.5"], "budget is an option of select='halving'"),
    (["tasks", "--all"], "thicket tasks takes no options"),
]


@pytest.mark.parametrize(("words", "says"), UNREAD, ids=[" ".join(words) for words, _ in UNREAD])
def test_what_nothing_reads_is_refused_by_its_name(words, says, world, unworked, capsys):
    places = {"RUN": world / "run", "OPEN": world / "unfinished"}
    assert says in refusal(capsys, *(places.get(word, word) for word in words))


def test_a_vote_is_refused_where_no_answers_were_graded(world, unworked, monkeypatch, capsys):
    monkeypatch.setattr("thicket_jax.runs.record.RunRecord.gradable", False)
    assert "--vote is of no use" in refusal(capsys, "report", world / "run", "--vote", "mean")
    assert "k cannot be swept" in refusal(capsys, "report", world / "run", "--k", "1")


def test_the_cache_is_where_the_user_has_it(monkeypatch, tmp_path):
    options = signals.Options()
    home = options.cache_folder()
    for place, wanted in (
        (str(tmp_path), tmp_path / "thicket_jax"),
        ("relative", home),
        ("", home),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        assert machine.with_cache(options).cache_folder() == wanted
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    named = dataclasses.replace(options, cache="/elsewhere")
    assert machine.with_cache(named) == named


SEARCH = {"key": jax.random.key(0), "num": 4, "k": 2, "sigma": 0.1}
CALLS = {
    "num 0": ({"num": 0, "k": 5}, "num=0 must be"),
    "num -3": ({"num": -3}, "num=-3 must be"),
    "num nan": ({"num": float("nan")}, "num=nan must be"),
    "num huge": ({"num": 2**31, "k": 1}, "num=2147483648 must be below"),
    "num odd": ({"num": 3, "antithetic": True}, "num=3 must be even"),
    "k 0": ({"k": 0}, "k=0 must be"),
    "k above": ({"k": (1, 9)}, "k=9 is larger than num=4"),
    "k twice": ({"k": (1, 1)}, "k=1 is there twice"),
    "k none": ({"k": ()}, "k is empty"),
    "sigma 0": ({"sigma": 0.0}, "sigma=0 must be"),
    "sigma inf": ({"sigma": (0.1, float("inf"))}, "sigma=inf must be"),
    "sigma text": ({"sigma": "0.1"}, "sigma='0.1' must be"),
    "assign": ({"assign": "best"}, "assign='best' is unknown"),
    "noise": ({"noise": "gaussian"}, "noise='gaussian' must be a Noise"),
    "rank": ({"noise": tj.low_rank(5)}, "rank=5 is above the smaller side of every matrix; use 4"),
    "where": ({"noise": tj.gaussian(where="nosuch")}, "where='nosuch' matches none"),
    "masses": (
        {"noise": tj.gaussian(scale="modular", masses=(("nosuch", 2.0),))},
        "masses: 'nosuch' is found in none of the 2 leaves",
    ),
    "block 0": ({"block_size": 0}, "block_size=0 must be"),
    "block text": ({"block_size": "big"}, "block_size='big' must be"),
    "backend": ({"backend": "gpu"}, "backend='gpu' is unknown"),
    "devices": ({"devices": []}, "devices is empty"),
    "device": ({"devices": 1}, "devices=1 must be a list"),
    "select": ({"select": "best"}, "select='best' is unknown"),
    "budget": ({"budget": 0.5}, "budget is an option of select='halving'"),
    "budget low": ({"select": "halving", "budget": 0.1}, "budget=0.1 is too small for 4 experts"),
    "budget nearly 1": ({"select": "halving", "budget": 1.0000001}, "budget=1.0000001 must be"),
    "delta": ({"select": "halving", "delta": 0.5}, "delta is an option of select='race'"),
    "bounds": ({"bounds": (0, 1)}, "bounds is an option of select='race'"),
    "resume": ({"resume": True}, "resume=True goes on with a run; pass run_dir"),
    "targets": ({"targets": np.zeros(3)}, "targets were given without test"),
    "combine": ({"combine": tj.mean}, "combine=mean joins predictions; pass predict_fn="),
    "combine none": ({"combine": []}, "combine is empty"),
    "combine twice": (
        {"combine": [lambda x: x[0], lambda x: x[1]], "predict_fn": lambda w, x: x},
        "combine has two rules called '<lambda>'",
    ),
}


@pytest.mark.parametrize(("wrong", "says"), CALLS.values(), ids=CALLS)
def test_randopt_and_score_refuse_before_any_work(wrong, says, monkeypatch):
    def reached(*_, **__):
        raise AssertionError("a program was compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", reached)
    params = {"kernel": np.ones((6, 4), np.float32), "bias": np.ones(4, np.float32)}

    def score_fn(params, batch):
        return (batch @ params["kernel"] + params["bias"][None]).sum(1)

    train = np.ones((3, 6), np.float32)
    with pytest.raises(tj.ThicketError, match=says.replace("(", r"\(")) as caught:
        tj.randopt(score_fn, params, train, **SEARCH | wrong)
    assert "\n" not in str(caught.value)
    if wrong.keys() <= {"block_size", "backend", "devices"}:
        experts = tj.population(jax.random.key(0), 4, 0.1)
        with pytest.raises(tj.ThicketError, match=says):
            tj.score(score_fn, params, experts, train, **wrong)


def test_the_rank_of_a_stack_is_measured_once_its_axes_are_known():
    params = {"stack": np.ones((3, 8, 2), np.float32)}
    law = tj.low_rank(5)
    for axes, most in (((), 6), ((("stack", "brc"),), 2), ((("stack", "rcb"),), 3)):
        known = dataclasses.replace(law, axes=axes)
        fine = dataclasses.replace(known, rank=most)
        leaves.check_useful_rank(params, fine)
        with pytest.raises(tj.ThicketError, match=f"use {most} at most"):
            leaves.check_useful_rank(params, dataclasses.replace(known, rank=most + 1))
    with pytest.raises(tj.ThicketError, match="no leaf that moves is one"):
        leaves.check_useful_rank({"bias": np.ones(9, np.float32)}, law)


@pytest.mark.parametrize("where", [0, 30, 59, 60, 100, 199, 200])
def test_two_texts_that_differ_never_look_equal(where):
    first = "".join(chr(97 + i % 26) for i in range(200))
    second = f"{first[:where]}#{first[where + 1 :]}"
    for one, other in ((first, second), (second, first), (first, first[:where])):
        if one == other:
            continue
        shown = files.apart(one, other)
        assert shown[0] != shown[1] and max(map(len, shown)) <= 62
    assert files.apart("1", "2") == ("1", "2")
    long, longer = list(range(90)), [*range(89), 90]
    (said,) = files.differences({"ids": long}, {"ids": longer})
    was, now = said.removeprefix("ids was ").split(", is now ")
    assert was != now and was.endswith("88, 89]") and now.endswith("88, 90]")
