"""Where numbers go while a run is under way."""

import abc
import json
import os
import time
from pathlib import Path
from typing import Any

from tumortwin._files import disk_full
from tumortwin.runs._json import plain


class AbstractTracker(abc.ABC):
    """Receives named numbers, step by step."""

    @abc.abstractmethod
    def log(self, step: int, **values: Any) -> None:
        """Keeps the `values` of `step`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Flushes what is left."""


class JsonlTracker(AbstractTracker):
    """One JSON object a line, appended: safe on network file systems, readable while the run goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _drop_torn_line(path)
        self._handle = open(path, "a", encoding="utf-8")

    def log(self, step: int, **values: Any) -> None:
        """Appends `{step, time, name: value ...}`; `time` in seconds since 1970."""
        record = {"step": step, "time": round(time.time(), 3), **plain(values)}
        try:
            self._handle.write(json.dumps(record, allow_nan=False) + "\n")
            self._handle.flush()
        except OSError as error:
            raise disk_full(error, self._path) or error from error

    def close(self) -> None:
        """Closes the file."""
        self._handle.close()


def _drop_torn_line(path: Path) -> None:
    """Cuts off a last line without its end: what a killed process was writing."""
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
