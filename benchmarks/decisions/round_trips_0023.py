"""Measure requests that carry several layers, rows of a Jacobian, and calls that overlap.

    python -m benchmarks.decisions.round_trips_0023

Writes results/round-trips.json and prints the table. Takes half a minute.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import pooling_client.torch as remote
import pooling_engine
from benchmarks import report
from pooling_cli.demo.server import running_server
from pooling_client import BackwardCall, ForwardCall, PoolingClient, PoolSpec
from pooling_engine import ForwardAllCall
from pooling_wire import BACKWARD, FORWARD

Calls = dict[str, Callable[[], Any]]
ROUNDS = 9
SPP_SHAPE, KERNELS = (8, 256, 20, 20), (5, 9, 13)
SPP = [PoolSpec("max", kernel, 1, kernel // 2) for kernel in KERNELS]
ROW_SHAPE, ROW_SPEC, ROWS = (1, 64, 56, 56), PoolSpec("max", 3, 2, 1), 16
SMALL_SHAPE, SMALL_CALLS = (64, 8, 8, 8), 4
DELAY_S = 0.002  # of the relay, in each direction


def timed(calls: Calls, first: str, second: str) -> dict[str, Any]:
    """Time calls in turns; add the ratio of the first to the second within each round."""
    for call in calls.values():
        call()
    taken = report.interleaved(list(calls), ROUNDS, lambda name: report.samples(calls[name], 1)[0])
    ratios = [a / b for a, b in zip(taken[first], taken[second], strict=True)]
    return {
        "ms": {name: report.spread(values) for name, values in taken.items()},
        "ratio": report.spread(ratios),
    }


def spp_bytes(x: Any) -> dict[str, dict[str, int]]:
    """Return the bytes of the messages of the SPP block with one request and with three."""
    calls = tuple(ForwardCall(x, spec, True) for spec in SPP)
    results = [pooling_engine.run(call) for call in calls]
    one = FORWARD.encode_request(ForwardAllCall(calls)), FORWARD.encode_response(tuple(results))
    sent = sum(len(FORWARD.encode_request(call)) for call in calls)
    received = sum(len(FORWARD.encode_response(result)) for result in results)
    return {
        "one request": {"sent": len(one[0]), "received": len(one[1])},
        "three requests": {"sent": sent, "received": received},
    }


def spp(client: PoolingClient, x: Any) -> dict[str, Any]:
    """Compare one request with three, forward with indices."""
    calls: Calls = {
        "one request": lambda: client.forward_all(x, SPP, return_indices=True),
        "three requests": lambda: [client.forward(x, s, return_indices=True) for s in SPP],
    }
    return timed(calls, "one request", "three requests")


def spp_step(server: str, x: Any) -> dict[str, Any]:
    """Compare a training step of the block: forward and backward."""
    tensor = torch.from_numpy(x).requires_grad_()
    layers = [nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in KERNELS]
    together = remote.PoolAll(layers, server=server)
    apart = remote.replace(nn.ModuleList(layers), server)[0]
    dy = [torch.randn(SPP_SHAPE) for _ in layers]
    calls: Calls = {
        "one request": lambda: torch.autograd.grad(together(tensor), tensor, dy),
        "three requests": lambda: torch.autograd.grad([m(tensor) for m in apart], tensor, dy),
    }
    return timed(calls, "one request", "three requests")


def rows(client: PoolingClient) -> dict[str, Any]:
    """Compare rows of a Jacobian: a call for each, and one call with the rows as batch."""
    x = np.random.default_rng(0).standard_normal(ROW_SHAPE, dtype=np.float32)
    result = pooling_engine.forward(x, ROW_SPEC, return_indices=True)
    indices, shape = result.indices, (ROWS, *ROW_SHAPE[1:])
    dy = np.random.default_rng(1).standard_normal(
        (ROWS, *result.output.shape[1:]), dtype=np.float32
    )
    backward = partial(client.backward, spec=ROW_SPEC)

    def batch() -> Any:
        repeated = np.repeat(indices, ROWS, 0)
        return backward(dy, input_shape=shape, indices=repeated)

    calls: Calls = {
        "one call": batch,
        "a call for each row": lambda: [
            backward(dy[at : at + 1], input_shape=ROW_SHAPE, indices=indices) for at in range(ROWS)
        ],
    }
    whole = BackwardCall(dy, ROW_SPEC, shape, np.repeat(indices, ROWS, 0))
    sent, received = len(BACKWARD.encode_request(whole)), 4 * int(np.prod(shape))
    saved = (ROWS - 1) * indices.nbytes
    return timed(calls, "one call", "a call for each row") | {
        "bytes": {"sent": sent, "received": received, "of repeated indices": saved}
    }


def overlap(server: str) -> dict[str, Any]:
    """Compare four independent small calls, started together and one after the other."""
    layers = [remote.MaxPool2d(3, 2, 1, server=server) for _ in range(SMALL_CALLS)]
    x = torch.randn(SMALL_SHAPE)

    def started() -> None:
        for future in [remote.start(layer, x) for layer in layers]:
            future.result()

    return timed(
        {"started": started, "in turn": lambda: [layer(x) for layer in layers]},
        "started",
        "in turn",
    )


@contextmanager
def delayed(address: str) -> Iterator[str]:
    """Yield the address of a relay to a server that delays the bytes in both directions."""
    host, port = address.rsplit(":", 1)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                asyncio.get_running_loop().call_later(DELAY_S, writer.write, data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(host, port)
        await asyncio.gather(copy(reader, downstream), copy(upstream, writer))

    def stop() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_later(0.1, loop.stop)

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(relay, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(stop)
    thread.join()


def measure() -> dict[str, Any]:
    """Return all rows."""
    x = np.random.default_rng(0).standard_normal(SPP_SHAPE, dtype=np.float32)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pooling-"))
        unix = f"unix:{folder}/s"
        command = (sys.executable, "-m", "pooling_server", "--listen", f"127.0.0.1:0,{unix}")
        banner = stack.enter_context(running_server(command))
        tcp = re.split("[ ,]", banner.partition("listening on ")[2])[0]
        clients = {
            "TCP": stack.enter_context(PoolingClient(tcp)),
            "Unix socket": stack.enter_context(PoolingClient(unix)),
        }
        pooling_engine.warm_up()
        return {
            "SPP block, bytes": spp_bytes(x),
            **{f"SPP block forward, {name}": spp(client, x) for name, client in clients.items()},
            "SPP block step, TCP": spp_step(tcp, x),
            "rows of a Jacobian, TCP": rows(clients["TCP"]),
            "four small calls, TCP": overlap(tcp),
            "four small calls, 4 ms round trip": overlap(stack.enter_context(delayed(tcp))),
        }


def markdown(rows: dict[str, Any]) -> str:
    """Return the table of the results."""
    lines = []
    for name, row in rows.items():
        if "ms" in row:
            (first, ms), (second, other) = row["ms"].items()
            cells = [f"{first}: {report.cell(ms)}", f"{second}: {report.cell(other)}"]
            lines.append([name, *cells, report.cell(row["ratio"])])
    return report.table(["ms", "new", "before", "ratio"], lines, "---")


if __name__ == "__main__":
    results = measure()
    report.write("round-trips", "python -m benchmarks.decisions.round_trips_0023", results)
    print(markdown(results))
