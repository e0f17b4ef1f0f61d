"""Where configurations and caches are. Pure look-ups: nothing is created here."""

import os
from pathlib import Path


def repository() -> Path | None:
    """The root of the source repository when the package is used from one, else None."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "configs").is_dir() else None


def config_dir() -> Path:
    """The folder of configurations: the repository's when it is there, else the one inside the wheel."""
    root = repository()
    return root / "configs" if root is not None else Path(__file__).resolve().parents[1] / "_configs"


def user_cache() -> Path:
    """The user's cache folder for this package (`XDG_CACHE_HOME` is honored)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tumortwin"
