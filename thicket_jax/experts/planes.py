"""A plane through θ, of which every point is a recipe too: θ + Σ_m c_m·σ_m·ε_m.

No direction is held: a point is M coefficients, and noise is drawn where it is used. Shapes:
M experts of the basis, G points. Lengths are Euclidean, over all perturbed parameters.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, shown
from thicket_jax.experts.leaves import make_plan
from thicket_jax.experts.perturbation import row_noise
from thicket_jax.experts.population import Population, check_experts
from thicket_jax.experts.scales import leaf_scales


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """A plane through θ.

    Attributes:
      kind: `random`, `experts` or `principal`.
      basis: M experts; their steps span the plane.
      axes: float64 [2, M]; the point (x, y) is θ + Σ_m (x·axes[0, m] + y·axes[1, m])·step_m.
      labels: what one unit of x and of y is, in words.
      lengths: float64 [M, M], the steps' inner products (their Gram matrix).
      marks: name → (x, y) of points to be shown; θ is (0, 0).
      share: of the summed squared lengths of the basis, what lies in the plane; 1 for two experts.
    """

    kind: str
    basis: Population
    axes: np.ndarray
    labels: tuple[str, str]
    lengths: np.ndarray
    marks: dict[str, tuple[float, float]]
    share: float = 1.0

    def __repr__(self) -> str:
        """Returns its kind, what it is spanned by and what is marked, in three lines."""
        marks = ", ".join(f"{name} ({x:.3g}, {y:.3g})" for name, (x, y) in self.marks.items())
        return (
            f"Plane: {self.kind}, of {len(self.basis)} experts, share {self.share:.3g}\n"
            f"  x: {shown(self.labels[0])}, y: {shown(self.labels[1])}\n"
            f"  marks: {marks[:200] or 'none'}"
        )

    def points(self, coordinates: np.ndarray) -> Population:
        """Returns points as sums of experts: a population whose columns are [G, M].

        `tj.score` takes it as any population; a point on one expert alone has its bits (under a
        law with `rounded=False`, its values up to the rounding of sums).

        Args:
          coordinates: float [G, 2], x and y.
        """
        try:
            places = np.asarray(coordinates, np.float64)
        except (TypeError, ValueError):
            raise ArgumentError(f"coordinates={shown(coordinates)} must be numbers") from None
        if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
            raise ArgumentError(f"coordinates {list(places.shape)} must be finite, [G, 2]")
        weights = (places[:, :1] * self.axes[0] + places[:, 1:] * self.axes[1]).astype(np.float32)
        sigmas = np.abs(weights) * np.asarray(self.basis.sigmas, np.float32)
        signs = np.where(weights < 0, np.float32(-1), np.float32(1))
        ids = np.broadcast_to(np.asarray(self.basis.ids), weights.shape)
        return dataclasses.replace(
            self.basis,
            ids=jnp.asarray(ids),
            sigmas=jnp.asarray(sigmas),
            signs=jnp.asarray(signs * np.asarray(self.basis.signs, np.float32)),
        )

    def distances(self, coordinates: np.ndarray) -> np.ndarray:
        """Returns ‖θ' − θ‖ of points [G, 2], float64 [G]."""
        places = np.asarray(coordinates, np.float64)
        weights = places @ self.axes
        return np.sqrt(np.maximum(np.einsum("gi,ij,gj->g", weights, self.lengths, weights), 0))

    def to_json(self) -> dict[str, Any]:
        """Returns the plane as a JSON object."""
        return {
            "kind": self.kind,
            "basis": self.basis.to_json(),
            "axes": self.axes.tolist(),
            "labels": list(self.labels),
            "lengths": self.lengths.tolist(),
            "marks": {name: list(place) for name, place in self.marks.items()},
            "share": self.share,
        }


def random_plane(params: Any, experts: Population, seed: int = 0) -> Plane:
    """Returns the plane of two random directions: steps of two experts that nobody scored.

    Their ids lie above those of `experts`, and their σ is the largest among them. In a space of
    many dimensions they are nearly orthogonal.

    Args:
      params: θ.
      experts: a population whose key, law and sigmas are used.
      seed: another pair of directions for another whole number from 0.

    Raises:
      ArgumentError: a bad population or seed.
    """
    check_experts("experts", experts)
    largest = np.asarray(experts.sigmas, np.float32).max()
    basis = dataclasses.replace(
        experts[:1],
        ids=jnp.asarray(random_ids(experts, seed)),
        sigmas=jnp.asarray(np.full(2, largest)),
        signs=jnp.ones(2, jnp.float32),
    )
    first_label, second_label = (
        f"random direction {n}, in steps of σ = {_shortest(largest)}" for n in (1, 2)
    )
    labels = (first_label, second_label)
    return Plane("random", basis, np.eye(2), labels, step_products(params, basis), {})


