"""Errors of arguments: the classes and argument names of `torch.nn.functional`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pooling_engine import InvalidSpecError, InvalidTensorError, PoolingError

_NAMES = {"kernel": "kernel_size", "norm_p": "norm_type", "adaptive_output": "output_size"}
_NAME = re.compile(rf"\b({'|'.join(_NAMES)})\b")


class InvalidOptionError(InvalidSpecError, RuntimeError):
    """Options that are invalid or do not fit the tensor; PyTorch raises RuntimeError for them."""


class InvalidInputError(InvalidTensorError, RuntimeError):
    """Tensor with an invalid shape, element type or entry; PyTorch raises RuntimeError for it."""


@contextmanager
def torch_errors() -> Iterator[None]:
    """Raise the errors of a call with the classes and argument names of PyTorch."""
    try:
        yield
    except InvalidSpecError as error:
        raise _renamed(error, InvalidOptionError) from None
    except InvalidTensorError as error:
        raise _renamed(error, InvalidInputError) from None
    except PoolingError as error:
        raise error from None  # without the errors of earlier attempts


def _renamed(error: PoolingError, class_: type[PoolingError]) -> PoolingError:
    def with_torch_names(text: str) -> str:
        return _NAME.sub(lambda match: _NAMES[match[0]], text)

    return class_(with_torch_names(str(error)), field=with_torch_names(error.field))
