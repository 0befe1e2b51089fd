"""Requests of several threads that come at the same time, answered together by one of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import Generic, TypeVar, final

import torch

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


@final
class Combined(Generic[RequestT, AnswerT]):
    """A function of one request, called by many threads, over a function of several.

    Small requests are mostly calls from Python, which threads of one interpreter make one after another, and handing
    the interpreter from thread to thread takes longer than the calls do. So whoever finds nobody at work answers all
    that wait, in one batch, and the others sleep until their answer is there. Who asks alone waits for nobody.

    Source: flat combining (Hendler, Incze, Shavit, Tzafrir 2010).
    """

    def __init__(
        self, answer: Callable[[Sequence[RequestT]], Sequence[AnswerT]], *, at_most: int = 32, turns: int | None = None
    ) -> None:
        """`answer`: requests → an answer each, in order; where it raises, each request is asked for by itself.

        `turns`: threads that answer at once; None: as many as there are processor cores for them beside PyTorch's own
        within an operation.
        """
        self._answer = answer
        self._at_most = at_most
        self._lock = Lock()
        self._turns = turns or max(1, (os.cpu_count() or 1) // torch.get_num_threads())
        self._waiting: deque[_Waiting[RequestT, AnswerT]] = deque()

    def __call__(self, request: RequestT) -> AnswerT:
        """The answer to one request; raises what answering it raises."""
        own = _Waiting[RequestT, AnswerT](request)
        with self._lock:
            has_turn = self._turns > 0
            if has_turn:
                self._turns -= 1
            else:
                self._waiting.append(own)
        if not has_turn:
            # Whoever wakes this thread has answered for it, or hands it the turn.
            own.woken.wait()
        if not own.answered:
            try:
                self._serve(self._batch_of(own))
            finally:
                self._hand_on()
        return own.result()

    def _batch_of(self, own: _Waiting[RequestT, AnswerT]) -> list[_Waiting[RequestT, AnswerT]]:
        with self._lock:
            count = min(len(self._waiting), self._at_most - 1)
            return [own, *(self._waiting.popleft() for _ in range(count))]

    def _hand_on(self) -> None:
        with self._lock:
            heir = self._waiting.popleft() if self._waiting else None
            if heir is None:
                self._turns += 1
        if heir is not None:
            heir.woken.set()

    def _serve(self, batch: list[_Waiting[RequestT, AnswerT]]) -> None:
        try:
            answers = self._answer([each.request for each in batch])
        except BaseException as error:
            if len(batch) == 1 or not isinstance(error, Exception):
                for each in batch:
                    each.fail(error)
            else:
                # One that cannot be answered is no fault of those beside it.
                for each in batch:
                    self._serve([each])
            return
        for each, answer in zip(batch, answers, strict=True):
            each.succeed(answer)


@final
class _Waiting(Generic[RequestT, AnswerT]):
    def __init__(self, request: RequestT) -> None:
        self.request = request
        self.answered = False
        self.woken = Event()
        self._answers: list[AnswerT] = []
        self._error: BaseException | None = None

    def succeed(self, answer: AnswerT) -> None:
        self._answers.append(answer)
        self._wake()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._wake()

    def result(self) -> AnswerT:
        if self._error is not None:
            raise self._error
        return self._answers[0]

    def _wake(self) -> None:
        self.answered = True
        self.woken.set()
