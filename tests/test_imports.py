"""The rooms: who may import whom, what importing costs, and that public names are documented."""

import ast
import doctest
import importlib
import importlib.metadata
import inspect
import pathlib
import subprocess
import sys

import pytest

import thicket_jax as tj

ROOT = pathlib.Path(tj.__file__).parent
# A package imports only what stands before it; braces are side by side, each without the others.
DIRECTION = (
    "errors → experts → mapping → scoring → {ensembles, selection} → {runs, text} → analysis → "
    "reports → search → tasks → cli"
)
# Inside a package likewise. A name that ends in a slash is a package in it.
INSIDE = {
    "experts": "threefry laws low_rank noise stacks states kinds leaves arguments scales "
    "population perturbation rounding planes",
    "mapping": "devices placement functions interpreter factored_parts factored_views "
    "factored_rules factored deferred implicit usage programs calls blocks",
    "scoring": "metrics scores layouts scorer pieces resuming calibration",
    "selection": "ranking schedules bounds rounds halving race rules",
    "ensembles": "combine prediction merging committees",
    "runs": "interrupts files lock digests consistency strings checkpoints log record export",
    "analysis": "intervals resampling correlations density discordance specialists reliability "
    "regret transfer sweeps subsampling tails baselines survey",
    "reports": "numbers documents results figures asked_section baseline_sections sections "
    "landscape_figure landscape_page report survey_figures survey_page",
    "search": "problem agreement answers manifest pipeline randopt landscapes",
    "text": "rope rope_config config_fields families fields config cache parts attention layers "
    "model common choosing passes prefill slots decode prefixes tensor_files checkpoints "
    "pretrained templates tokenizer prompts endings data/ sandbox/ grading/ graders/",
    "tasks": "task registry base_model quiet signals/ images/ language/",
    "cli": "options parsing checks machine compiled progress tasks report run density landscape "
    "export main __main__",
    "text/data": "rows files splits",
    "text/sandbox": "syscalls limits values runner program sandbox",
    "text/grading": "pool grading __init__ worker",
    "tasks/signals": "families model figure task",
    "tasks/images": "digits_dataset tf_records datasets conditions model figure task",
    "tasks/language": "countdown_dataset settings columns asking shots prompting reader hinting "
    "shared competition countdown gsm8k math500 mbpp olympiadbench qa rocstories stories uspto50k",
}
# Of what stands before them, tasks take of these packages this alone.
OF_SEARCH_REPORTS_AND_RUNS = {"search.problem", "reports.figures", "runs.checkpoints"}
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
every_file = pytest.mark.parametrize("name", TREES)


def packages():
    """DIRECTION as a list of sets: what stands side by side is one set."""
    return [set(part.strip(" {}").split(", ")) for part in DIRECTION.split("→")]


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


def files_imported(tree):
    """The files of this package that a file imports, as "room/file" without the ending."""
    found = set()
    for module, name in imports(tree):
        if module.split(".")[0] != "thicket_jax":
            continue
        place = "/".join(module.split(".")[1:])
        below = f"{place}/{name}" if place else str(name)
        known = [below, f"{below}/__init__", place, f"{place}/__init__" if place else "__init__"]
        found.add(next(x for x in known if f"{x}.py" in TREES))
    return found


def test_every_package_is_in_the_line_once_and_workspace_quotes_it():
    rooms = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix in ("", ".py")}
    listed = [name for side in packages() for name in side]
    assert rooms - {"__init__", "__pycache__"} == set(listed)
    assert len(listed) == len(set(listed))
    workspace = (pathlib.Path(__file__).parents[1] / "WORKSPACE.md").read_text()
    assert DIRECTION in " ".join(workspace.split())


@pytest.mark.parametrize("package", INSIDE)
def test_every_file_of_a_package_is_on_its_list_once(package):
    here = ROOT / package
    found = {path.stem for path in here.glob("*.py")} - {"__init__"}
    found |= {f"{path.name}/" for path in here.iterdir() if (path / "__init__.py").exists()}
    listed = INSIDE[package].split()
    assert found == set(listed) - {"__init__"}
    assert len(listed) == len(set(listed))


def earlier(own, other):
    """Whether the file `other` stands before the file `own`, both given as parts of their paths."""
    if own[0] != other[0]:
        order = packages()
        of_own, of_other = (
            [n for n, side in enumerate(order) if x[0] in side] for x in (own, other)
        )
        return bool(of_own and of_other) and of_other < of_own
    for depth in range(1, min(len(own), len(other))):
        if own[depth] != other[depth]:
            order = [name.strip("/") for name in INSIDE["/".join(own[:depth])].split()]
            return order.index(other[depth]) < order.index(own[depth])
    return False


