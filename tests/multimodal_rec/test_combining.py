"""Requests of several threads: one answers for all that wait, each gets its own answer or its own error."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from multimodal_rec.combining import Combined


class Squares:
    """Answers slowly the first time, so that others come to wait."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        if numbers[0] == 0:
            assert self.go_on.wait(10)
        if any(number < 0 for number in numbers):
            raise ValueError(f"{min(numbers)} is below 0")
        return [number * number for number in numbers]


def all_at_once(combined: Combined[int, int], squares: Squares, numbers: range) -> list[object]:
    """What 0 and each of the numbers gets; they come while 0 is being answered."""

    def ask(number: int) -> object:
        try:
            return combined(number)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        first = pool.submit(ask, 0)
        wait_until(lambda: squares.batches == [[0]])
        others = [pool.submit(ask, number) for number in numbers]
        wait_until(lambda: len(combined._waiting) == len(numbers))
        squares.go_on.set()
        return [each.result() for each in [first, *others]]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_those_who_wait_are_answered_together() -> None:
    squares = Squares()
    combined = Combined(squares, turns=1)
    answers = all_at_once(combined, squares, range(1, 9))
    assert answers == [number * number for number in range(9)]
    assert sorted(map(sorted, squares.batches)) == [[0], list(range(1, 9))]


def test_whoever_asks_alone_is_answered_alone() -> None:
    squares = Squares()
    combined = Combined(squares)
    assert [combined(number) for number in (3, 4)] == [9, 16]
    assert squares.batches == [[3], [4]]


def test_a_batch_is_no_larger_than_allowed() -> None:
    squares = Squares()
    combined = Combined(squares, at_most=3, turns=1)
    all_at_once(combined, squares, range(1, 9))
    assert sorted(map(len, squares.batches)) == [1, 2, 3, 3]


def test_one_that_cannot_be_answered_is_no_fault_of_those_beside_it() -> None:
    squares = Squares()
    answers = all_at_once(Combined(squares, turns=1), squares, range(-1, 4))
    assert answers[1:] == ["-1 is below 0", 0, 1, 4, 9]
    with pytest.raises(ValueError, match="-7 is below 0"):
        Combined(squares)(-7)


def test_turns_are_handed_on_until_everybody_is_answered() -> None:
    squares = Squares()
    squares.go_on.set()
    combined = Combined(squares, at_most=2, turns=2)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(combined, range(300))) == [number * number for number in range(300)]
    assert combined._turns == 2
    assert not combined._waiting
