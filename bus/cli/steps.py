"""Progress of long work: bars at a terminal, plain lines elsewhere, each step with the time it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bus.cli.output import console

_PLAIN_EVERY_S = 5.0


class Bar:
    """One amount of work that moves. Without a terminal it speaks at most every five seconds."""

    def __init__(self, steps: Steps, text: str, total: int) -> None:
        self._steps = steps
        self._text = text
        self._total = total
        self._spoke = time.monotonic()
        self._task: TaskID | None = steps.add(text, total)

    def at(self, done: int) -> None:
        """``done`` of the total."""
        if self._task is not None:
            self._steps.progress.update(self._task, completed=done)
        elif time.monotonic() - self._spoke > _PLAIN_EVERY_S:
            self._spoke = time.monotonic()
            console.print(f"  {self._text}: {done:,} of {self._total:,}")


class Steps:
    """The steps of one command, drawn one after the other."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Steps:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def add(self, text: str, total: int) -> TaskID | None:
        """A bar, where there is a terminal to draw it."""
        return self.progress.add_task(text, total=total) if console.is_terminal else None

    def say(self, text: str) -> None:
        """A line that stays."""
        console.print(text, markup=False)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Names what begins, and how long it took."""
        console.print(f"{text} …", style="bold" if console.is_terminal else "")
        begun = time.monotonic()
        yield
        console.print(f"  done in {time.monotonic() - begun:.1f} s", style="dim" if console.is_terminal else "")
