"""One process a run directory. The lock is the kernel's (flock): it goes with the process, so none is ever stale."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_POLL = 0.2  # [s]


class RunLocked(Exception):
    """Another living process works on the same run."""


class Lock:
    """An exclusive lock on a small file; `release` and the end of the process both let it go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: IO[str] | None = None

    def acquire(self, wait: float) -> bool:
        """True when the lock is ours within `wait` [s]."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(self.path, "a+", encoding="utf-8")
        end = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    handle.close()
                    return False
                time.sleep(_POLL)
                continue
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            self._handle = handle
            return True

    def owner(self) -> str:
        """The number of the process that holds or last held the lock, or `unknown`."""
        try:
            return self.path.read_text(encoding="utf-8").strip() or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        """Lets the lock go; harmless when it is not held."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


@contextlib.contextmanager
def locked(path: Path, wait: float) -> Iterator[None]:
    """Holds the lock for a block; `RunLocked` when it is not to be had within `wait` [s]."""
    lock = Lock(path)
    if not lock.acquire(wait):
        raise RunLocked(f"process {lock.owner()} holds {path}")
    try:
        yield
    finally:
        lock.release()
