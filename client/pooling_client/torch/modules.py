"""Pooling modules with the arguments and attributes of those of `torch.nn`, computed on a server.

Two arguments are added, by keyword: `server`, the target of the server as in `functional`, and for
max and min `tie_policy` and `nan_policy`. A module holds the target, not a connection, so it can be
copied, pickled and sent to another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pooling_client.torch import functional
from pooling_client.torch._arguments import Padding, Sizes


class _Pool(torch.nn.Module):
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


class _SelectingPool(_Pool):
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


class _AvgPool(_Pool):
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


class _SumPool(_Pool):
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


class _LPPool(_Pool):
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


class _AdaptiveAvgPool(_Pool):
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


class _AdaptiveMaxPool(_Pool):
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


class _MaxUnpool(_Pool):
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


class MaxPool1d(_SelectingPool):
    """Max pooling along one axis."""

    function = "max_pool1d"


class MaxPool2d(_SelectingPool):
    """Max pooling along two axes."""

    function = "max_pool2d"


class MaxPool3d(_SelectingPool):
    """Max pooling along three axes."""

    function = "max_pool3d"


class MinPool1d(_SelectingPool):
    """Min pooling along one axis."""

    function = "min_pool1d"


class MinPool2d(_SelectingPool):
    """Min pooling along two axes."""

    function = "min_pool2d"


class MinPool3d(_SelectingPool):
    """Min pooling along three axes."""

    function = "min_pool3d"


class AvgPool1d(_AvgPool):
    """Average pooling along one axis."""

    function = "avg_pool1d"


class AvgPool2d(_AvgPool):
    """Average pooling along two axes."""

    function = "avg_pool2d"


class AvgPool3d(_AvgPool):
    """Average pooling along three axes."""

    function = "avg_pool3d"


class SumPool1d(_SumPool):
    """Sum pooling along one axis."""

    function = "sum_pool1d"


class SumPool2d(_SumPool):
    """Sum pooling along two axes."""

    function = "sum_pool2d"


class SumPool3d(_SumPool):
    """Sum pooling along three axes."""

    function = "sum_pool3d"


class LPPool1d(_LPPool):
    """Norm pooling along one axis."""

    function = "lp_pool1d"


class LPPool2d(_LPPool):
    """Norm pooling along two axes."""

    function = "lp_pool2d"


class LPPool3d(_LPPool):
    """Norm pooling along three axes."""

    function = "lp_pool3d"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Adaptive average pooling along one axis."""

    function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Adaptive average pooling along two axes."""

    function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Adaptive average pooling along three axes."""

    function = "adaptive_avg_pool3d"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Adaptive max pooling along one axis."""

    function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Adaptive max pooling along two axes."""

    function = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Adaptive max pooling along three axes."""

    function = "adaptive_max_pool3d"


class MaxUnpool1d(_MaxUnpool):
    """Inverse of max pooling along one axis."""

    function = "max_unpool1d"


class MaxUnpool2d(_MaxUnpool):
    """Inverse of max pooling along two axes."""

    function = "max_unpool2d"


class MaxUnpool3d(_MaxUnpool):
    """Inverse of max pooling along three axes."""

    function = "max_unpool3d"
