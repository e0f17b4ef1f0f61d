"""Progress on the terminal: one object, made at the edge and handed down; silent where nobody watches."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any


class ProgressTask:
    """A piece of work that is under way."""

    def __init__(self, bar: Any, number: Any, total: float | None) -> None:
        self._bar, self._number, self._total = bar, number, total

    def advance(self, steps: float = 1) -> None:
        """So many more steps are done."""
        if self._bar is not None:
            self._bar.advance(self._number, steps)

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """`done` of `total` steps are done; `note` is shown behind the bar."""
        if self._bar is not None:
            fields = {} if note is None else {"note": note}
            self._bar.update(self._number, completed=done, total=total or self._total, **fields)


class Progress:
    """Bars for anything over two seconds.

    `mode`: auto (shown when `stream` is a terminal), on, off. Bars vanish when their work is done; `say` leaves a line.
    """

    def __init__(self, mode: str = "auto", stream: Any = None) -> None:
        if mode not in ("auto", "on", "off"):
            raise ValueError(f"required: progress auto, on or off; received: {mode!r}; try: auto")
        self._stream = stream if stream is not None else sys.stderr
        self._forced = mode == "on"
        self.shown = mode == "on" or (mode == "auto" and self._stream.isatty())
        self._bar: Any = None
        self._open = 0

    @contextlib.contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[ProgressTask]:
        """A bar for the length of the block; tasks may be nested. `total` None: the amount of work is not known."""
        if not self.shown:
            yield ProgressTask(None, None, total)
            return
        bar = self._start()
        number = bar.add_task(label, total=total, note="")
        try:
            yield ProgressTask(bar, number, total)
        finally:
            bar.remove_task(number)
            self._stop()

    @contextlib.contextmanager
    def callback(self, label: str) -> Iterator[Callable[..., None]]:
        """The same as a plain function `(done, total, note=None)`, for rooms that know no terminal."""
        with self.task(label) as task:
            yield task.update

    def say(self, text: str) -> None:
        """A line on the terminal, above the bars; nothing where nobody watches."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def _start(self) -> Any:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30))
            tail = (TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
            console = Console(file=self._stream, force_terminal=self._forced or None)
            self._bar = Bars(*columns, *tail, console=console, transient=True)
            self._bar.start()
        self._open += 1
        return self._bar

    def _stop(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._bar.stop()
            self._bar = None
