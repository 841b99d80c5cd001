"""Errors of arguments: the classes and argument names of `torch.nn.functional`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pooling_client._training.errors import renamed_errors
from pooling_engine import InvalidSpecError, InvalidTensorError

_NAMES = {
    "kernel": "kernel_size",
    "norm_p": "norm_type",
    "adaptive_output": "output_size",
    "specs": "layers",
}


class InvalidOptionError(InvalidSpecError, RuntimeError):
    """Options that are invalid or do not fit the tensor; PyTorch raises RuntimeError for them."""


class InvalidInputError(InvalidTensorError, RuntimeError):
    """Tensor with an invalid shape, element type or entry; PyTorch raises RuntimeError for it."""


def torch_errors() -> AbstractContextManager[None]:
    """Raise the errors of a call with the classes and argument names of PyTorch."""
    return renamed_errors(_NAMES, InvalidOptionError, InvalidInputError)
