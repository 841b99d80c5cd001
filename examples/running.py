"""Command lines of the examples: errors in one line, and numbers above 0."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from pooling_client import PoolingError


@contextmanager
def errors_in_one_line(*classes: type[Exception]) -> Iterator[None]:
    """End the program with one line if the server or a file cannot be used.

    Args:
        classes: further classes of errors, whose last line says why.
    """
    try:
        yield
    except (PoolingError, OSError, *classes) as error:
        raise SystemExit(f"error: {str(error).splitlines()[-1]}") from None


def above_zero(text: str) -> int:
    """Return an integer of at least 1 from the command line.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer above 0")
    return int(text)