@pytest.mark.parametrize("name", [name for name in TREES if name != "__init__.py"])
def test_a_file_imports_only_what_stands_before_it(name):
    own = name.removesuffix(".py").split("/")
    for other in sorted(files_imported(TREES[name]) - {"__init__"}):
        if other.startswith("text/graders/") and name.startswith("text/graders/"):
            continue  # graders take from each other
        parts = other.split("/")
        if parts == ["text", "grading", "__init__"] and own[1] != "grading":
            parts = parts[:2] + ["grading"]  # the door
        if parts == ["text", "graders", "__init__"] and own[:2] == ["text", "grading"]:
            assert own[2] == "worker"  # runs in a process of its own, and finds graders by name
            continue
        assert earlier(own, parts), f"{name} imports {other}"
        if own[0] == "tasks" and parts[0] in ("search", "reports", "runs"):
            assert ".".join(parts) in OF_SEARCH_REPORTS_AND_RUNS, f"{name} imports {other}"


@pytest.mark.parametrize("name", [x for x in TREES if x.endswith("/__init__.py")])
def test_the_init_of_a_package_is_a_docstring(name):
    if name in ("text/grading/__init__.py", "text/graders/__init__.py"):
        return  # doors that users' graders know
    (only,) = TREES[name].body
    assert isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)


@every_file
def test_no_file_imports_the_package_itself(name):
    assert "__init__" not in files_imported(TREES[name])


def test_the_version_is_that_of_the_installed_package():
    assert tj.__version__ == importlib.metadata.version("thicket-jax")


@every_file
def test_no_private_jax_no_environment_no_print(name):
    tree = TREES[name]
    assert not [m for m, n in imports(tree) if "_src" in m.split(".") or n == "_src"]
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read = {"environ"} if name == "cli/machine.py" else set()  # where the user's cache is
    assert not attributes & {"_src", "environ", "environb", "getenv", "putenv"} - read
    assert not {n for m, n in imports(tree) if m == "os"} - {None, "PathLike"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "print" not in names or name.startswith("cli/")


@every_file
def test_a_private_name_stays_in_its_file(name):
    tree = TREES[name]
    taken = [n for m, n in imports(tree) if m.split(".")[0] == "thicket_jax"]
    assert [n for n in taken if n is not None and n.startswith("_")] == []
    nodes = list(ast.walk(tree))
    own = {x.name for x in nodes if isinstance(x, ast.FunctionDef | ast.ClassDef)}
    own |= {x.id for x in nodes if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)}
    own |= {x.attr for x in nodes if isinstance(x, ast.Attribute) and isinstance(x.ctx, ast.Store)}
    used = {x.attr for x in nodes if isinstance(x, ast.Attribute) and x.attr.startswith("_")}
    dunder = {attribute for attribute in used if attribute.startswith("__")}
    assert used - own - dunder <= {"_exit"}  # of os, which has no other name for it


@every_file
def test_only_one_file_knows_how_work_is_spread(name):
    tree = TREES[name]
    spread = {"pmap", "shard_map", "Mesh", "NamedSharding", "multihost_utils"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {n for _, n in imports(tree)}
    assert not used & spread or name == "mapping/devices.py"


def test_importing_costs_jax_and_little_more_and_namespaces_are_loaded_when_used():
    code = f"""
import sys, thicket_jax as tj
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
assert "jax" in sys.modules
assert "thicket_jax.text" not in sys.modules and "thicket_jax.analysis.tails" not in sys.modules
assert tj.analysis.tails.fit_tail and tj.analysis.density.density_curve
assert tj.runs.record.load and tj.text.prompts.LAYOUT
try:
    tj.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
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
    [x.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for x in TREES
     if x != "__init__.py" and x.split("/")[0] not in ("tasks", "cli")],
)  # fmt: skip
def test_the_examples_in_docstrings_run(name, monkeypatch):
    monkeypatch.setattr("thicket_jax.mapping.calls._MOST_BLOCK", 1)  # blocks are not looked for
    module = importlib.import_module(f"thicket_jax.{name}")
    assert doctest.testmod(module).failed == 0


def test_the_first_functions_of_the_readme_have_examples():
    finder = doctest.DocTestFinder(recurse=False)
    for name in ("population", "score", "ensemble"):
        assert any(test.examples for test in finder.find(getattr(tj, name), name)), name
