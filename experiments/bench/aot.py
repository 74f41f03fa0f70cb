"""What the scoring programs of real models are on accelerators that are not here.

The compilers for TPUs and GPUs run anywhere; they tell memory, code and collectives, and no time.
Times are the roofline's, from the chips' published peaks: a bound, not a measurement.
"""

import dataclasses
import pathlib
import tempfile
from typing import Any

from experiments.bench import chips as chips_of
from experiments.bench import random_checkpoint, roofline, timing
from experiments.bench.aot_program import DTYPE, LAWS, compile_for
from experiments.common import command
from experiments.common.readme import markdown_table, number
from thicket_jax.errors import ArgumentError, check_choice
from thicket_jax.text.config import Config

SHAPES = ("0.5B", "1.5B", "7B")
MOST = {"low rank 1": 16}  # experts side by side on a chip; of other laws 4
ROWS, TURNS, PROMPT, NEW = 64, 3, 128, 128
ALLOWED = 1.15  # temporaries, times what the experts' own weights and caches take
LIMITS = {  # of the 0.5B shape on v5e-4: seconds of compiling
    "low rank 1": 20,
    "rademacher": 60,
    "gaussian": 60,
}
RATE = ("H100", "7B", "low rank 1", 15_000)  # tokens a second by the roofline


def run(quick: bool, torch_python: str | None = None, chips: str | None = None) -> dict[str, Any]:
    """Compiles every shape and law for every kind of chips whose compiler is here.

    Args:
      quick: a tiny shape for the first kind alone.
      torch_python: not used.
      chips: names of kinds, with commas between; None: all.

    Returns:
      JSON values: for each program what was compiled and the roofline; `left_out`, of which chips
      the compiler is missing; targets.

    Raises:
      ArgumentError: a kind that is not known, or no compiler of them is here.
    """
    del torch_python
    kinds, shapes = _asked(chips), SHAPES
    if quick:
        kinds, shapes = kinds[:1], ("tiny",)
    programs, left_out = [], {}
    for kind in kinds:
        try:
            chips_of.devices(kind)
        except ArgumentError as error:
            left_out[kind.name] = str(error)
            command.say(f"left out: {error}")
            continue
        for shape in shapes:
            config = config_of(shape)
            for law in LAWS:
                programs.append(_program(kind, shape, config, law, quick))
                command.say(_line(programs[-1]))
    if not programs:
        raise ArgumentError(next(iter(left_out.values())))
    return {
        "about": "-".join(kind.name for kind in kinds),
        "dtype": DTYPE,
        "programs": programs,
        "left_out": left_out,
        "targets": [] if quick else _targets(programs),
    }


def _asked(names: str | None) -> list[chips_of.Chips]:
    known = {kind.name: kind for kind in chips_of.ALL}
    asked = list(known) if names is None else [name.strip() for name in names.split(",")]
    for name in asked:
        check_choice("chips", name, tuple(known))
    return [known[name] for name in asked]


def config_of(shape: str) -> Config:
    """Returns the config of a shape by its name."""
    with tempfile.TemporaryDirectory() as folder:
        return random_checkpoint.write_config(pathlib.Path(folder), shape, DTYPE)


