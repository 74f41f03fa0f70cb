"""Settings for processes that tests start: what they compile, others and the next ones read."""

import pathlib

COMPILED = {
    "JAX_COMPILATION_CACHE_DIR": str(
        pathlib.Path(__file__).resolve().parents[2] / ".pytest_cache" / "compiled"
    ),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
