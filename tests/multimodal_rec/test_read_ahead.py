"""Values come in order, ahead of who asks, and errors come where they happened."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from multimodal_rec.read_ahead import read_ahead
from multimodal_rec.transfer import RowsBatch, on_device
from towers import TowerBatch


def test_values_come_in_order_and_ahead() -> None:
    made: list[int] = []
    second = threading.Event()

    def source() -> Iterator[int]:
        for value in range(5):
            made.append(value)
            if value == 2:
                second.set()
            yield value

    ahead = read_ahead(source(), depth=2)
    assert next(ahead) == 0
    # Two more are made while nobody asks.
    assert second.wait(10)
    assert list(ahead) == [1, 2, 3, 4]
    assert list(read_ahead([])) == []


def test_an_error_comes_where_its_value_would_have_come() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(source())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    ahead = read_ahead(iter(range(1000)))
    assert next(ahead) == 0
    ahead.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
    assert threading.active_count() == before


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batches_arrive_whole_and_in_order(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    batches = [
        RowsBatch([row], [1], TowerBatch({"pixels": torch.full((1, 3), float(row))}, torch.ones(1, dtype=torch.int64)))
        for row in range(5)
    ]
    found = list(on_device(batches, torch.device(device)))
    assert [each.rows for each in found] == [[row] for row in range(5)]
    assert [each.batch.windows["pixels"].device.type for each in found] == [device] * 5
    assert [float(each.batch.windows["pixels"].mean()) for each in found] == [0.0, 1.0, 2.0, 3.0, 4.0]
