"""`start`: pooling calls that overlap with other work of the same step."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

MAX_CALLS = 8  # that overlap; further ones wait


class _Threads:
    """Threads of started calls, created at the first call in this process."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(MAX_CALLS, "pooling-start")
        return self._executor.submit(work)

    def clear_after_fork(self) -> None:
        self._executor = None  # the threads stay in the parent


_THREADS = _Threads()
if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_THREADS.clear_after_fork)


def start(module: Callable[..., Result], *inputs: Any, **options: Any) -> Future[Result]:
    """Start a pooling call in another thread, so that independent calls overlap.

    The output is differentiable as usual. Grad mode is that of the caller; the context managers
    `remote` and ``torch.autocast`` do not apply to the call. Up to `MAX_CALLS` calls overlap.

    Args:
        module: a module or function of this package.
        inputs: its tensors and other arguments.
        options: its keyword arguments.

    Returns:
        The call; ``result()`` waits for the output and raises the errors of the call.
    """
    is_enabled = torch.is_grad_enabled()

    def work() -> Result:
        with torch.set_grad_enabled(is_enabled):
            return module(*inputs, **options)

    return _THREADS.submit(work)
