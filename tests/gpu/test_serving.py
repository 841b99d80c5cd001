"""Real servers and calls on the fake CuPy: a full GPU, a lost GPU, one worker per GPU."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pooling_client import ForwardCall, PoolingClient
from pooling_engine import DeviceMemoryError, UnavailableError, forward
from pooling_engine.backends.cupy_backend.backend import PROBE_BYTES
from pooling_engine.backends.cupy_backend.device import faults
from pooling_server import PoolingServer, ServerConfig
from pooling_wire import FORWARD, SERVICE_NAME, decode_error
from tests.gpu.servers import (
    SPEC,
    address_of,
    assert_answers,
    devices_at,
    server_process,
    wait_for_devices,
)
from tests.gpu.support import Array
from tests.support import cases, oracle
from tests.support.waiting import LIMIT_S

MIB = 1 << 20
Serve = Callable[..., PoolingServer]


@pytest.fixture
def serve(fault: Path, every_kernel: None) -> Iterator[Serve]:
    """Start servers with the given options; stop them after the test."""
    servers: list[PoolingServer] = []

    def start(**options: Any) -> PoolingServer:
        config = ServerConfig(listen="127.0.0.1:0", backend="cupy", **{"warm_up": False, **options})
        servers.append(PoolingServer(config))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def forward_in_one_message(client: PoolingClient, x: Array) -> Array:
    """Return the output of a call that is not cut into chunks."""
    (result,) = client.forward_many([ForwardCall(x, SPEC)])
    return result.output


def test_a_call_that_exceeds_the_memory_limit_is_rejected(serve: Serve, cuda: ModuleType) -> None:
    server = serve(device_memory_bytes=64 * MIB)
    assert cuda.MEMORY.get_limit() == 64 * MIB
    with PoolingClient(server.address) as client:
        assert_answers(client)
        cuda.MEMORY.set_limit(20 * MIB + PROBE_BYTES)
        fits = np.zeros((1, 1, 2048, 2048), np.float32)  # 16 MiB, and 4 MiB of output
        forward_in_one_message(client, fits)
        exceeds = np.zeros((1, 1, 2048, 2052), np.float32)
        for _ in range(2):
            with pytest.raises(DeviceMemoryError, match="the device is out of memory"):
                forward_in_one_message(client, exceeds)
            assert_answers(client)
        forward_in_one_message(client, fits)


def test_a_gpu_whose_memory_another_program_uses(serve: Serve, fault: Path) -> None:
    server = serve()
    x = np.zeros((1, 1, 4096, 1024), np.float32)
    with PoolingClient(server.address) as client:
        fault.write_text("memory")
        with pytest.raises(DeviceMemoryError, match="the device is out of memory"):
            forward_in_one_message(client, x)
        fault.unlink()
        forward_in_one_message(client, x)
        assert_answers(client)


@pytest.mark.parametrize("nbytes", [1, 64 * MIB - 1, -1])
def test_a_memory_limit_below_any_call_is_rejected(nbytes: int) -> None:
    with pytest.raises(ValueError, match=f"device_memory_bytes is {nbytes}; it must be "):
        ServerConfig(device_memory_bytes=nbytes)


def forward_without_retries(channel: grpc.Channel, method: str) -> Any:
    """Make a call without a client, because a client would retry it."""
    call, method = ForwardCall(cases.normal((2, 3, 8, 8)), SPEC), f"/{SERVICE_NAME}/{method}"
    if method.endswith("Stream"):
        return list(channel.stream_stream(method)(iter([FORWARD.encode_item(1, call)])))
    return channel.unary_unary(method)(FORWARD.encode_request(call))


@pytest.mark.parametrize("method", ["Forward", "ForwardStream"])
def test_a_lost_gpu_is_unavailable_and_the_process_exits(fault: Path, method: str) -> None:
    with (
        server_process("--drain-delay-s", "60", fault=fault) as (server, banner),
        grpc.insecure_channel(address_of(banner)) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        statuses = [next(health).status]
        fault.write_text("719")
        with pytest.raises(grpc.RpcError) as caught:
            forward_without_retries(channel, method)
        error = decode_error(caught.value, "")
        says = "the device is lost (launch failure); retry later, or on another server"
        assert (type(error), str(error)) == (UnavailableError, says)
        assert error.facts == {"cause": "device lost"}
        with pytest.raises(grpc.RpcError):
            statuses.extend(change.status for change in health)
        serving = health_pb2.HealthCheckResponse
        assert statuses == [serving.SERVING, serving.NOT_SERVING]
        out, err = server.communicate(timeout=LIMIT_S)
        assert (server.returncode, out) == (1, "")
        (line,) = err.splitlines()
        assert line.endswith(f"ERROR pooling_server: {says}")


def test_calls_in_flight_are_answered_or_unavailable(fault: Path) -> None:
    """The GPU is lost under many calls, and the process exits."""
    x = cases.normal((1, 64, 64, 64))
    with server_process(fault=fault) as (server, banner):
        with grpc.insecure_channel(address_of(banner)) as channel:
            call = channel.unary_unary(f"/{SERVICE_NAME}/Forward")
            request = FORWARD.encode_request(ForwardCall(x, SPEC))
            call(request)
            futures = [call.future(request) for _ in range(20)]
            fault.write_text("46")
            futures += [call.future(request) for _ in range(5)]
            errors = [future.exception() for future in futures]
        assert server.wait(LIMIT_S) == 1
    errors = [decode_error(error, "") for error in errors if error]
    assert {type(error) for error in errors} == {UnavailableError}
    assert any(error.facts == {"cause": "device lost"} for error in errors)


def test_a_gpu_that_is_lost_in_the_warm_up(
    serve: Serve, fault: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(warm_up=True)
    lost: list[bool] = []
    server.on_device_lost = lambda: lost.append(True)
    fault.write_text("714")
    server.warm_up()
    assert lost == [True]
    assert "the device is lost (hardware stack error)" in caplog.text


@pytest.mark.parametrize("status", [*faults.LOST, faults.OUT_OF_MEMORY, 1, 400])
@pytest.mark.parametrize("kind", ["CUDARuntimeError", "CUDADriverError"])
def test_errors_of_cuda_are_translated(fault: Path, kind: str, status: int) -> None:
    import cupy

    error = getattr(cupy.cuda, kind)(status)
    expected = {faults.OUT_OF_MEMORY: DeviceMemoryError, 1: type(error), 400: type(error)}
    with pytest.raises(expected.get(status, UnavailableError)), faults.TranslatedErrors(cupy):
        raise error


def test_one_worker_per_device_and_a_lost_one_is_replaced(fault: Path) -> None:
    with server_process("--devices", "0,1", fault=fault) as (server, banner):
        address = address_of(banner)
        assert re.fullmatch(
            rf"pooling \S+ listening on {address}, computing with cupy "
            r"\(NVIDIA Fake at 0000:00:00\.0\), 2 workers for devices 0, 1 on \d+ threads",
            banner,
        )
        each = {(f"NVIDIA Fake at 0000:0{number}:00.0",) for number in range(2)}
        assert devices_at(address) == each
        fault.write_text("700")
        with PoolingClient(address) as client:
            for _ in range(8):
                assert_answers(client)
            assert not fault.exists(), "one worker has lost its device"
            wait_for_devices(address, each)  # otherwise the new worker might meet the next fault
            has_fault = threading.Event()

            def calls() -> Iterator[ForwardCall]:
                for seed in range(60):
                    if seed == 30:  # the other calls are sent after the fault
                        assert has_fault.wait(LIMIT_S)
                    yield ForwardCall(cases.normal((2, 3, 8, 8), seed=seed), SPEC)

            for number, result in enumerate(client.forward_many(calls())):
                x = cases.normal((2, 3, 8, 8), seed=number)
                oracle.assert_same_bits(result.output, forward(x, SPEC, backend="numpy").output)
                if number == 10:
                    fault.write_text("719")
                    has_fault.set()
            assert not fault.exists(), "another worker has lost its device"
        wait_for_devices(address, each)
        server.terminate()
        _, err = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0
    for status in ("illegal address", "launch failure"):
        assert f"the device is lost ({status})" in err
    assert (
        len(re.findall(r"worker \d \(process \d+\) exited with exit code 1; restarting", err)) == 2
    )


def test_a_missing_device_is_one_error(fault: Path) -> None:
    fault.write_text("no device")
    with server_process("--devices", "7", fault=fault) as (server, banner):
        out, err = server.communicate(timeout=LIMIT_S)
    assert (server.returncode, banner, out) == (1, "", "")
    says = 'error: backend "cupy" cannot be loaded: no usable CUDA device: ImportError: there is no'
    assert any(line.startswith(says) for line in err.splitlines()), err


def test_auto_without_a_device_serves_from_the_cpu_and_logs_the_reason(fault: Path) -> None:
    fault.write_text("driver")
    with server_process("--backend", "auto", fault=fault) as (server, banner):
        with PoolingClient(address_of(banner), timeout=LIMIT_S) as client:  # Numba may compile
            assert_answers(client)
        server.terminate()
        _, err = server.communicate(timeout=LIMIT_S)
    assert "computing with num" in banner
    (line,) = err.splitlines()
    assert (
        'WARNING pooling_engine: backend "cupy" is not available: no usable CUDA device: CUDA'
        in line
    )
