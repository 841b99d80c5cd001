"""Checks of settings that need no server."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pooling_client import PoolingClient
from pooling_engine import InvalidSpecError
from pooling_loadtest.errors import MisuseError
from pooling_loadtest.settings import LoadTest

_MAX_PROCESSES = 64


def check_settings(test: LoadTest) -> None:
    """Check what needs no server.

    Raises:
        MisuseError: settings are invalid, or do not fit one another.
    """
    _check_targets(test)
    _check_model(test)
    _check_kinds(test)
    for name, value in _counts(test):
        if value < 1:
            raise MisuseError(f"{name} is {value}; it must be at least 1")
    for name, value_s in (("timeout", test.timeout_s), ("give-up", test.give_up_s)):
        if not 0 < value_s < math.inf:
            raise MisuseError(f"{name} is {value_s:g}; it must be a number of seconds above 0")
    if test.processes > _MAX_PROCESSES:
        raise MisuseError(f"processes is {test.processes}; it must be at most {_MAX_PROCESSES}")
    if test.seed < 0:
        raise MisuseError(f"seed is {test.seed}; it must be at least 0")
    if not 0 <= test.verify <= 1:
        raise MisuseError(f"verify is {test.verify:g}; it must be a fraction from 0 to 1")
    if test.callers is not None and test.callers < test.processes:
        text = f"callers is {test.callers}; it must be at least processes, {test.processes}"
        raise MisuseError(text)


def _check_targets(test: LoadTest) -> None:
    if not test.targets:
        raise MisuseError("no target is given")
    if test.protocol == "oip-rest":
        if test.security.tls is not None:
            raise MisuseError("protocol oip-rest has no TLS")
        return
    for target in test.targets:
        try:
            PoolingClient(target).close()
        except InvalidSpecError as error:
            raise MisuseError(str(error)) from None


def _check_model(test: LoadTest) -> None:
    given = {"model": test.model, "input": test.input, "parameter": test.parameters}
    for name, value in given.items():
        if value and test.protocol == "grpc":
            raise MisuseError(f"{name} is for the protocols oip-grpc and oip-rest")
        if value and not test.model:
            raise MisuseError(f"{name} is for a model named by --model")


def _check_kinds(test: LoadTest) -> None:
    has_memory = all(target.startswith("unix:") for target in test.targets)
    for kind in test.kinds:
        if test.protocol != "grpc" and kind.transport != "unary":
            raise MisuseError(f"kind {kind.name!r}: protocol {test.protocol} has unary calls only")
        if test.model and (kind.direction != "forward" or kind.return_indices):
            raise MisuseError(
                f"kind {kind.name!r}: a model named by --model has one input and one output; "
                "it must be a forward call without indices"
            )
        if kind.transport == "shared_memory" and not has_memory:
            raise MisuseError(
                f"kind {kind.name!r}: target is {test.targets[0]!r}; shared memory needs unix:/PATH"
            )


def _counts(test: LoadTest) -> Sequence[tuple[str, int]]:
    return (
        ("processes", test.processes),
        ("connections", test.connections),
        ("max-in-flight", test.max_in_flight),
        ("callers", 1 if test.callers is None else test.callers),
    )
