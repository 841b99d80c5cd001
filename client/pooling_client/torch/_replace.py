"""`replace`: swap the pooling modules of a model for remote ones, and report the effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from pooling_client._training.clients import check_server
from pooling_client.torch import _bases, modules

Model = TypeVar("Model", bound=torch.nn.Module)
Filter = Callable[[torch.nn.Module, str], bool]

_FAMILIES = ("MaxPool", "AvgPool", "LPPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "MaxUnpool")
_TWINS: dict[type[torch.nn.Module], type[_bases.Pool]] = {
    getattr(torch.nn, f"{family}{rank}d"): getattr(modules, f"{family}{rank}d")
    for family in _FAMILIES
    for rank in (1, 2, 3)
}
_LP_POOLS = tuple(type_ for type_ in _TWINS if type_.__name__.startswith("LPPool"))

_SUMS = "sums accumulate in float64 (PyTorch: float32), so last bits may differ"
_NANS = "of several NaNs in a window the first is selected (PyTorch: the last)"
_DIFFERENCES = {
    "MaxPool": f"{_NANS}; 16-bit gradients of overlapping windows accumulate in float32",
    "AdaptiveMaxPool": _NANS,
    "AvgPool": _SUMS,
    "AdaptiveAvgPool": _SUMS,
    "MaxUnpool": "equal indices add up (PyTorch: one wins); indices outside a window are an error",
    "LPPool": "norm of absolute values (PyTorch: signed powers, and scaled sums in ceil mode)",
}


@dataclass(frozen=True)
class Row:
    """One pooling module of a model.

    Attributes:
        name: qualified name of the module; empty for the model itself.
        module: representation of the module before the replacement.
        is_swapped: True if the module was swapped.
        note: for a swapped module, where its numbers differ from PyTorch's; else the reason.
    """

    name: str
    module: str
    is_swapped: bool
    note: str


@dataclass(frozen=True)
class Report:
    """Result of `replace`; its text is a table.

    Attributes:
        rows: pooling modules of the model, in order.
    """

    rows: tuple[Row, ...]

    @property
    def swapped(self) -> list[Row]:
        """Modules that were swapped, each with a note where its numbers differ."""
        return [row for row in self.rows if row.is_swapped]

    @property
    def left(self) -> list[Row]:
        """Modules that were left alone, each with the reason."""
        return [row for row in self.rows if not row.is_swapped]

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} pooling modules swapped, {len(self.left)} left alone"]
        for row in self.rows:
            state = "swapped" if row.is_swapped else "left"
            lines.append(f"{state:8}{row.name or '(model)'}: {row.module}: {row.note}")
        lines.append("Functions that a model calls in forward are not modules: use remote().")
        return "\n".join(lines)


def replace(
    model: Model,
    server: str | None,
    filter_fn: Filter | None = None,
    *,
    lp_pool: bool = False,
) -> tuple[Model, Report]:
    """Swap the pooling modules of a model, in place, for modules that compute on a server.

    A swapped module keeps its arguments, hooks and training flag. Subclasses of the modules of
    `torch.nn`, and modules that this package does not have, are left alone.

    Args:
        model: the model; if it is a pooling module itself, its twin is returned.
        server: target of the server, or None for the default.
        filter_fn: takes a module and its qualified name; returns False to leave the module alone.
        lp_pool: swap ``LPPool`` modules, although their results differ.

    Returns:
        The model and the report.

    Raises:
        TypeError: an argument has the wrong type.
    """
    check_server(server)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(f"filter_fn must be a function or None, not {filter_fn!r}")
    rows: list[Row] = []
    twins: dict[torch.nn.Module, torch.nn.Module] = {}

    def visit(name: str, module: torch.nn.Module) -> torch.nn.Module:
        if module not in twins:
            reason = _reason_to_leave(module, name, filter_fn, lp_pool)
            is_swapped = reason == ""
            twins[module] = _twin(module, server) if is_swapped else module
            if reason is not None:
                note = _difference(module) if is_swapped else reason
                rows.append(Row(name, repr(module), is_swapped, note))
            for child_name, child in _children(module):
                full_name = f"{name}.{child_name}" if name else child_name
                module._modules[child_name] = visit(full_name, child)
        return twins[module]

    return visit("", model), Report(tuple(rows))  # type: ignore[return-value]


def _children(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, child in list(module._modules.items()):
        if child is not None:
            yield name, child


def _reason_to_leave(
    module: torch.nn.Module, name: str, filter_fn: Filter | None, lp_pool: bool
) -> str | None:
    """Return why a pooling module is left alone; empty to swap it; None for another module."""
    kind = type(module).__name__
    if isinstance(module, _bases.Pool):
        return "is a remote module already"
    if isinstance(module, torch.nn.FractionalMaxPool2d | torch.nn.FractionalMaxPool3d):
        return "has random windows, which no spec expresses"
    if not isinstance(module, tuple(_TWINS)):
        return None
    if type(module) not in _TWINS:
        return f"is a subclass, {kind}, which may override forward"
    if isinstance(module, _LP_POOLS) and not lp_pool:
        return f"would differ: {_difference(module)}; lp_pool=True swaps it"
    if filter_fn is not None and not filter_fn(module, name):
        return "filter_fn returned False"
    return ""


def _difference(module: torch.nn.Module) -> str:
    return _DIFFERENCES[type(module).__name__[:-2]]


def _twin(module: torch.nn.Module, server: str | None) -> torch.nn.Module:
    """Return the remote twin of a module, with its arguments, hooks and training flag."""
    type_ = _TWINS[type(module)]
    twin = type_.__new__(type_)
    twin.__dict__ = {**module.__dict__, "server": server}
    return twin
