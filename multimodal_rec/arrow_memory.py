"""Where Arrow takes memory from while rows are handed to Lance."""

from __future__ import annotations

import threading
from typing import final

import pyarrow as pa


@final
class SystemMemory:
    """A block in which Arrow takes memory from the C library, in all threads, as long as any thread is in one.

    LanceDB looks through the rows that it is given on threads of its own, which come and go. What a thread took of
    Arrow's own allocator, mimalloc, and another one gives back after the first has ended is not used again: more than
    a megabyte was lost each time that 2,048 rows were written (docs/log.md, 2026-11-28).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._before = pa.default_memory_pool()

    def __enter__(self) -> None:
        with self._lock:
            if self._num_inside == 0:
                self._before = pa.default_memory_pool()
                pa.set_memory_pool(pa.system_memory_pool())
            self._num_inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                pa.set_memory_pool(self._before)


system_memory = SystemMemory()
"""The one of this process, as Arrow has one default pool a process."""
