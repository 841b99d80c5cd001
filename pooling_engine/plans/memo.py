"""What is worked out once for a plan, and kept as long as that takes little memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from pooling_engine.plans.plan import PoolPlan

Answer = TypeVar("Answer", bound=tuple[Any, ...])

KEPT_BYTES = 64 << 20  # of the arrays in the answers of one function
KEPT_ANSWERS = 256


class Kept(Generic[Answer]):
    """A function of a plan whose last answers are kept, but for those that are too large.

    A table has entries for every output along an axis: those of long rows take more memory than the
    rows, so counting answers is not enough. For use by many threads at once.

    Args:
        function: gives a tuple, of arrays among others, which nobody writes to.
    """

    def __init__(self, function: Callable[[PoolPlan], Answer]) -> None:
        self._function = function
        self._answers: dict[PoolPlan, Answer] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self.__doc__ = function.__doc__

    def __call__(self, plan: PoolPlan) -> Answer:
        """The answer for a plan, worked out if it is not kept."""
        answer = self._answers.get(plan)
        return self._work_out(plan) if answer is None else answer

    def cache_clear(self) -> None:
        """Forgets all answers."""
        with self._lock:
            self._answers.clear()
            self._bytes = 0

    def _work_out(self, plan: PoolPlan) -> Answer:
        answer = self._function(plan)
        size = _nbytes(answer)
        with self._lock:
            if size <= KEPT_BYTES and plan not in self._answers:
                self._answers[plan] = answer
                self._bytes += size
                while self._bytes > KEPT_BYTES or len(self._answers) > KEPT_ANSWERS:
                    oldest = next(iter(self._answers))
                    self._bytes -= _nbytes(self._answers.pop(oldest))
        return answer


def _nbytes(answer: tuple[Any, ...]) -> int:
    return sum(array.nbytes for array in _arrays(answer))


def _arrays(answer: tuple[Any, ...]) -> Iterator[np.ndarray[Any, Any]]:
    return (item for item in answer if isinstance(item, np.ndarray))
