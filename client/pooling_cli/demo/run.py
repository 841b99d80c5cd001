"""The demo: a photograph goes to a real server; every answer is checked, timed and drawn.

The photograph is the portrait of Grace Hopper that matplotlib ships as sample data: a photograph
of the US Navy, public domain (https://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg).
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import pooling_engine
from pooling_cli.demo.picture import Answer, draw
from pooling_client import PoolingClient
from pooling_engine import InternalError, PoolSpec, UnavailableError, UnsupportedError

Array = NDArray[Any]
T = TypeVar("T")

# NumPy gives the same bits as compiled kernels, and the first start need not compile any.
_OPTIONS = ("--listen", "127.0.0.1:0", "--backend", "numpy")
_SERVER = (sys.executable, "-m", "pooling_server", *_OPTIONS)
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 60.0  # longer than a server takes that waits for all that it may wait for
_CALLS = 9  # timed, of each kind
_SPECS = {
    "max": PoolSpec("max", kernel=8, stride=3),
    "mean": PoolSpec("average", kernel=8, stride=3),
    "min": PoolSpec("min", kernel=8, stride=3),
}


def run_demo(output: Path) -> str:
    """Pools a photograph on a server of its own, forward and backward, and draws what came back.

    Args:
        output: where to write the picture, a PNG.

    Returns:
        What was sent and what came back, to be printed.

    Raises:
        InternalError: an answer differs from what the engine computes in this process.
        UnavailableError: the server did not start.
        UnsupportedError: matplotlib is not installed.
    """
    photo = _read_photograph()
    with _running_server() as banner, PoolingClient(_address(banner)) as client:
        pooled = _ask_forward(client, photo)
        contrast = pooled["max"].array - pooled["min"].array
        gradients = _ask_backward(client, photo, contrast, pooled)
    draw(output, photo, pooled, contrast, gradients)
    return "\n".join(
        [
            f"server    {banner}",
            f"sent      a photograph, {photo.dtype} {photo.shape}; windows of 8 x 8, stride 3",
            *(_line("forward", mode, answer) for mode, answer in pooled.items()),
            *(_line("backward", mode, answer) for mode, answer in gradients.items()),
            f"picture   {output}",
        ]
    )


def _read_photograph() -> Array:
    """The head and shoulders: float32, (1, 3, 480, 400), from 0 to 1."""
    try:
        from matplotlib import cbook, image
    except ImportError:
        raise UnsupportedError(
            "the demo draws with matplotlib, which is not installed: "
            "pip install 'pooling-service[demo]'"
        ) from None
    pixels = image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    cropped = pixels[4:484, 60:460].transpose(2, 0, 1)[np.newaxis]
    return np.ascontiguousarray(cropped, np.float32) / 255


def _ask_forward(client: PoolingClient, photo: Array) -> dict[str, Answer]:
    answers = {}
    for mode, spec in _SPECS.items():
        ask = partial(client.forward, photo, spec, return_indices=mode != "mean")
        remote, ms = _time(ask)
        local = pooling_engine.forward(*ask.args, **ask.keywords, backend="numpy")
        _check(mode, remote.output, local.output)
        if remote.indices is not None and local.indices is not None:
            _check(f"{mode} indices", remote.indices, local.indices)
        answers[mode] = Answer(remote.output, ms, remote.indices)
    return answers


def _ask_backward(
    client: PoolingClient, photo: Array, output_gradient: Array, pooled: dict[str, Answer]
) -> dict[str, Answer]:
    answers = {}
    for mode, spec in _SPECS.items():
        ask = partial(
            client.backward,
            output_gradient,
            spec,
            input_shape=photo.shape,
            indices=pooled[mode].indices,
        )
        remote, ms = _time(ask)
        _check(
            f"{mode} gradient",
            remote,
            pooling_engine.backward(*ask.args, **ask.keywords, backend="numpy"),
        )
        answers[mode] = Answer(remote, ms)
    return answers


def _time(call: Callable[[], T]) -> tuple[T, float]:
    """What the call returns, and the median of its milliseconds."""
    result = call()  # not timed: the first connects, and finds everything cold
    took = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return result, statistics.median(took) * 1e3


def _check(what: str, remote: Array, local: Array) -> None:
    """Compares bits, not values: 0.0 equals -0.0, and no NaN equals itself."""
    if not np.array_equal(remote.view(np.uint8), local.view(np.uint8)):
        raise InternalError(f"{what}: the server and the local engine differ")


def _line(call: str, mode: str, answer: Answer) -> str:
    shape = str(answer.array.shape)
    return f"{call:<8}  {mode:<4}  {shape:<16}  {answer.ms:5.1f} ms  equal to the local engine"


@contextmanager
def _running_server() -> Iterator[str]:
    """Runs a server process; gives its banner, and stops it in the end."""
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(_SERVER, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield _banner(process, log)
        finally:
            _stop(process)


def _banner(process: subprocess.Popen[str], log: IO[str]) -> str:
    assert process.stdout is not None
    guard = threading.Timer(_START_TIMEOUT_S, process.kill)  # ends the wait for a line
    guard.start()
    try:
        banner = process.stdout.readline().strip()
    finally:
        guard.cancel()
    if banner:
        return banner
    log.seek(0)
    said = log.read().strip().splitlines() or [f"nothing heard in {_START_TIMEOUT_S:g} s"]
    raise UnavailableError(f"the demo's server did not start: {said[-1]}")


def _address(banner: str) -> str:
    found = re.search(r"listening on (\S+:\d+)", banner)
    if found is None:
        raise UnavailableError(f"the demo's server says {banner!r}, and not where it listens")
    return found[1]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
