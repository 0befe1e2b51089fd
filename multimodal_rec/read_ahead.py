"""Values made in a thread while the last ones are still at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Value = TypeVar("Value")


def read_ahead(source: Iterable[Value], depth: int = 2) -> Iterator[Value]:
    """The same values in the same order, up to `depth` of them made before they are asked for.

    Decoders, tokenizers and hashes let go of the interpreter while they work, and so does an encoder: a thread is
    enough for the two to overlap. What `source` raises is raised where its value would have come.
    """
    iterator = iter(source)
    end = object()

    def following() -> Value | object:
        return next(iterator, end)

    pool = ThreadPoolExecutor(1)
    try:
        made: deque[Future[Value | object]] = deque(pool.submit(following) for _ in range(depth))
        while (value := made.popleft().result()) is not end:
            made.append(pool.submit(following))
            yield value  # pyright: ignore[reportReturnType] - all but `end` came from `source`
    finally:
        pool.shutdown(cancel_futures=True)
