"""Errors of arguments, with the argument names of another library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pooling_engine import InvalidSpecError, InvalidTensorError, PoolingError


@contextmanager
def renamed_errors(
    names: Mapping[str, str],
    spec_class: type[InvalidSpecError] = InvalidSpecError,
    tensor_class: type[InvalidTensorError] = InvalidTensorError,
) -> Iterator[None]:
    """Raise the errors of a call with the argument names and classes of another library.

    Args:
        names: names of arguments in that library, by the names in this project.
        spec_class: class for invalid options.
        tensor_class: class for invalid tensors.
    """
    try:
        yield
    except InvalidSpecError as error:
        raise _renamed(error, names, spec_class) from None
    except InvalidTensorError as error:
        raise _renamed(error, names, tensor_class) from None
    except PoolingError as error:
        raise error from None  # without the errors of earlier attempts


def _renamed(
    error: PoolingError, names: Mapping[str, str], class_: type[PoolingError]
) -> PoolingError:
    name = re.compile(rf"\b({'|'.join(names)})\b")

    def with_new_names(text: str) -> str:
        return name.sub(lambda match: names[match[0]], text)

    return class_(with_new_names(str(error)), field=with_new_names(error.field))
