"""Progress of long work that runs in several processes, shown as bars in one terminal."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

CONTEXT: Final = multiprocessing.get_context("spawn")
"""Workers start fresh: a forked torch or OpenMP may hang."""

_PATIENCE_S: Final = 1.0
"""How long the last bars may take to be drawn; what comes later is not missed."""


@dataclass(frozen=True)
class Tick:
    """One step forward of one bar, or of one of the `parts` it sums; `done` and `total` in its own unit."""

    bar: str
    done: int
    total: int
    part: str = ""
    parts: int = 1


class Board:
    """Named bars. `tick` may be called here or, through `queue`, in any worker process."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}
        self._parts: dict[str, dict[str, Tick]] = {}
        self.queue: Queue[Tick | None] = CONTEXT.Queue()

    def tick(self, bar: str, done: int, total: int) -> None:
        """Move a bar; it appears when it is first named."""
        self.show(Tick(bar, done, total))

    def show(self, tick: Tick) -> None:
        """Move a bar by one of its parts; parts that have not begun are taken to be like the others."""
        if tick.bar not in self._tasks:
            self._tasks[tick.bar] = self._progress.add_task(tick.bar, total=tick.total)
        known = self._parts.setdefault(tick.bar, {})
        known[tick.part] = tick
        total = sum(part.total for part in known.values()) * max(tick.parts, len(known)) // len(known)
        done = sum(part.done for part in known.values())
        self._progress.update(self._tasks[tick.bar], completed=done, total=total)

    def listen(self) -> None:
        """Move bars for workers until None comes out of the queue."""
        while (tick := self.queue.get()) is not None:
            self.show(tick)


class _Screen(Progress):
    """Bars, and what stands above them, drawn anew with every move."""

    above: Callable[[], RenderableType] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn, from top to bottom."""
        if self.above is not None:
            yield self.above()
        yield from super().get_renderables()


@contextmanager
def board(
    above: Callable[[], RenderableType] | None = None, *, silent: bool = False, console: Console | None = None
) -> Iterator[Board]:
    """Show bars on stderr while the block runs; nothing where stderr is not a terminal.

    Args:
        above: drawn over the bars, again and again.
        silent: show nothing at all.
        console: instead of stderr.
    """
    console = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    hidden = silent or not console.is_terminal
    # What stands above is told again, whole, when the work has ended.
    with _Screen(*columns, console=console, disable=hidden, transient=above is not None) as progress:
        progress.above = above
        shown = Board(progress)
        listener = threading.Thread(target=shown.listen, daemon=True)
        listener.start()
        try:
            yield shown
        finally:
            # A worker that ended while it spoke holds the queue's lock for ever: nothing here may wait for it.
            shown.queue.cancel_join_thread()
            shown.queue.put(None)
            listener.join(_PATIENCE_S)
            if not listener.is_alive():
                shown.queue.close()
