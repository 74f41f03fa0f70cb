"""The strict world of the tests: eight CPU devices and strict promotion, set before any import."""

import gc
import importlib.metadata
import os
import pathlib
import signal

# Compiling dominates the tests' time. These settings of the CPU's compiler take a third of it away
# and change no bit that a law compares; newer releases do not know the first, and are tested as
# users run them.
if importlib.metadata.version("jaxlib") < "0.11":
    _QUICK = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1"
    os.environ["XLA_FLAGS"] = f"{_QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()
# Threads of numpy's products wait in loops for each other; a worker of the tests has one core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.devices()  # now: the first command or experiment of a process would take one for each core
# What one process compiled, the others and the next run read.
_COMPILED = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "compiled"
jax.config.update("jax_compilation_cache_dir", str(_COMPILED))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
gc.set_threshold(50_000, 20, 50)  # traces are many small objects, and most of them stay
# A shell's background jobs, and what runs under nohup, ignore signals that the tests send.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.fixture(scope="module")
def undrawn():
    """Figures are made and not rendered, half the time of a run with a tiny model."""
    from matplotlib.figure import Figure

    def leave_a_file(figure, path, **how):
        pathlib.Path(path).write_bytes(b"a picture")

    rendering = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", leave_a_file)
        yield rendering


@pytest.fixture
def drawn(undrawn, monkeypatch):
    """For one test of a module whose figures are not rendered otherwise."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", undrawn)
