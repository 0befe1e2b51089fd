"""How far an embedding run is, on the terminal."""

from __future__ import annotations

import time
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_PATIENCE_SECONDS = 2.0
"""What ends sooner needs no bar."""


@final
class EmbeddingProgress:
    """A bar on standard error with items a second and the time left, from the third second on.

    `total`: how many items there are, None where nobody knows. `num_passes`: how many towers an item passes at most;
    each counts as its share of an item until the chunk that it belongs to is stored.
    """

    def __init__(self, total: int | None, *, num_passes: int, shown: bool) -> None:
        columns = (TextColumn("embed"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown)
        self._task = self._bar.add_task("embed", total=total)
        self._share = 1.0 / max(1, num_passes)
        self._stored = 0
        self._running = 0.0
        self._begun = time.monotonic()
        self._is_shown = False

    def __enter__(self) -> EmbeddingProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_shown:
            self._bar.stop()

    def passed(self, num_items: int) -> None:
        """Note that items have passed a tower."""
        self._running += num_items * self._share
        self._show()

    def stored(self, num_items: int) -> None:
        """Note that a chunk of items is done, whether it was embedded, unchanged or failed."""
        self._stored += num_items
        self._running = 0.0
        self._show()

    def _show(self) -> None:
        if not self._is_shown and time.monotonic() - self._begun > _PATIENCE_SECONDS:
            self._is_shown = True
            self._bar.start()
        self._bar.update(self._task, completed=int(self._stored + self._running))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Items a second, as far as it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} items/s")
