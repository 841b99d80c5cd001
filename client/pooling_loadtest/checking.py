"""Checks of settings that need no server."""

from __future__ import annotations

from collections.abc import Sequence

from pooling_loadtest.errors import MisuseError
from pooling_loadtest.settings import LoadTest


def check_settings(test: LoadTest) -> None:
    """Check what needs no server.

    Raises:
        MisuseError: settings do not fit one another.
    """
    if not test.targets:
        raise MisuseError("no target is given")
    if test.protocol == "oip-rest" and test.security.tls is not None:
        raise MisuseError("protocol oip-rest has no TLS")
    if test.protocol != "grpc":
        for kind in test.kinds:
            if kind.transport != "unary":
                raise MisuseError(
                    f"kind {kind.name!r}: protocol {test.protocol} has unary calls only"
                )
            if test.model and (kind.direction != "forward" or kind.return_indices):
                raise MisuseError(
                    f"kind {kind.name!r}: a model named by --model has one input and one output; "
                    "it must be a forward call without indices"
                )
    elif test.model:
        raise MisuseError("model is for the protocols oip-grpc and oip-rest")
    has_memory = all(target.startswith("unix:") for target in test.targets)
    for kind in test.kinds:
        if kind.transport == "shared_memory" and not has_memory:
            raise MisuseError(
                f"kind {kind.name!r}: target is {test.targets[0]!r}; shared memory needs unix:/PATH"
            )
    for name, value in _counts(test):
        if value < 1:
            raise MisuseError(f"{name} is {value}; it must be at least 1")
    if not 0 <= test.verify <= 1:
        raise MisuseError(f"verify is {test.verify:g}; it must be a fraction from 0 to 1")
    if test.callers is not None and test.callers < test.processes:
        text = f"callers is {test.callers}; it must be at least processes, {test.processes}"
        raise MisuseError(text)


def _counts(test: LoadTest) -> Sequence[tuple[str, int]]:
    return (
        ("processes", test.processes),
        ("connections", test.connections),
        ("max-in-flight", test.max_in_flight),
        ("callers", 1 if test.callers is None else test.callers),
    )
