"""Pooling modules with the arguments and attributes of those of `torch.nn`, computed on a server.

Two arguments are added, by keyword: `server`, the target of the server as in `functional`, and for
max and min `tie_policy` and `nan_policy`. A module holds the target, not a connection, so it can be
copied, pickled and sent to another process.
"""

from __future__ import annotations

from pooling_client.torch import _bases


class MaxPool1d(_bases.SelectingPool):
    """Max pooling along one axis."""

    function = "max_pool1d"


class MaxPool2d(_bases.SelectingPool):
    """Max pooling along two axes."""

    function = "max_pool2d"


class MaxPool3d(_bases.SelectingPool):
    """Max pooling along three axes."""

    function = "max_pool3d"


class MinPool1d(_bases.SelectingPool):
    """Min pooling along one axis."""

    function = "min_pool1d"


class MinPool2d(_bases.SelectingPool):
    """Min pooling along two axes."""

    function = "min_pool2d"


class MinPool3d(_bases.SelectingPool):
    """Min pooling along three axes."""

    function = "min_pool3d"


class AvgPool1d(_bases.AvgPool):
    """Average pooling along one axis."""

    function = "avg_pool1d"


class AvgPool2d(_bases.AvgPool):
    """Average pooling along two axes."""

    function = "avg_pool2d"


class AvgPool3d(_bases.AvgPool):
    """Average pooling along three axes."""

    function = "avg_pool3d"


class SumPool1d(_bases.SumPool):
    """Sum pooling along one axis."""

    function = "sum_pool1d"


class SumPool2d(_bases.SumPool):
    """Sum pooling along two axes."""

    function = "sum_pool2d"


class SumPool3d(_bases.SumPool):
    """Sum pooling along three axes."""

    function = "sum_pool3d"


class LPPool1d(_bases.LPPool):
    """Norm pooling along one axis."""

    function = "lp_pool1d"


class LPPool2d(_bases.LPPool):
    """Norm pooling along two axes."""

    function = "lp_pool2d"


class LPPool3d(_bases.LPPool):
    """Norm pooling along three axes."""

    function = "lp_pool3d"


class AdaptiveAvgPool1d(_bases.AdaptiveAvgPool):
    """Adaptive average pooling along one axis."""

    function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_bases.AdaptiveAvgPool):
    """Adaptive average pooling along two axes."""

    function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_bases.AdaptiveAvgPool):
    """Adaptive average pooling along three axes."""

    function = "adaptive_avg_pool3d"


class AdaptiveMaxPool1d(_bases.AdaptiveMaxPool):
    """Adaptive max pooling along one axis."""

    function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_bases.AdaptiveMaxPool):
    """Adaptive max pooling along two axes."""

    function = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_bases.AdaptiveMaxPool):
    """Adaptive max pooling along three axes."""

    function = "adaptive_max_pool3d"


class MaxUnpool1d(_bases.MaxUnpool):
    """Inverse of max pooling along one axis."""

    function = "max_unpool1d"


class MaxUnpool2d(_bases.MaxUnpool):
    """Inverse of max pooling along two axes."""

    function = "max_unpool2d"


class MaxUnpool3d(_bases.MaxUnpool):
    """Inverse of max pooling along three axes."""

    function = "max_unpool3d"
