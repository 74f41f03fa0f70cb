"""What a result was measured on, and the devices it is measured with."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import re
from typing import Any

import jax

_MOST_CPU_DEVICES = 8  # as the command line
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def start_devices() -> None:
    """Splits a CPU into one device per core, as `thicket run` does; call it before using JAX."""
    # Refused once devices exist, as in a program that has used JAX already.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(cores(), _MOST_CPU_DEVICES))


def label() -> str:
    """Returns `cpu`, `gpu` or `tpu`: the platform that JAX found."""
    return jax.default_backend()


def provenance() -> dict[str, Any]:
    """Returns versions, platform, devices, cores and processor; no date, no name of a machine."""
    import thicket_jax

    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {
            "thicket_jax": thicket_jax.__version__,
            "python": platform.python_version(),
            **versions,
        },
        "platform": label(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": cores(),
        "processor": _processor(),
    }


def sentence(where: dict[str, Any]) -> str:
    """Returns a provenance as one sentence."""
    versions = where["versions"]
    extra = f", torch {versions['torch']}" if versions.get("torch") else ""
    accelerator = "" if where["platform"] == "cpu" else f"{where['device']}, "
    return (
        f"Measured on {accelerator}{where['cores']} cores of {where['processor']}, "
        f"{where['devices']} JAX device(s) ({where['platform']}), jax {versions['jax']}{extra}, "
        f"Python {versions['python']}."
    )


def _processor() -> str:
    """The CPU's model name with the vector extensions that matter for matrix products."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    name = model[1].strip() if model else platform.machine()
    known = set(flags[1].split()) if flags else set()
    vectors = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in known]
    return f"{name} ({', '.join(vectors)})" if vectors else name
