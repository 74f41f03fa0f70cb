"""Which experts: keys, ids, sigmas and signs. An expert is a recipe, not a set of weights."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thicket_jax.errors import ArgumentError, check_choice, check_count, check_flag, shown
from thicket_jax.experts.noise import Noise, gaussian

PRNGS = ("threefry2x32", "threefry4x32")
ASSIGNMENTS = ("cycle", "random")
# Experts use fold_in(key, id) with 0 <= id < 2**31; this value is free for the sigma draw.
_SIGMA_STREAM = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class Population:
    """N experts around some θ: 16 bytes each, whatever θ's size. A registered pytree.

    Slicing, indexing (also by an index array or a mask) and `+` give Populations; `population[7]`
    is one expert, whose fields have no axis. All experts share one key, which has no axis to map
    over: `jax.vmap(lambda i: tj.perturb(params, population[i]))(jnp.arange(len(population)))`.

    Attributes:
      key: typed PRNG key [], the root; its implementation travels with it. Never consumed:
        each leaf's noise key is folded from it.
      ids: int32 [N]; noise depends on (key, id, leaf path) alone.
      sigmas: float32 [N], standard deviation of the perturbation, as the noise law scales it.
      signs: float32 [N], +1 or −1; antithetic pairs share an id.
      noise: the law; static.
    """

    key: jax.Array
    ids: jax.Array
    sigmas: jax.Array
    signs: jax.Array
    noise: Noise = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        """Returns how many, of which key and law, in three lines."""
        columns = (self.ids, self.sigmas, self.signs)
        held = [x for x in columns if isinstance(x, jax.Array | np.ndarray)]
        if len(held) < 3 or any(isinstance(x, jax.core.Tracer) for x in (self.key, *columns)):
            return f"Population(traced, {shown(self.noise, 200)})"
        ids, sigmas, signs = (np.atleast_1d(np.asarray(x)) for x in columns)
        some = ", ".join(f"{x:g}" for x in np.unique(sigmas)[:4])
        span = f"{ids.min()} to {ids.max()}" if ids.size else "none"
        return (
            f"Population of {'one expert' if not np.ndim(self.ids) else len(ids)}: ids {span}, "
            f"{int((signs < 0).sum())} with sign -1\n"
            f"  sigmas: {some}{', ...' if len(np.unique(sigmas)) > 4 else ''}\n"
            f"  {prng_name(self.key)} key {key_data(self.key)}, {shown(self.noise, 200)}"
        )

    def __len__(self) -> int:
        """Returns the number of experts, N."""
        if jnp.ndim(self.ids) == 0:
            raise TypeError("a single expert has no length; population[i:i+1] keeps the axis")
        return int(self.ids.shape[0])

    def __getitem__(self, index: Any) -> "Population":
        """Returns the experts at `index`: an integer, a slice, an index array or a mask."""
        if jnp.ndim(self.ids) == 0:
            raise TypeError("a single expert cannot be indexed")
        if isinstance(index, jax.core.Tracer):
            return self._traced(index)
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"expert {index} of a population of {len(self)}")
            index = int(index)
        elif not isinstance(index, slice):
            index = self._positions(index)
        return dataclasses.replace(
            self, ids=self.ids[index], sigmas=self.sigmas[index], signs=self.signs[index]
        )

    def _traced(self, index: jax.Array) -> "Population":
        """The experts at a traced index; one that is out of range gives an expert of NaN."""
        if not jnp.issubdtype(index.dtype, jnp.integer):
            raise IndexError(f"index {index.dtype} inside jit or vmap; use integers")
        sigmas = jnp.asarray(self.sigmas).at[index].get(mode="fill", fill_value=np.nan)
        ids, signs = (jnp.asarray(x)[index] for x in (self.ids, self.signs))
        return dataclasses.replace(self, ids=ids, sigmas=sigmas, signs=signs)

    def _positions(self, index: Any) -> np.ndarray:
        """Turns an index array or a mask into positions; jax alone would clamp wrong ones."""
        found = np.asarray(index)
        if found.dtype == bool and found.shape == (len(self),):
            return np.flatnonzero(found)
        if found.size == 0:
            found = found.astype(np.int32)
        if not np.issubdtype(found.dtype, np.integer) or found.ndim > 1:
            raise IndexError(
                f"index {found.dtype}{list(found.shape)} of a population of {len(self)}; use an "
                "integer, a slice, a list of integers, or a mask with one entry per expert"
            )
        if ((found < -len(self)) | (found >= len(self))).any():
            raise IndexError(f"index {found.tolist()} of a population of {len(self)}")
        return found

    def __iter__(self) -> Any:
        """Iterates over single experts."""
        return (self[i] for i in range(len(self)))

    def __add__(self, other: "Population") -> "Population":
        """Concatenates two populations of one key and one noise law."""
        if not isinstance(other, Population):
            return NotImplemented
        if not (jnp.ndim(self.ids) and jnp.ndim(other.ids)):
            raise ArgumentError("a single expert cannot be joined; population[i:i+1] can")
        if self.noise != other.noise or key_data(self.key) != key_data(other.key):
            raise ArgumentError("populations of different keys or noise laws cannot be joined")
        return dataclasses.replace(
            self,
            ids=jnp.concatenate([self.ids, other.ids]),
            sigmas=jnp.concatenate([self.sigmas, other.sigmas]),
            signs=jnp.concatenate([self.signs, other.signs]),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as a JSON object: key, PRNG, noise and the three columns."""
        return {
            "prng": prng_name(self.key),
            "key": key_data(self.key),
            "noise": self.noise.to_json(),
            "ids": np.asarray(self.ids).tolist(),
            "sigmas": np.asarray(self.sigmas, np.float64).tolist(),
            "signs": np.asarray(self.signs, np.float64).tolist(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Population":
        """Returns the population that `to_json` wrote, bit for bit.

        Raises:
          ArgumentError: it is not what `to_json` writes.
        """
        try:
            data = _column(value, "key", np.uint32)
            columns = {
                "ids": _column(value, "ids", np.int32),
                "sigmas": _column(value, "sigmas", np.float32),
                "signs": _column(value, "signs", np.float32),
            }
            check_choice("prng", value["prng"], PRNGS)
            key = jax.random.wrap_key_data(jnp.asarray(data), impl=value["prng"])
            noise = Noise.from_json(value["noise"])
        except ArgumentError:
            raise
        except Exception as error:  # anything at all may be in a file
            said = " ".join(str(error).split())[:100]
            raise ArgumentError(
                f"this is not the JSON of a population ({type(error).__name__}: {said}); give what "
                "Population.to_json returned"
            ) from None
        shapes = {column.shape for column in columns.values()}
        sound = np.isfinite(columns["sigmas"]).all() and (columns["sigmas"] >= 0).all()
        if len(shapes) > 1 or not sound or not (np.abs(columns["signs"]) == 1).all():
            raise ArgumentError(
                "this is not the JSON of a population: ids, sigmas and signs must have one entry "
                "per expert, sigmas finite and not negative, signs +1 or -1"
            )
        placed = {name: jnp.asarray(column) for name, column in columns.items()}
        return cls(key=key, **placed, noise=noise)


jax.tree_util.register_dataclass(Population)


def _column(value: Mapping[str, Any], name: str, dtype: Any) -> np.ndarray:
    """A column of numbers from JSON, none of which its dtype changes to another."""
    given = np.asarray(value[name])
    kinds = "iu" if np.issubdtype(dtype, np.integer) else "iuf"
    other = given.size and given.dtype.kind not in kinds
    if other or any(type(x) is bool for x in value[name]):
        raise TypeError(f"{name} hold {given.dtype}")
    column = given.astype(dtype)
    if kinds == "iu" and (column != given).any():
        raise ValueError(f"{name} do not fit {np.dtype(dtype)}")
    return column


def prng_name(key: jax.Array) -> str:
    """Returns the name of a typed key's implementation."""
    return str(jax.random.key_impl(key))


def key_data(key: jax.Array) -> list[int]:
    """Returns a typed key's words."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).reshape(-1)]


def check_key(key: Any) -> None:
    """Raises `ArgumentError` unless `key` is one typed key of a supported implementation."""
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        found = f"{getattr(key, 'dtype', type(key).__name__)}{list(np.shape(key))}"
        raise ArgumentError(
            f"key must be a typed key, got {found}; make one with jax.random.key(seed), or wrap "
            "a legacy uint32 key with jax.random.wrap_key_data(key)"
        )
    if key.ndim:
        raise ArgumentError(f"key must be a single key, got an array of shape {key.shape}")
    name = prng_name(key)
    if name in ("rbg", "unsafe_rbg"):
        raise ArgumentError(
            f"key of {name} is refused: under vmap every expert would get the first one's noise; "
            "use jax.random.key(seed, impl='threefry2x32') or 'threefry4x32'"
        )
    if name not in PRNGS:
        raise ArgumentError(
            f"key of {name} is refused: it is not known to draw the same bits under vmap and on "
            "several devices; use jax.random.key(seed, impl='threefry2x32') or 'threefry4x32'"
        )


def check_experts(name: str, value: Any) -> None:
    """Raises `ArgumentError` unless `value` is a population of at least one expert."""
    if not isinstance(value, Population):
        raise ArgumentError(f"{name} must be a Population, got {type(value).__name__}")
    check_key(value.key)
    if jnp.ndim(value.ids) == 0:
        raise ArgumentError(f"{name} is a single expert; pass {name}[i:i+1], or use perturb")
    if len(value) == 0:
        raise ArgumentError(f"{name} is empty; it must hold at least one expert")


def check_num(num: int, antithetic: bool = False) -> int:
    """Returns the number of experts as an int; anything but a possible one is an error."""
    num = check_count("num", num)
    check_flag("antithetic", antithetic)
    if num >= 2**31:
        raise ArgumentError(f"num={num} must be below 2**31, the number of expert ids")
    if antithetic and num % 2:
        raise ArgumentError(f"num={num} must be even with antithetic=True; use {num + 1}")
    return num


def check_law(value: Any) -> None:
    """Raises `ArgumentError` unless `value` is a noise law."""
    if not isinstance(value, Noise):
        raise ArgumentError(f"noise={shown(value)} must be a Noise: tj.gaussian(), tj.rademacher()")


def check_sigmas(sigma: float | Sequence[float]) -> np.ndarray:
    """Returns the sigmas as float32 [S]; each must be positive and finite."""
    try:
        given = np.atleast_1d(np.asarray(sigma))
    except ValueError:
        given = np.empty(0)
    if given.dtype.kind in "bcOSU" or given.ndim != 1 or given.size == 0:
        raise ArgumentError(f"sigma={shown(sigma)} must be a positive number or a sequence of them")
    values, limits = given.astype(np.float64), np.finfo(np.float32)
    for value in values:
        if not (value > 0 and math.isfinite(value)):
            raise ArgumentError(f"sigma={value:g} must be positive and finite")
        if not limits.tiny <= value <= limits.max:
            raise ArgumentError(
                f"sigma={value:g} is outside the range of float32, {limits.tiny:.3g} to "
                f"{limits.max:.3g}"
            )
    return values.astype(np.float32)


def population(
    key: jax.Array,
    num: int,
    sigma: float | Sequence[float],
    *,
    noise: Noise | None = None,
    antithetic: bool = False,
    assign: str = "cycle",
) -> Population:
    """Makes the recipes of `num` experts; no weights are made.

    Args:
      key: typed key of threefry2x32 or threefry4x32. It may be used again for the same
        population; noise keys are folded from it, never split off in a chain.
      num: number of experts, N.
      sigma: standard deviation(s) of the perturbation, positive; a sequence is a mix.
      noise: the law; default `gaussian()`.
      antithetic: experts 2j and 2j+1 share id j and sigma, with signs +1 and −1; N must be even.
      assign: `"cycle"` deals the sigmas out in turn (equal counts), `"random"` draws them.

    Returns:
      A `Population` with ids 0..N−1 (0..N/2−1 when antithetic).

    Raises:
      ArgumentError: a bad key, count or sigma; the text says what to do.

    Example:
      >>> population(jax.random.key(0), 4, (1e-3, 2e-3)).sigmas.tolist() == [
      ...     float(np.float32(s)) for s in (1e-3, 2e-3, 1e-3, 2e-3)]
      True
    """
    check_key(key)
    num = check_num(num, antithetic)
    sigmas = check_sigmas(sigma)
    if noise is not None:
        check_law(noise)
    check_choice("assign", assign, ASSIGNMENTS)
    draws = num // 2 if antithetic else num
    ids = np.arange(draws, dtype=np.int32)
    if assign == "cycle":
        which = ids % len(sigmas)
    else:
        stream = jax.random.fold_in(key, np.uint32(_SIGMA_STREAM))
        which = np.asarray(jax.random.randint(stream, (draws,), 0, len(sigmas)))
    chosen = sigmas[which]
    signs = np.ones(draws, np.float32)
    if antithetic:
        ids, chosen = np.repeat(ids, 2), np.repeat(chosen, 2)
        signs = np.tile(np.asarray([1, -1], np.float32), draws)
    return Population(
        key=key,
        ids=jnp.asarray(ids),
        sigmas=jnp.asarray(chosen),
        signs=jnp.asarray(signs),
        noise=gaussian() if noise is None else noise,
    )


def unperturbed(like: Population) -> Population:
    """Returns θ itself as a population of one, with sigma 0: scored by the experts' program."""
    one = like[:1]
    return dataclasses.replace(one, sigmas=one.sigmas * 0)
