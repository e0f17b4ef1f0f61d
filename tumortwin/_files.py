"""Files and folders appear whole or not at all: a temporary name beside the target, then a rename.

A full disk becomes an `InputError` that says so; whatever was half-written is removed.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tumortwin._errors import InputError

_PREFIX = ".tmp-"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DEPTH = 10


def disk_full(error: BaseException | None, path: str | os.PathLike[str]) -> InputError | None:
    """The `InputError` to raise when `error`, or what caused it, says that the disk is full."""
    for _ in range(_DEPTH):
        if error is None:
            return None
        if isinstance(error, OSError) and error.errno in _FULL:
            return InputError(
                file=path,
                required="room on the disk for the results",
                received=f"{os.strerror(error.errno)} while writing",
                advice="free some space, or paths.runs=DIR on another disk; the same command then resumes",
            )
        error = error.__cause__ or error.__context__
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _sync(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as handle:
            os.fsync(handle.fileno())


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, with the same ending; renamed to `path` when the block ends without an error.

    The block writes a file or makes a folder there. An existing file is replaced in one step; an existing folder is
    moved away first. Errors: whatever the block raises; `InputError` when the disk is full.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_PREFIX}{os.getpid()}-{target.name}")
    _remove(temporary)
    try:
        yield temporary
        _sync(temporary)
        if target.is_dir() and not target.is_symlink():
            old = target.with_name(f"{_PREFIX}{os.getpid()}-old-{target.name}")
            os.replace(target, old)
            os.replace(temporary, target)
            _remove(old)
        else:
            os.replace(temporary, target)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, Exception) and (full := disk_full(error, target)) is not None:
            raise full from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary names that a killed process left anywhere in `folder`; the caller holds its lock."""
    for path in sorted(folder.rglob(f"{_PREFIX}*")):
        _remove(path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
