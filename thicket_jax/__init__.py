"""thicket_jax: explore the neighbourhood of pretrained weights.

keys → perturb → score → select → ensemble → report. See README.md.

Public are the names below, and the namespaces `analysis`, `runs` and `text`, loaded when they are
first used (`tj.runs.record.load`). All else may move.
"""

import importlib
import pkgutil

from thicket_jax.ensembles.combine import majority_vote, mean, mean_probs, median
from thicket_jax.ensembles.merging import merge
from thicket_jax.ensembles.prediction import ensemble
from thicket_jax.errors import ThicketError
from thicket_jax.experts.noise import Noise, gaussian, low_rank, rademacher, tied_gaussian
from thicket_jax.experts.perturbation import perturb
from thicket_jax.experts.planes import Plane, expert_plane, principal_plane, random_plane
from thicket_jax.experts.population import Population, population
from thicket_jax.experts.stacks import Stack
from thicket_jax.mapping.usage import matrix_axes
from thicket_jax.scoring.calibration import calibrate_sigma
from thicket_jax.scoring.scorer import Scorer, score
from thicket_jax.scoring.scores import Scores
from thicket_jax.search.pipeline import Result
from thicket_jax.search.randopt import randopt
from thicket_jax.selection.halving import halving
from thicket_jax.selection.race import race
from thicket_jax.selection.ranking import top_k
from thicket_jax.selection.rounds import SelectionResult as Raced

__all__ = [
    "Noise",
    "Plane",
    "Population",
    "Raced",
    "Result",
    "Scorer",
    "Scores",
    "Stack",
    "ThicketError",
    "calibrate_sigma",
    "ensemble",
    "expert_plane",
    "gaussian",
    "halving",
    "low_rank",
    "majority_vote",
    "matrix_axes",
    "mean",
    "mean_probs",
    "median",
    "merge",
    "perturb",
    "population",
    "principal_plane",
    "race",
    "rademacher",
    "random_plane",
    "randopt",
    "score",
    "tied_gaussian",
    "top_k",
]
__version__ = "0.2.0"

_NAMESPACES = ("analysis", "runs", "text")
for _name in _NAMESPACES:  # as far as the imports above have loaded them: `__getattr__` loads all
    globals().pop(_name, None)


def __getattr__(name: str) -> object:
    """Returns a namespace with all its modules."""
    if name not in _NAMESPACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package = importlib.import_module(f"{__name__}.{name}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    globals()[name] = package
    return package
