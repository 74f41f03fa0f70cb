"""thicket_jax: explore the neighbourhood of pretrained weights.

keys → perturb → score → select → ensemble → report. See README.md.
"""

from thicket_jax.calibration import calibrate_sigma
from thicket_jax.ensembles import ensemble, majority_vote, mean, mean_probs, median, merge
from thicket_jax.errors import ThicketError
from thicket_jax.experts import Population, population
from thicket_jax.noise import Noise, gaussian, low_rank, rademacher, tied_gaussian
from thicket_jax.perturbation import perturb
from thicket_jax.planes import Plane, expert_plane, principal_plane, random_plane
from thicket_jax.racing import Raced, halving, race
from thicket_jax.scoring import Scores, score
from thicket_jax.search import Result, randopt
from thicket_jax.selection import top_k
from thicket_jax.usage import matrix_axes

__all__ = [
    "Noise",
    "Plane",
    "Population",
    "Raced",
    "Result",
    "Scores",
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
