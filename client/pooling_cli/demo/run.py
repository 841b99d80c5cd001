"""The demo: pools a photograph on a real server, then checks, times and draws every reply.

The photograph is the portrait of Grace Hopper that matplotlib ships as sample data: a photograph
of the US Navy, public domain (https://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import pooling_engine
from pooling_cli.demo.picture import Reply, draw
from pooling_cli.demo.server import address_in, running_server
from pooling_client import PoolingClient
from pooling_engine import InternalError, PoolSpec, UnsupportedError

Array = NDArray[Any]
T = TypeVar("T")

_CALLS = 9  # timed calls of each kind
_SPECS = {
    "max": PoolSpec("max", kernel=8, stride=3),
    "average": PoolSpec("average", kernel=8, stride=3),
    "min": PoolSpec("min", kernel=8, stride=3),
}


def run_demo(output: Path) -> str:
    """Pool a photograph on a temporary server, forward and backward, and draw the replies.

    Args:
        output: the picture to write, a PNG.

    Returns:
        The calls and their replies, one line each.

    Raises:
        InternalError: a reply differs from the local engine's result.
        UnavailableError: the server did not start.
        UnsupportedError: matplotlib is not installed.
    """
    photo = _read_photograph()
    with running_server() as banner, PoolingClient(address_in(banner)) as client:
        pooled = _forward(client, photo)
        contrast = pooled["max"].array - pooled["min"].array
        gradients = _backward(client, photo, contrast, pooled)
    draw(output, photo, pooled, contrast, gradients)
    return "\n".join(
        [
            f"server    {banner}",
            f"input     photograph, {photo.dtype} {photo.shape}; 8 x 8 windows, stride 3",
            *(_line("forward", mode, reply) for mode, reply in pooled.items()),
            *(_line("backward", mode, reply) for mode, reply in gradients.items()),
            f"picture   {output}",
        ]
    )


def _read_photograph() -> Array:
    """Return head and shoulders: float32, (1, 3, 480, 400), from 0 to 1."""
    try:
        from matplotlib import cbook, image
    except ImportError:
        raise UnsupportedError(
            "the demo requires matplotlib: pip install 'pooling-service[demo]'"
        ) from None
    pixels = image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    cropped = pixels[4:484, 60:460].transpose(2, 0, 1)[np.newaxis]
    return np.ascontiguousarray(cropped, np.float32) / 255


def _forward(client: PoolingClient, photo: Array) -> dict[str, Reply]:
    replies = {}
    for mode, spec in _SPECS.items():
        call = partial(client.forward, photo, spec, return_indices=mode != "average")
        remote, ms = _time(call)
        local = pooling_engine.forward(*call.args, **call.keywords, backend="numpy")
        _check(mode, remote.output, local.output)
        if remote.indices is not None and local.indices is not None:
            _check(f"{mode} indices", remote.indices, local.indices)
        replies[mode] = Reply(remote.output, ms, remote.indices)
    return replies


def _backward(
    client: PoolingClient, photo: Array, output_gradient: Array, pooled: dict[str, Reply]
) -> dict[str, Reply]:
    replies = {}
    for mode, spec in _SPECS.items():
        call = partial(
            client.backward,
            output_gradient,
            spec,
            input_shape=photo.shape,
            indices=pooled[mode].indices,
        )
        remote, ms = _time(call)
        _check(
            f"{mode} gradient",
            remote,
            pooling_engine.backward(*call.args, **call.keywords, backend="numpy"),
        )
        replies[mode] = Reply(remote, ms)
    return replies


def _time(call: Callable[[], T]) -> tuple[T, float]:
    """Return the result of the call and its median duration in milliseconds."""
    result = call()  # not timed: the first call connects and fills caches
    took = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return result, statistics.median(took) * 1e3


def _check(what: str, remote: Array, local: Array) -> None:
    """Compare bits, not values: 0.0 equals -0.0, and no NaN equals itself."""
    if not np.array_equal(remote.view(np.uint8), local.view(np.uint8)):
        raise InternalError(f"{what}: the server and the local engine differ")


def _line(call: str, mode: str, reply: Reply) -> str:
    shape, same = str(reply.array.shape), "bit-identical to the local engine"
    return f"{call:<8}  {mode:<7}  {shape:<16}  {reply.ms:5.1f} ms  {same}"
