"""Memory that this process has freed, and the C library still holds."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Have the C library give what was freed back to the system; nothing where it has no way to be told so.

    glibc serves threads from up to eight arenas a core, and of each arena gives back what lies at its end alone. A job
    in which some forty threads of torch, Lance and Arrow free what others took is left with holes everywhere.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    # Of glibc; musl, the other C library on Linux, has none.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
