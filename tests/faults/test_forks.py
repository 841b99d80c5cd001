"""Clients in forked processes: new connections, and no memory in common with the parent."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
import pickle
import select
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from pooling_client import AsyncPoolingClient, ForwardCall, PoolingClient, PoolSpec
from tests.support.processes import process
from tests.support.waiting import LIMIT_S

SPEC = PoolSpec("max", 2)
SMALL = np.ones((1, 1, 8, 8), np.float32)
LARGE = np.ones((1, 8, 256, 256), np.float32)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    path = tmp_path_factory.mktemp("server") / "socket"
    flags = ("--backend", "numpy", "--no-warm-up", "--listen", "127.0.0.1:0")
    with process(*flags, "--listen", f"unix:{path}") as (_, banner):
        addresses = banner.partition("listening on ")[2].partition(", computing")[0]
        yield dict(zip(("tcp", "unix"), addresses.split(" and "), strict=True))


def in_fork(call: Callable[[], object]) -> str:
    """Return the result or the error of a call in a forked process."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a process with threads forks
        child = os.fork()
    if child == 0:
        try:
            text = repr(call())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(sender, text.encode())
        os._exit(0)
    os.close(sender)
    is_ready, _, _ = select.select([receiver], [], [], LIMIT_S)
    text = os.read(receiver, 10_000).decode() if is_ready else "no answer"
    os.close(receiver)
    if not is_ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return text


CALLS: dict[str, Callable[[PoolingClient], Any]] = {
    "small": lambda client: [client.forward(SMALL, SPEC).output.mean() for _ in range(5)][-1],
    "large": lambda client: client.forward(LARGE, SPEC).output.mean(),
    "many": lambda client: len(list(client.forward_many([ForwardCall(SMALL, SPEC)] * 3))),
}


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("name", CALLS)
def test_an_inherited_client_works(name: str, kind: str, targets: dict[str, str]) -> None:
    with PoolingClient(targets[kind], connections=2) as client:
        expected = repr(CALLS[name](client))
        assert in_fork(lambda: CALLS[name](client)) == expected
        assert repr(CALLS[name](client)) == expected


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_stream_of_the_parent_is_rejected_in_the_child(
    kind: str, targets: dict[str, str]
) -> None:
    with PoolingClient(targets[kind]) as client:
        stream = client.forward_many(ForwardCall(SMALL, SPEC) for _ in itertools.count())
        for _ in range(3):
            next(stream)
            text = in_fork(lambda: next(stream))
            assert text.startswith("UnsupportedError: this stream was opened before the process")
            assert in_fork(stream.close) == "None"
            assert next(stream).output.mean() == 1
        stream.close()


def test_an_inherited_client_stays_closed(targets: dict[str, str]) -> None:
    client = PoolingClient(targets["tcp"])
    client.info()
    client.close()
    assert in_fork(client.info) == "ClosedError: the client is closed"


def test_new_arrays_of_parent_and_child_are_different_memory(targets: dict[str, str]) -> None:
    with PoolingClient(targets["unix"]) as client:
        freed = client.empty(LARGE.shape)
        assert freed.base is not None
        freed[...] = 0
        del freed  # its region is free in the books of both processes

        def write_seven() -> float:
            mine = client.empty(LARGE.shape)
            mine[...] = 7
            return float(client.forward(mine, SPEC).output.mean())

        array = client.empty(LARGE.shape)
        array[...] = 1
        assert in_fork(write_seven) == "7.0"
        assert (array == 1).all()
        assert client.forward(array, SPEC).output.mean() == 1


def test_arrays_from_before_a_fork_are_private_copies(targets: dict[str, str]) -> None:
    with PoolingClient(targets["unix"]) as client:
        result = client.forward(LARGE, SPEC).output
        result[...] = 5
        view = result[:, :4]

        def overwrite() -> tuple[float, float]:
            before = float(result.mean())
            view[...] = -1
            return before, float(result.mean())

        assert in_fork(overwrite) == "(5.0, 2.0)"
        assert (result == 5).all()


def test_a_child_sees_the_content_of_the_moment_of_the_fork(targets: dict[str, str]) -> None:
    """The parent writes at once after the fork; the child reads later."""
    with PoolingClient(targets["unix"]) as client:
        array = client.empty((8 << 20,), np.uint8)
        array[...] = 5
        start, go = os.pipe()
        receiver, sender = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.read(start, 1)
            os.write(sender, bytes([int(array.min()), int(array.max())]))
            os._exit(0)
        array[...] = 6
        os.write(go, b"x")
        assert os.read(receiver, 2) == bytes([5, 5])
        os.waitpid(child, 0)
        for end in (start, go, receiver, sender):
            os.close(end)
        assert (array == 6).all()


def test_an_asyncio_client_refuses_a_forked_process(targets: dict[str, str]) -> None:
    """Calls would wait without end there: gRPC's threads do not survive a fork."""
    client = AsyncPoolingClient(targets["tcp"])

    async def call() -> float:
        return float((await client.forward(SMALL, SPEC)).output.mean())

    assert asyncio.run(call()) == 1
    text = in_fork(lambda: asyncio.run(call()))
    assert text.startswith("UnsupportedError: AsyncPoolingClient cannot be used in a process")
    assert "spawn" in text
    assert asyncio.run(call()) == 1


@pytest.mark.parametrize("class_", [PoolingClient, AsyncPoolingClient])
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda client: pickle.loads(pickle.dumps(client))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_client_is_copied_as_its_arguments(
    class_: Any, copied: Callable[[Any], Any], targets: dict[str, str]
) -> None:
    arguments = {"timeout": 7.0, "connections": 2, "metadata": {"a": "b"}, "wait_for_ready": False}
    again = copied(class_(targets["tcp"], **arguments))
    assert type(again) is class_
    assert again.__reduce__()[1][1].items() >= arguments.items()

    async def info() -> str:
        return str((await again.info()).version)

    assert again.info().version if class_ is PoolingClient else asyncio.run(info())


def test_credentials_are_copied_but_not_pickled() -> None:
    client = PoolingClient("127.0.0.1:1", credentials=grpc.ssl_channel_credentials())
    copy.deepcopy(client).close()
    with pytest.raises(TypeError, match="a PoolingClient with credentials cannot be pickled"):
        pickle.dumps(client)


def test_forks_leave_no_descriptor(targets: dict[str, str]) -> None:
    with PoolingClient(targets["unix"]) as client:
        result = client.forward(LARGE, SPEC).output
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            assert in_fork(lambda: float(result.mean())) == "1.0"
        assert len(list(Path("/proc/self/fd").iterdir())) == before
