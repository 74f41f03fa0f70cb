"""pmap, shard_map and none on 1, 2, 4 and 8 devices: the cost of a call, and scoring.

On a CPU the devices are virtual: more of them than cores share the cores.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import thicket_jax as tj
from experiments.bench import mlp, timing
from experiments.common.readme import markdown_table, number
from thicket_jax.mapping import devices
from thicket_jax.mapping.placement import Placement
from thicket_jax.scoring.scorer import Scorer

COUNTS = (1, 2, 4, 8)
SIGMA = 0.01
_PLAIN = "none on 1"


def run(quick: bool, torch_python: str | None = None) -> dict[str, Any]:
    """Measures all mappers that the devices allow, in turn.

    Returns:
      JSON values: for every mapper and number of devices the seconds of a call of a tiny program,
      with its arguments placed before and from the host to the host and back; experts a second of
      a real score; both as ratios to one device without a mapper.
    """
    del torch_python
    with contextlib.suppress(RuntimeError):  # refused once devices exist
        jax.config.update("jax_num_cpu_devices", max(COUNTS))
    calls, num, rounds = (2, 16, 2) if quick else (200, 512, 7)
    found = jax.devices()
    counts = (2,) if quick else COUNTS
    mappers = {_PLAIN: devices.make_mapper(found[:1], "none")}
    for backend in ("pmap", "shard_map"):
        for count in counts:
            if count <= len(found):
                chosen = tuple(found[:count])
                # Made here, as `devices.make_mapper` takes none for a single device.
                mappers[f"{backend} on {count}"] = devices.Mapper(chosen, backend)
    tiny = {name: _calls(mapper, calls) for name, mapper in mappers.items()}
    timed = {}
    for kind, contenders in {
        "call": {name: pair[0] for name, pair in tiny.items()},
        "round_trip": {name: pair[1] for name, pair in tiny.items()},
        "expert": {name: _scoring(mapper, num, quick) for name, mapper in mappers.items()},
    }.items():
        for contender in contenders.values():  # once, untimed
            contender()
        timed[kind] = timing.alternate(contenders, rounds)
    rows = {}
    for name in mappers:
        rows[name] = {
            "call_seconds": timing.summary([x / calls for x in timed["call"][name]]),
            "round_trip_seconds": timing.summary([x / calls for x in timed["round_trip"][name]]),
            "seconds_per_expert": timing.summary([x / num for x in timed["expert"][name]]),
        }
        for kind, samples in timed.items():
            rows[name][f"{kind}_ratio"] = timing.share(samples[_PLAIN], samples[name])
        rows[name]["throughput"] = timing.share(timed["expert"][name], timed["expert"][_PLAIN])
    return {
        "calls": calls,
        "experts": num,
        "rounds": rounds,
        "rows": rows,
        "targets": [],
    }


def _calls(mapper: devices.Mapper, calls: int) -> tuple[Callable[[], float], ...]:
    """Many calls of a program that adds two numbers, each waited for.

    Returns:
      One with the arguments on the devices already, one from the host to the host.
    """
    shared = mapper.replicate(np.float32(1))
    row = np.zeros((mapper.count, 1), np.float32)
    placed = mapper.split(row)
    program = mapper.compile(lambda a, b: a + b, (shared,), (placed,))

    def there() -> Any:
        return jax.block_until_ready(devices.launch(program, shared, placed))

    def there_and_back() -> Any:
        return mapper.gather(devices.launch(program, shared, mapper.split(row)))

    def times(once: Callable[[], Any]) -> Callable[[], float]:
        return lambda: timing.seconds(lambda: [once() for _ in range(calls)])

    return times(there), times(there_and_back)


def _scoring(mapper: devices.Mapper, num: int, quick: bool) -> Callable[[], float]:
    """Scoring the same experts of a small MLP."""
    width, layers, batch = (8, 2, 2) if quick else (128, 4, 64)
    experts = tj.population(jax.random.key(0), num, SIGMA)
    scorer = Scorer.placed(
        mlp.score_fn,
        mlp.parameters(width, layers),
        experts.noise,
        mlp.inputs(batch, width),
        Placement(mapper, 4),
    )
    scorer.expert_map.prepare(experts)
    return lambda: timing.seconds(lambda: [part.values for _, part in scorer.stream(experts)])


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = []
    for name, row in result["rows"].items():
        call, trip = row["call_seconds"], row["round_trip_seconds"]
        share = row["throughput"]
        rows.append(
            [
                name,
                _micro(call),
                number(row["call_ratio"]["median"]),
                _micro(trip),
                number(row["round_trip_ratio"]["median"]),
                number(1 / row["seconds_per_expert"]["median"]),
                f"{number(share['median'])} ({number(share['min'])} to {number(share['max'])})",
            ]
        )
    head = ["mapper on devices", "µs a call (spread)", "times of none"]
    head += [
        "µs from host to host (spread)",
        "times of none",
        "experts/s",
        "times of none (spread)",
    ]
    return (
        f"A call: one addition on every device, waited for, the mean of {result['calls']}; with "
        "its arguments on the devices already, or from the host and its result back there. "
        f"Experts: {result['experts']} of an MLP, blocks of 4. {result['rounds']} alternated "
        "rounds.\n\n" + markdown_table(head, rows)
    )


def _micro(time: dict[str, Any]) -> str:
    median, low, high = (number(1e6 * time[name]) for name in ("median", "min", "max"))
    return f"{median} ({low} to {high})"