def random_ids(experts: Population, seed: int) -> np.ndarray:
    """Returns the ids of a random plane's two experts, int32 [2]; an error for a bad seed."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ArgumentError(f"seed={seed!r} must be a whole number from 0")
    first = int(np.asarray(experts.ids).max()) + 1 + 2 * seed
    if first + 1 >= 2**31:
        raise ArgumentError(f"seed={seed} leaves no expert ids below 2**31; use a smaller one")
    return np.array([first, first + 1], np.int32)


def expert_plane(
    params: Any, first: Population, second: Population, names: tuple[str, str] = ("A", "B")
) -> Plane:
    """Returns the plane of two experts: θ is (0, 0), they are (1, 0) and (0, 1), bit for bit.

    Args:
      params: θ.
      first, second: one expert each, of one population.
      names: what they are called in a picture.

    Raises:
      ArgumentError: the same noise twice, which spans no plane.
    """
    basis = _one(first) + _one(second)
    lengths = step_products(params, basis)
    flat = lengths[0, 0] * lengths[1, 1] - lengths[0, 1] ** 2
    if flat <= 1e-6 * lengths[0, 0] * lengths[1, 1]:
        raise ArgumentError(
            f"experts {names[0]} and {names[1]} have the same noise, so they span no plane; choose "
            "two of different ids"
        )
    marks = {names[0]: (1.0, 0.0), names[1]: (0.0, 1.0)}
    labels = (f"towards {names[0]}", f"towards {names[1]}")
    return Plane("experts", basis, np.eye(2), labels, lengths, marks)


def principal_plane(params: Any, experts: Population) -> Plane:
    """Returns the plane through θ that holds most of K experts' steps.

    The two first eigenvectors of the steps' Gram matrix (uncentred, as the plane goes through θ);
    one unit is the experts' root mean square length. Independent steps in many dimensions are
    nearly orthogonal, and no plane holds much more than 2/K of them: `share` says how much.

    Marks: `mean of K`, where θ + the mean step falls, and each expert's projection by its rank.

    Args:
      params: θ.
      experts: K of them, best first, at least two.

    Memory: two float32 copies of the largest leaf; the noise of each pair is drawn again.
    """
    check_experts("experts", experts)
    K = len(experts)
    if K < 2:
        raise ArgumentError("a principal plane needs at least two experts")
    lengths = step_products(params, experts)
    values, vectors = np.linalg.eigh(lengths)
    values, vectors = values[::-1][:2], vectors[:, ::-1][:, :2].T
    if values[1] <= 1e-6 * values[0]:
        raise ArgumentError("all experts' steps lie on one line; choose some of different ids")
    vectors = vectors * np.where(vectors.sum(1, keepdims=True) < 0, -1.0, 1.0)
    unit = np.sqrt(np.trace(lengths) / K)
    axes = vectors * (unit / np.sqrt(values))[:, None]
    places = (vectors * np.sqrt(values)[:, None] / unit).T
    middle = places.mean(0)
    marks = {f"mean of {K}": (float(middle[0]), float(middle[1]))}
    marks |= {f"rank {k + 1} (projected)": (float(x), float(y)) for k, (x, y) in enumerate(places)}
    unit_label = "in the experts' step length"
    labels = (f"principal direction 1, {unit_label}", f"principal direction 2, {unit_label}")
    share = float(values.sum() / np.trace(lengths))
    return Plane("principal", experts, axes, labels, lengths, marks, share)


def step_products(params: Any, experts: Population) -> np.ndarray:
    """Returns the inner products of K experts' steps σ·ε, float64 [K, K].

    Streamed over leaves and pairs: memory two float32 copies of the largest leaf, time K²/2 draws.
    """
    plan = make_plan(params, experts.noise)
    scales = leaf_scales(params, plan)
    total = np.zeros((len(experts), len(experts)))
    for i, leaf in enumerate(jax.tree.leaves(params)):
        shape = tuple(np.shape(leaf))[plan.stacked[i] :]
        for n, (leaf_hash, use) in enumerate(zip(plan.hashes[i], plan.moving[i], strict=True)):
            if use:
                scale = float(scales[plan.starts[i] + n])
                found = _products(experts, np.uint32(leaf_hash), shape, plan.letters[i])
                total += np.asarray(found) * scale**2
    steps = np.asarray(experts.signs, np.float64) * np.asarray(experts.sigmas, np.float64)
    return total * steps[:, None] * steps[None]


@functools.partial(jax.jit, static_argnames=("shape", "letters"))
def _products(
    experts: Population, leaf_hash: np.uint32, shape: tuple[int, ...], letters: str
) -> jax.Array:
    """⟨ε_i, ε_j⟩ of the leaf, or the slice of a stack, of this hash, float32 [K, K]."""

    def draw(id_: jax.Array) -> jax.Array:
        one = Population(experts.key, id_, jnp.ones(()), jnp.ones(()), experts.noise)
        return row_noise(one, leaf_hash, shape, letters)

    def row(i: jax.Array) -> jax.Array:
        left = draw(experts.ids[i])

        def product(j: jax.Array) -> jax.Array:
            def wanted() -> jax.Array:
                return (left * draw(experts.ids[j])).sum(dtype=jnp.float32)

            return jax.lax.cond(j <= i, wanted, lambda: jnp.zeros((), jnp.float32))

        return jax.lax.map(product, jnp.arange(len(experts), dtype=jnp.int32))

    lower = jax.lax.map(row, jnp.arange(len(experts), dtype=jnp.int32))
    return lower + jnp.tril(lower, -1).T


def _one(expert: Population) -> Population:
    """A population of length 1 of one expert, however it is given."""
    if not isinstance(expert, Population):
        raise ArgumentError(f"an expert must be a Population, got {type(expert).__name__}")
    if jnp.ndim(expert.ids) == 0:
        columns = {name: getattr(expert, name)[None] for name in ("ids", "sigmas", "signs")}
        return dataclasses.replace(expert, **columns)
    if len(expert) != 1:
        raise ArgumentError(f"expected one expert, got {len(expert)}; pass experts[0]")
    return expert


def _shortest(value: np.float32) -> str:
    return f"{float(str(value)):g}"
