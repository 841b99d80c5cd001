"""`remote`: redirect the pooling calls of PyTorch to a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pooling_client._training.clients import check_server
from pooling_client.torch import functional


def _redirections() -> dict[Callable[..., Any], tuple[Callable[..., Any], bool]]:
    """Return our function for each of PyTorch's, and whether PyTorch's always returns indices."""
    native = torch._C._nn
    table = {}
    for rank in (1, 2, 3):
        for name in ("max_pool", "adaptive_max_pool"):
            ours = getattr(functional, f"{name}{rank}d")
            table[getattr(torch.nn.functional, f"{name}{rank}d")] = (ours, False)
            table[getattr(torch.nn.functional, f"{name}{rank}d_with_indices")] = (ours, True)
        for name in ("avg_pool", "adaptive_avg_pool", "max_unpool"):
            ours = getattr(functional, f"{name}{rank}d")
            table[getattr(torch.nn.functional, f"{name}{rank}d")] = (ours, False)
        table[getattr(torch, f"max_pool{rank}d")] = (getattr(functional, f"max_pool{rank}d"), False)
    table[torch.max_pool1d_with_indices] = (functional.max_pool1d, True)
    table[native.max_pool2d_with_indices] = (functional.max_pool2d, True)
    table[native.max_pool3d_with_indices] = (functional.max_pool3d, True)
    table[torch.adaptive_max_pool1d] = (functional.adaptive_max_pool1d, True)
    table[native.adaptive_max_pool2d] = (functional.adaptive_max_pool2d, True)
    table[native.adaptive_max_pool3d] = (functional.adaptive_max_pool3d, True)
    table[native.adaptive_avg_pool2d] = (functional.adaptive_avg_pool2d, False)
    table[native.adaptive_avg_pool3d] = (functional.adaptive_avg_pool3d, False)
    return table


_REDIRECTIONS = _redirections()


class _Remote(TorchFunctionMode):
    def __init__(self, server: str | None) -> None:
        super().__init__()
        self.server = server

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function not in _REDIRECTIONS:
            return function(*args, **kwargs)
        ours, returns_indices = _REDIRECTIONS[function]
        if returns_indices:
            kwargs = {**kwargs, "return_indices": True}
        return ours(*args, **kwargs, server=self.server)


def remote(server: str | None = None) -> AbstractContextManager[object]:
    """Return a context manager that redirects pooling calls to a server.

    Within it, the functions of `torch.nn.functional` and the modules of `torch.nn` for max,
    average and adaptive pooling, and for unpooling, compute on the server, in this thread. Not
    redirected are ``lp_pool*d`` (`replace` explains the difference), ``fractional_max_pool*d``, and
    means such as ``x.mean([2, 3])``.

    Args:
        server: target of the server, or None for the default.

    Raises:
        TypeError: `server` is not a string.
    """
    check_server(server)
    return _Remote(server)