def work_for(kind: chips_of.Chips, config: Config, law: str, quick: bool) -> roofline.Work:
    """Returns as many experts side by side as should fit a chip by the formula, at most `MOST`."""
    rank = 1 if law.startswith("low rank") else None
    work = roofline.Work(MOST.get(law, 4), ROWS, PROMPT, NEW, rank, TURNS)
    if quick:
        return dataclasses.replace(work, experts=2, rows=4, prompt=8, new=4)
    while work.experts > 1 and _needed(config, work) > 0.95 * kind.memory:
        work = dataclasses.replace(work, experts=work.experts // 2)
    return work


def _needed(config: Config, work: roofline.Work) -> float:
    held = roofline.held_bytes(config, work)
    return held["base"] + ALLOWED * (held["weights"] + held["caches"])


def _program(
    kind: chips_of.Chips, shape: str, config: Config, law: str, quick: bool
) -> dict[str, Any]:
    work = work_for(kind, config, law, quick)
    found = compile_for(kind, config, law, work)
    while "too_large" in found and work.experts > 1:
        work = dataclasses.replace(work, experts=work.experts // 2)
        found = compile_for(kind, config, law, work)
    held = roofline.held_bytes(config, work)
    return {
        "chips": kind.name,
        "shape": shape,
        "law": law,
        "work": dataclasses.asdict(work),
        "held": held,
        "compiled": found,
        "temporaries_ratio": (
            None
            if "too_large" in found
            else found["temporaries"] / (held["weights"] + held["caches"])
        ),
        "roofline": roofline.bound(config, work, kind),
    }


def _targets(programs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fits = [row for row in programs if row["temporaries_ratio"] is not None]
    targets = [
        timing.target(
            f"{row['law']}, 0.5B, v5e-4: seconds of compiling",
            row["compiled"]["compile_seconds"],
            LIMITS[row["law"]],
            at_least=False,
        )
        for row in fits
        if (row["chips"], row["shape"]) == ("v5e-4", "0.5B")
    ]
    if fits:
        targets.append(
            timing.target(
                "temporaries, times the experts' own weights and caches, the largest",
                max(row["temporaries_ratio"] for row in fits),
                ALLOWED,
                at_least=False,
            )
        )
    name, shape, law, limit = RATE
    targets += [
        timing.target(
            f"{law}, {shape}, {name}: tokens/s by the roofline", rate, limit, at_least=True
        )
        for row in fits
        if (row["chips"], row["shape"], row["law"]) == (name, shape, law)
        for rate in [row["roofline"]["tokens_per_s"]]
    ]
    return targets


def _line(row: dict[str, Any]) -> str:
    compiled = row["compiled"]
    about = f"{row['chips']}, {row['shape']}, {row['law']}"
    if "too_large" in compiled:
        return f"{about}: does not fit ({compiled['too_large']})"
    return (
        f"{about}: {compiled['compile_seconds']:.1f} s, {compiled['code'] / 1e6:.1f} MB of code, "
        f"temporaries {row['temporaries_ratio']:.2f} times weights and caches"
    )


def text(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = [_row(row) for row in result["programs"]]
    head = ["chips, shape, noise", "experts a chip", "s compiling", "code, MB"]
    head += ["arguments, GB", "temporaries, GB", "of weights + caches", "collectives"]
    head += ["prefill, ms", "step, ms", "experts/s", "tokens/s"]
    work = result["programs"][0]["work"]
    left = "".join(f" Left out: {why}." for why in result["left_out"].values())
    return (
        f"Compiled on this machine for chips that are not in it: {result['dtype']}, for each "
        f"expert {work['turns'] * work['rows']} prompts of {work['prompt']} tokens on "
        f"{work['rows']} rows, {work['new']} new tokens each; θ on every chip, experts spread over "
        "the chips. Bytes are a chip's, by the compiler. Prefill, step and rates are the "
        f"roofline's from published peaks: a bound, not a measurement.{left}\n\n"
        + markdown_table(head, rows)
    )


def _row(row: dict[str, Any]) -> list[str]:
    compiled, bound = row["compiled"], row["roofline"]
    about = [f"{row['chips']}, {row['shape']}, {row['law']}", str(row["work"]["experts"])]
    times = [number(1e3 * bound["prefill_seconds"]), number(1e3 * bound["step_seconds"])]
    if "too_large" in compiled:
        return [*about, "does not fit", *["-"] * 9]
    crossing = ", ".join(f"{n['count']} {kind}" for kind, n in compiled["collectives"].items())
    return [
        *about,
        number(compiled["compile_seconds"]),
        number(compiled["code"] / 1e6),
        number(compiled["arguments"] / 1e9),
        number(compiled["temporaries"] / 1e9),
        number(row["temporaries_ratio"]),
        crossing or "none",
        *times,
        number(bound["experts_per_s"]),
        number(bound["tokens_per_s"]),
    ]
