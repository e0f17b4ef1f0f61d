"""A file or a folder is written under a temporary name and renamed: a reader sees all of it or nothing."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, with the same ending; renamed onto `path` if the block ends without an error.

    The block may write a file or a folder there. An existing file is replaced in one step; an existing folder is moved
    aside, replaced and then deleted. After an error (a full disk, say) nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        temporary = room / path.name
        yield temporary
        if path.is_dir() and not path.is_symlink():
            path.rename(room / "previous")
        os.replace(temporary, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a small text file, atomically, in UTF-8."""
    path = Path(path)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
