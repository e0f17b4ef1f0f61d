"""Where what ships with the package is, and where caches are. Pure look-ups: nothing is created here."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def repository() -> Path | None:
    """The root of the source repository when the package is used from one, else None."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "configs").is_dir() else None


def shipped(folder: str) -> Path:
    """A folder that ships with the package (`configs`, `data`): the repository's when it is there, else the wheel's."""
    root = repository()
    return root / folder if root is not None and (root / folder).is_dir() else _PACKAGE / f"_{folder}"


def config_dir() -> Path:
    """The folder of configurations."""
    return shipped("configs")


def user_cache() -> Path:
    """The user's cache folder for this package (`XDG_CACHE_HOME` is honored)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tumortwin"
