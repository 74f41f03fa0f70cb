"""The rooms: who may import whom, what importing costs, and that public names are documented."""

import ast
import doctest
import importlib
import inspect
import pathlib
import subprocess
import sys

import pytest

import thicket_jax as tj

ROOT = pathlib.Path(tj.__file__).parent
# A module imports only what stands before it.
DIRECTION = [
    "errors",
    "strings",
    "quiet",
    "threefry",
    "noise",
    "experts",
    "modular",
    "perturbation",
    "planes",
    "interpreter",
    "factored_rules",
    "implicit",
    "usage",
    "devices",
    "blocks",
    "calibration",
    "scoring",
    "selection",
    "schedules",
    "bounds",
    "pieces",
    "racing",
    "ensembles",
    "checkpoints",
    "runlog",
    "metrics",
    "landscapes",
    "analysis",
    "run_record",
    "resampling",
    "correlations",
    "discordance",
    "specialists",
    "reliability",
    "regret",
    "transfer",
    "sweeps",
    "subsampling",
    "tails",
    "committees",
    "baselines",
    "report_html",
    "report_numbers",
    "report_baselines",
    "report_text",
    "figures",
    "landscape_figure",
    "landscape_page",
    "report",
    "survey_selection",
    "survey",
    "survey_figures",
    "survey_page",
    "export",
    "problem",
    "answers",
    "manifest",
    "search",
    "text",
    "tasks",
    "compiled",
    "arguments",
    "launching",
    "density_command",
    "landscape_command",
    "cli",
]
# The same inside text; graders also import each other.
TEXT = [
    "rope",
    "rope_config",
    "config",
    "model",
    "decode",
    "tensor_files",
    "checkpoints",
    "pretrained",
    "tokenizer",
    "prompts",
    "rows",
    "data_files",
    "data",
    "countdown_dataset",
    "pool",
    "grading",
    "sandbox_syscalls",
    "sandbox_limits",
    "sandbox_values",
    "sandbox_runner",
    "sandbox_program",
    "sandbox",
    "graders",
    "worker",
]
NOT_FOR_TASKS = {"runlog", "report", "export", "search"}
HEAVY = [
    "flax",
    "optax",
    "orbax",
    "tensorflow_datasets",
    "tensorflow",
    "matplotlib",
    "sklearn",
    "scipy.stats",
    "tyro",
    "tqdm",
    "torch",
    "transformers",
    "safetensors",
    "math_verify",
    "sympy",
    "pyarrow",
    "tokenizers",
]
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in FILES}
TEXT_FILES = [name for name in TREES if name.startswith("text/") and name != "text/__init__.py"]
every_file = pytest.mark.parametrize("name", TREES)


def room(name):
    """The stage of a file: its module, or the package that it is in."""
    return name.split("/")[0].removesuffix(".py")


def imports(tree):
    """Every (module, name or None) that a file imports, also inside functions."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found += [(node.module, alias.name) for alias in node.names]
    return found


def stages(tree, package="thicket_jax"):
    """The stages of a package that a file imports; the package itself is ''."""
    found, depth = set(), package.count(".") + 1
    for module, name in imports(tree):
        parts = module.split(".")
        if parts[:depth] == package.split("."):
            found.add(parts[depth] if len(parts) > depth else name or "")
    return found


def test_every_room_is_on_the_list_once():
    rooms = {room(name) for name in TREES} - {"__init__"}
    assert rooms == set(DIRECTION)
    assert len(DIRECTION) == len(set(DIRECTION))


@pytest.mark.parametrize("name", [name for name in TREES if name != "__init__.py"])
def test_a_module_imports_only_earlier_stages(name):
    own = room(name)
    allowed = set(DIRECTION[: DIRECTION.index(own)])
    if own == "tasks":
        allowed = (allowed | {"tasks"}) - NOT_FOR_TASKS
    if own == "text":
        allowed = allowed | {"text"}
    assert stages(TREES[name]) - {""} <= allowed


def test_every_room_of_text_is_on_the_list_once():
    assert {room(name.removeprefix("text/")) for name in TEXT_FILES} == set(TEXT)
    assert len(TEXT) == len(set(TEXT))


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_module_of_text_imports_only_earlier_ones(name):
    own = room(name.removeprefix("text/"))
    allowed = set(TEXT[: TEXT.index(own)]) | ({"graders"} if own == "graders" else set())
    assert stages(TREES[name], "thicket_jax.text") <= allowed


@every_file
def test_the_package_itself_is_imported_for_its_version_alone(name):
    tree = TREES[name]
    if "" not in stages(tree):
        return
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "thicket_jax"
    }
    assert used == {"__version__"}


@every_file
def test_no_private_jax_no_environment_no_print(name):
    tree = TREES[name]
    assert not [m for m, n in imports(tree) if "_src" in m.split(".") or n == "_src"]
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"_src", "environ", "environb", "getenv", "putenv"}
    assert not {n for m, n in imports(tree) if m == "os"} - {None, "PathLike"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "print" not in names or name == "cli.py"


@every_file
def test_only_one_file_knows_how_work_is_spread(name):
    tree = TREES[name]
    spread = {"pmap", "shard_map", "Mesh", "NamedSharding", "multihost_utils"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {n for _, n in imports(tree)}
    assert not used & spread or name == "devices.py"


def test_importing_costs_jax_and_little_more():
    code = f"""
import sys, thicket_jax
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
assert "jax" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", tj.__all__)
def test_public_names_are_documented(name):
    thing = getattr(tj, name)
    assert inspect.getdoc(thing), name
    assert thing.__module__.startswith("thicket_jax.")
    if inspect.isfunction(thing):
        text = inspect.getdoc(thing)
        # An argument with no word about it: named nowhere in the text.
        assert [p for p in inspect.signature(thing).parameters if p not in text] == []


def test_the_list_of_public_names_is_complete_and_sorted():
    public = {
        name
        for name, thing in vars(tj).items()
        if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert sorted(public) == tj.__all__


@pytest.mark.parametrize(
    "name",
    [room for room in DIRECTION if room not in ("text", "tasks", "cli")]
    + [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in TEXT_FILES],
)
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(f"thicket_jax.{name}")
    assert doctest.testmod(module).failed == 0


def test_the_first_functions_of_the_readme_have_examples():
    finder = doctest.DocTestFinder(recurse=False)
    for name in ("population", "score", "ensemble"):
        assert any(test.examples for test in finder.find(getattr(tj, name), name)), name
