"""Pooling layers of PyTorch that compute on a pooling server, gradients included.

from pooling_client.torch import MaxPool2d, remote, replace

pool = MaxPool2d(3, stride=2, padding=1, server="127.0.0.1:50051")  # as torch.nn.MaxPool2d
model, report = replace(model, "127.0.0.1:50051")  # swaps the pooling modules of a model
with remote("127.0.0.1:50051"):  # redirects the pooling calls inside forward
    output = model(images)

Needs the extra ``torch``.
"""

from pooling_client._training.clients import connect
from pooling_client.torch import functional
from pooling_client.torch._errors import InvalidInputError, InvalidOptionError
from pooling_client.torch._pool_all import PoolAll
from pooling_client.torch._remote import remote
from pooling_client.torch._replace import Report, Row, replace
from pooling_client.torch._start import start
from pooling_client.torch.modules import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
    MinPool1d,
    MinPool2d,
    MinPool3d,
    SumPool1d,
    SumPool2d,
    SumPool3d,
)

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "InvalidInputError",
    "InvalidOptionError",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "MinPool1d",
    "MinPool2d",
    "MinPool3d",
    "PoolAll",
    "Report",
    "Row",
    "SumPool1d",
    "SumPool2d",
    "SumPool3d",
    "connect",
    "functional",
    "remote",
    "replace",
    "start",
]
