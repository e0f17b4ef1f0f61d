"""Where a result comes from."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tumortwin import __version__
from tumortwin.runs._backend import backend_facts
from tumortwin.runs._identity import code_digest, file_digest

PACKAGES = (
    "jax", "jaxlib", "equinox", "diffrax", "lineax", "optimistix", "optax", "numpyro", "numpy", "scipy", "hydra-core",
    "omegaconf", "nibabel", "SimpleITK", "nilearn", "xarray", "zarr", "matplotlib",
)  # fmt: skip
_GIT_SECONDS = 10


def now() -> str:
    """The time of day, with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def versions() -> dict[str, str | None]:
    """Installed versions of the packages that the numbers depend on."""
    found: dict[str, str | None] = {"tumortwin": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def git_state(root: Path | None) -> dict[str, Any]:
    """Commit and whether the tree differs from it; None where there is no repository."""
    if root is None or not (root / ".git").exists():
        return {"sha": None, "dirty": None}
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"sha": _git(root, "rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def lock_digest(root: Path | None) -> str | None:
    """SHA-256 of requirements.lock, None outside a repository."""
    file = None if root is None else root / "requirements.lock"
    return file_digest(file) if file is not None and file.is_file() else None


def provenance(
    *, identity: str, seed: int, data: Mapping[str, str], argv: Sequence[str], repository: Path | None
) -> dict[str, Any]:
    """Everything that provenance.json holds."""
    return {
        "identity": identity,
        "started": now(),
        "resumed": [],
        "argv": list(argv),
        "seed": seed,
        "data": dict(data),
        "git": git_state(repository),
        "lock": lock_digest(repository),
        "code": code_digest(),
        "versions": versions(),
        "backend": backend_facts(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "executable": Path(sys.executable).name},
    }
