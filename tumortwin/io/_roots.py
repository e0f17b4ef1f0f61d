"""Where the public data lies, and what to tell a user who does not have it."""

import os
from pathlib import Path

from tumortwin._errors import InputError
from tumortwin._paths import user_cache

VARIABLE = "TUMORTWIN_DATA"
HOW_TO_GET = (
    "`tumortwin data list` for what there is, `tumortwin data fetch NAME` for what can be downloaded as it is; else "
    "get the files listed in data/registry.yaml (each with its source, licence and checksum; see data/README.md) "
    f"and set data.root=DIR or the environment variable {VARIABLE}=DIR"
)


def find_data_root(configured: str | os.PathLike[str] | None = None) -> Path:
    """The folder of public data: `configured`, else `$TUMORTWIN_DATA`, else `../shared/data` beside the repository,
    else the user's cache (`~/.cache/tumortwin`).

    A folder that was asked for (configured, or in the environment) must exist; the two defaults are tried in order.

    **Raises:** `InputError` that says how to get the data.
    """
    asked = configured if configured else os.environ.get(VARIABLE)
    if asked:
        root = Path(asked).expanduser()
        if root.is_dir():
            return root.resolve()
        raise _missing(root, "data.root" if configured else VARIABLE)
    defaults = (Path(__file__).resolve().parents[3] / "shared" / "data", user_cache())
    for root in defaults:
        if root.is_dir():
            return root.resolve()
    raise _missing(defaults[-1], "data.root")


def require_file(root: str | os.PathLike[str], *candidates: str) -> Path:
    """The first of `candidates` (paths relative to `root`) that is a file.

    **Raises:** `InputError` that names the first candidate and says how to get the data.
    """
    folder = Path(root)
    for name in candidates:
        if (folder / name).is_file():
            return folder / name
    tried = ", ".join(str(folder / name) for name in candidates)
    received = f"no such file (looked for {tried})" if folder.is_dir() else f"no folder {folder}"
    raise InputError(file=folder / candidates[0], required="a data file", received=received, advice=HOW_TO_GET)


def _missing(root: Path, origin: str) -> InputError:
    return InputError(file=root, required=f"a folder of data ({origin})", received="no such folder", advice=HOW_TO_GET)
