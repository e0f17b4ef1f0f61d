"""How JAX runs: vector width, precision, the cache of compiled programs. Set here, in the tests, and nowhere else."""

import os
from pathlib import Path
from typing import Any

from tumortwin._paths import user_cache
from tumortwin.runs._memory import keep_arenas_few

_VECTOR_WIDTH = "--xla_cpu_prefer_vector_width=512"
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_CHECKS = "EQX_ON_ERROR"
_MIN_COMPILE_SECONDS = 0.3


def configure_environment() -> None:
    """What has to stand in the environment before JAX and Equinox are imported; child processes inherit it.

    512-bit vectors are worth 17 % on the stencil.

    The checks inside Diffrax's and Optimistix's compiled programs (times in order, and such) call back into Python to
    raise, and a program that does is never cached: every run would compile its solves again. With EQX_ON_ERROR=nan they
    return NaN instead, which a `Trajectory` counts as a failed solve. Set it to `raise` to find out what failed.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_prefer_vector_width" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_VECTOR_WIDTH}".strip()
    os.environ.setdefault(_CHECKS, "nan")
    keep_arenas_few()


def configure_backend(cache: str | os.PathLike[str] | None = None, *, x64: bool = True) -> None:
    """Precision and cache of the JAX of this process; call `configure_environment` first.

    **Arguments:** `cache`: folder of compiled programs; without one that of JAX_COMPILATION_CACHE_DIR, else the
    user's. Child processes inherit it. A folder that cannot be written is left alone: nothing is cached.
    """
    import jax

    folder = str(cache or os.environ.get(_CACHE) or user_cache() / "jax")
    os.environ[_CACHE] = folder
    jax.config.update("jax_enable_x64", x64)
    if _writable(Path(folder)):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def backend_facts() -> dict[str, Any]:
    """Devices and precision, for the provenance of a run."""
    import jax
    import jax.numpy as jnp

    devices = jax.devices()
    return {
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "device_count": len(devices),
        "dtype": str(jnp.result_type(float)),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
