"""Progress: bars on a terminal, now and then a line elsewhere; one object, made at the edge and handed down."""

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# Seconds between two lines where no terminal shows bars.
LINE_EVERY = 30.0

Show = Callable[[float, float | None, str | None], None]
"""`(steps done, of how many, a note)`; None: not known, no change of the note."""


class ProgressTask:
    """A piece of work that is under way."""

    def __init__(self, show: Show, total: float | None) -> None:
        self._show, self._total, self._done = show, total, 0.0

    def advance(self, steps: float = 1) -> None:
        """So many more steps are done."""
        self.update(self._done + steps)

    def update(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """`done` of `total` steps are done; `note` is shown behind the bar."""
        self._done, self._total = done, total or self._total
        self._show(self._done, self._total, note)


class Progress:
    """Bars for anything over two seconds, or lines.

    `mode`: auto (bars when `stream` is a terminal; else, in a log or a pipe, a line at most every `every` seconds, with
    the time since the beginning), on (bars), off. Bars vanish when their work is done; `say` leaves a line.
    """

    def __init__(self, mode: str = "auto", stream: Any = None, *, every: float = LINE_EVERY) -> None:
        if mode not in ("auto", "on", "off"):
            raise ValueError(f"required: progress auto, on or off; received: {mode!r}; try: auto")
        self._stream = stream if stream is not None else sys.stderr
        self._forced = mode == "on"
        self.shown = mode == "on" or (mode == "auto" and self._stream.isatty())
        self._lines = mode == "auto" and not self.shown
        self._every, self._began = every, time.monotonic()
        self._last = self._began
        self._bar: Any = None
        self._open = 0

    @contextlib.contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[ProgressTask]:
        """A bar for the length of the block; tasks may be nested. `total` None: the amount of work is not known."""
        if not self.shown:
            yield ProgressTask(lambda *state: self._line(label, *state), total)
            return
        bar = self._start()
        number = bar.add_task(label, total=total, note="")

        def show(done: float, total: float | None, note: str | None) -> None:
            bar.update(number, completed=done, total=total, **({} if note is None else {"note": note}))

        try:
            yield ProgressTask(show, total)
        finally:
            bar.remove_task(number)
            self._stop()

    @contextlib.contextmanager
    def callback(self, label: str) -> Iterator[Callable[..., None]]:
        """The same as a plain function `(done, total, note=None)`, for rooms that know no terminal."""
        with self.task(label) as task:
            yield task.update

    def say(self, text: str) -> None:
        """A line on the terminal, above the bars; nothing elsewhere (the run's log has it)."""
        if not self.shown:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def _line(self, label: str, done: float, total: float | None, note: str | None) -> None:
        now = time.monotonic()
        if not self._lines or now - self._last < self._every:
            return
        self._last = now
        since, share = datetime.timedelta(seconds=int(now - self._began)), "" if total is None else f" of {total:.12g}"
        text = f"[{since}] {label}: {done:.12g}{share} {note or ''}".rstrip()
        try:
            print(text, file=self._stream, flush=True)
        except OSError:  # nobody reads any more: no reason to lose the work
            self._lines = False

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
