"""Base classes of the modules: arguments, attributes and the call, for any number of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pooling_client.torch import functional
from pooling_client.torch._arguments import Padding, Sizes


class Pool(torch.nn.Module):
    """Base class of all modules.

    Attributes:
        function: name of the function in `functional`.
        server: target of the server, or None for the default.
    """

    function: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    server: str | None
    tie_policy: str = "first"
    nan_policy: str = "propagate"

    def extra_repr(self) -> str:
        """Return the arguments for the representation of the module."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in (*self.shown, "server"))

    def _call(self, *tensors: Tensor, **arguments: Any) -> Any:
        function = getattr(functional, self.function)
        return function(*tensors, **arguments, server=self.server)


class SelectingPool(Pool):
    """Max or min pooling."""

    shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Padding = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        server: str | None = None,
        tie_policy: str = "first",
        nan_policy: str = "propagate",
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode
        self.server = server
        self.tie_policy = tie_policy
        self.nan_policy = nan_policy

    def forward(self, input: Tensor) -> Any:  # noqa: A002  PyTorch's name, here and below
        """Return the output, or a pair of it and int64 indices if `return_indices`."""
        return self._call(
            input,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
            tie_policy=self.tie_policy,
            nan_policy=self.nan_policy,
        )


class AvgPool(Pool):
    """Average pooling."""

    shown = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
    divisor_override: float | None = None  # torch.nn.AvgPool1d has no such attribute

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: float | None = None,
        *,
        server: str | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override
        self.server = server

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the averages."""
        output: Tensor = self._call(
            input,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
            divisor_override=self.divisor_override,
        )
        return output


class SumPool(Pool):
    """Sum pooling."""

    shown = ("kernel_size", "stride", "padding", "ceil_mode")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        *,
        server: str | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.server = server

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the sums."""
        output: Tensor = self._call(
            input,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
        )
        return output


class LPPool(Pool):
    """Norm pooling."""

    shown = ("norm_type", "kernel_size", "stride", "ceil_mode")

    def __init__(
        self,
        norm_type: float,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        ceil_mode: bool = False,
        *,
        server: str | None = None,
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode
        self.server = server

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the norms of absolute values; `torch.nn` sums signed powers."""
        output: Tensor = self._call(
            input,
            norm_type=self.norm_type,
            kernel_size=self.kernel_size,
            stride=self.stride,
            ceil_mode=self.ceil_mode,
        )
        return output


class AdaptiveAvgPool(Pool):
    """Adaptive average pooling."""

    shown = ("output_size",)

    def __init__(
        self, output_size: int | Sequence[int | None] | None, *, server: str | None = None
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.server = server

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the averages."""
        output: Tensor = self._call(input, output_size=self.output_size)
        return output


class AdaptiveMaxPool(Pool):
    """Adaptive max pooling."""

    shown = ("output_size",)

    def __init__(
        self,
        output_size: int | Sequence[int | None] | None,
        return_indices: bool = False,
        *,
        server: str | None = None,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices
        self.server = server

    def forward(self, input: Tensor) -> Any:  # noqa: A002
        """Return the output, or a pair of it and int64 indices if `return_indices`."""
        return self._call(input, output_size=self.output_size, return_indices=self.return_indices)


class MaxUnpool(Pool):
    """Inverse of max pooling."""

    shown = ("kernel_size", "stride", "padding")

    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        *,
        server: str | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.server = server

    def forward(
        self,
        input: Tensor,  # noqa: A002
        indices: Tensor,
        output_size: Sequence[int] | None = None,
    ) -> Tensor:
        """Return zeros with the values of `input` at `indices`; equal indices add up."""
        output: Tensor = self._call(
            input,
            indices,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            output_size=output_size,
        )
        return output
