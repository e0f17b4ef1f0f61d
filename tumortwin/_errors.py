"""The one exception for bad input data: every room may raise it, the command line turns it into exit code 3."""

import difflib
import os
from collections.abc import Sequence


class InputError(Exception):
    """A file or a value from the user that cannot be used.

    Says which `file`, what was `required`, what was `received`, and what to try (`advice`). The message is complete in
    itself: the command line prints it and exits with code 3, without a trace.
    """

    def __init__(self, *, file: str | os.PathLike[str] | None, required: str, received: str, advice: str) -> None:
        self.file = None if file is None else os.fspath(file)
        self.required = required
        self.received = received
        self.advice = advice
        lines = [] if self.file is None else [f"file:     {self.file}"]
        lines += [f"required: {required}", f"received: {received}", f"try:      {advice}"]
        Exception.__init__(self, "\n".join(lines))

    def __reduce__(self) -> tuple:
        """Rebuilds the exception in another process (the sweep launchers send it back to the parent)."""
        return _rebuild, (self.file, self.required, self.received, self.advice)


class NotConverged(Exception):
    """A posterior that must not be used. The message is complete: required, received, what to try."""


def _rebuild(file: str | None, required: str, received: str, advice: str) -> InputError:
    return InputError(file=file, required=required, received=received, advice=advice)


def unknown_key(key: object, where: str, allowed: Sequence[str], *, file: str | os.PathLike[str] | None) -> InputError:
    """The error for a key that `where` does not know; the nearest are offered."""
    near = difflib.get_close_matches(str(key), allowed, n=3, cutoff=0.4)
    return InputError(
        file=file,
        required=f"a known key in {where}: {', '.join(allowed)}",
        received=f"`{key}`",
        advice=f"did you mean {' or '.join(map(repr, near))}?" if near else "remove it",
    )
