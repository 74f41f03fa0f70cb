"""Several processes compare what they are about to do, before they do anything together.

What differs would be a wrong record, or processes that wait for each other for ever.
"""

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from thicket_jax.errors import RunError
from thicket_jax.experts.population import Population
from thicket_jax.mapping.devices import of_everyone
from thicket_jax.runs.files import apart, fingerprint, plain_json
from thicket_jax.search.problem import Problem, Settings

T = TypeVar("T")


def check(facts: Mapping[str, Any]) -> None:
    """Compares JSON values over all processes, each of which calls it.

    Raises:
      RunError: on every process, where some differ; names them, and both values.
    """
    everyone = of_everyone(json.dumps(plain_json(facts)).encode())
    found = disagreements([json.loads(data) for data in everyone])
    if found:
        raise RunError(f"the processes disagree: {'; '.join(found)}; give all of them the same")


def together(action: Callable[[], T]) -> T:
    """Returns what `action` returns, where it succeeds on every process; each calls this.

    What fails on one alone, as its data or its model is missing, would leave the others waiting.

    Raises:
      Exception: what the action raised here.
      RunError: it failed on another process; names it, and what was said there.
    """
    if jax.process_count() == 1:
        return action()
    error: Exception | None = None
    try:
        result = action()
    except Exception as caught:
        error = caught
    said = None if error is None else f"{error}" or type(error).__name__
    everyone = [json.loads(data) for data in of_everyone(json.dumps(said).encode())]
    if error is not None:
        raise error
    for process, text in enumerate(everyone):
        if text is not None:
            raise RunError(f"process {process} failed, so that this one ends: {text}")
    return result


def disagreements(everyone: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one phrase for every entry in which a process differs from process 0."""
    flat = [_flat(facts) for facts in everyone]
    found = []
    for name in dict.fromkeys(name for facts in flat for name in facts):
        values = [json.dumps(facts.get(name)) for facts in flat]
        other = next((p for p, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            first, second = apart(values[0], values[other])
            found.append(f"{name} is {first} in process 0 and {second} in process {other}")
    return found


def facts_of(problem: Problem, experts: Population, settings: Settings) -> dict[str, Any]:
    """What a search is, as far as it can be told: JSON values, arrays as their digests."""
    recipe = experts.to_json()
    rule, mapper = settings.rule, settings.placement.mapper
    local = [d for d in mapper.devices if d.process_index == jax.process_index()]
    return {
        "num": len(recipe["ids"]),
        "k": list(settings.k),
        "population": {
            **{name: recipe[name] for name in ("prng", "key", "noise")},
            **{name: fingerprint(np.asarray(recipe[name])) for name in ("ids", "sigmas", "signs")},
        },
        "select": None if rule is None else rule.to_json(),
        "metric": problem.metric.name,
        "combines": list(problem.combines),
        "score_fn": _name(problem.score_fn),
        "predict_fn": _name(problem.predict_fn),
        "grade": _name(problem.grade),
        "with_id": problem.with_id,
        "answering": problem.answering is not None,
        "layout": problem.layout is not None,
        "backend": mapper.backend,
        "devices": {"all": mapper.count, "of each process": len(local)},
        "block_size": settings.placement.block_size,
        "stream": settings.placement.stream,
        "keep_items": settings.keep_items,
        "versions": {
            "thicket_jax": importlib.metadata.version("thicket-jax"),
            "jax": jax.__version__,
        },
        "run_dir": settings.run_dir is not None,
        "resume": settings.resume,
    }


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _flat(item, f"{name}.{key}" if name else str(key))
    return found


def _name(function: Any) -> str | None:
    if function is None:
        return None
    return str(getattr(function, "__qualname__", type(function).__qualname__))
