"""A server on a card: `fakes/` stands in for CuPy, the server and its calls are real."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pooling_client import ForwardCall, PoolingClient
from pooling_engine import DeviceMemoryError, PoolSpec, UnavailableError, forward
from pooling_engine.backends.cupy_backend.backend import PROBE_BYTES
from pooling_engine.backends.cupy_backend.device import faults
from pooling_server import PoolingServer, ServerConfig
from pooling_wire import FORWARD, SERVICE_NAME, decode_error
from tests.support import cases, oracle
from tests.support.processes import process
from tests.support.waiting import LIMIT_S, wait_until

FAKES = Path(__file__).parent / "fakes"
SPEC = PoolSpec("max", 2)
MIB = 1 << 20


@pytest.fixture
def serve(fault, every_kernel):
    """Starts a server of the given options; stops all of them in the end."""
    servers = []

    def start(**options):
        config = ServerConfig(listen="127.0.0.1:0", backend="cupy", **{"warm_up": False, **options})
        servers.append(PoolingServer(config))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def assert_answers(client):
    x = cases.normal((2, 3, 8, 8))
    oracle.assert_same_bits(
        client.forward(x, SPEC).output, forward(x, SPEC, backend="numpy").output
    )


def whole(client, x):
    """The output for a tensor that is sent as it is, not in pieces."""
    (result,) = client.forward_many([ForwardCall(x, SPEC)])
    return result.output


def test_a_call_that_the_memory_of_the_card_has_no_room_for(serve):
    from cupy import cuda

    server = serve(device_memory_bytes=64 * MIB)
    assert cuda.MEMORY.get_limit() == 64 * MIB
    with PoolingClient(server.address) as client:
        assert_answers(client)
        cuda.MEMORY.set_limit(20 * MIB + PROBE_BYTES)
        fits = np.zeros((1, 1, 2048, 2048), np.float32)  # 16 MiB and 4
        whole(client, fits)
        exceeds = np.zeros((1, 1, 2048, 2052), np.float32)
        for _ in range(2):
            with pytest.raises(DeviceMemoryError, match="the device is out of memory"):
                whole(client, exceeds)
            assert_answers(client)
        whole(client, fits)


def test_a_card_whose_memory_another_program_has_taken(serve, fault):
    server = serve()
    x = np.zeros((1, 1, 4096, 1024), np.float32)
    with PoolingClient(server.address) as client:
        fault.write_text("memory")
        with pytest.raises(DeviceMemoryError, match="the device is out of memory"):
            whole(client, x)
        fault.unlink()
        whole(client, x)
        assert_answers(client)


@pytest.mark.parametrize("nbytes", [1, 64 * MIB - 1, -1])
def test_too_little_memory_for_any_call_is_refused(nbytes):
    with pytest.raises(ValueError, match=f"device_memory_bytes is {nbytes}; it must be "):
        ServerConfig(device_memory_bytes=nbytes)


def processes(*flags, fault, **environment):
    """A server process whose CuPy is the stand-in, with the kernels of the shim."""
    paths = os.pathsep.join([str(FAKES), str(FAKES.parent), os.environ.get("PYTHONPATH", "")])
    return process(
        "--backend", "cupy", "--no-warm-up", "--listen", "127.0.0.1:0", *flags,
        PYTHONPATH=paths, FAKE_CUPY_FAULT=str(fault), CUPY_CACHE_DIR=str(fault.parent),
        **environment,
    )  # fmt: skip


def address_of(banner):
    return re.search(r"listening on (\S+:\d+)", banner)[1]


def forward_by(channel, method):
    """One call without a client, which would try again; it is refused."""
    call, method = ForwardCall(cases.normal((2, 3, 8, 8)), SPEC), f"/{SERVICE_NAME}/{method}"
    if method.endswith("Stream"):
        return list(channel.stream_stream(method)(iter([FORWARD.encode_item(1, call)])))
    return channel.unary_unary(method)(FORWARD.encode_request(call))


@pytest.mark.parametrize("method", ["Forward", "ForwardStream"])
def test_a_lost_card_is_unavailable_and_the_process_ends(fault, method):
    with (
        processes("--drain-delay-s", "60", fault=fault) as (server, banner),
        grpc.insecure_channel(address_of(banner)) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        statuses = [next(health).status]
        fault.write_text("719")
        with pytest.raises(grpc.RpcError) as caught:
            forward_by(channel, method)
        refusal = decode_error(caught.value, "")
        says = "the device is lost (launch failure); retry later, or on another server"
        assert (type(refusal), str(refusal)) == (UnavailableError, says)
        assert refusal.facts == {"cause": "device lost"}
        with pytest.raises(grpc.RpcError):
            statuses.extend(change.status for change in health)
        serving = health_pb2.HealthCheckResponse
        assert statuses == [serving.SERVING, serving.NOT_SERVING]
        out, err = server.communicate(timeout=LIMIT_S)
        assert (server.returncode, out) == (1, "")
        (line,) = err.splitlines()
        assert line.endswith(f"ERROR pooling_server: {says}")


def test_calls_in_flight_hear_of_it_too(fault):
    """The card is lost under many calls: each is answered or UNAVAILABLE, and the process ends."""
    x = cases.normal((1, 64, 64, 64))
    with processes(fault=fault) as (server, banner):
        with grpc.insecure_channel(address_of(banner)) as channel:
            call = channel.unary_unary(f"/{SERVICE_NAME}/Forward")
            request = FORWARD.encode_request(ForwardCall(x, SPEC))
            call(request)
            futures = [call.future(request) for _ in range(20)]
            fault.write_text("46")
            futures += [call.future(request) for _ in range(5)]
            errors = [future.exception() for future in futures]
        assert server.wait(LIMIT_S) == 1
    refusals = [decode_error(error, "") for error in errors if error]
    assert {type(refusal) for refusal in refusals} == {UnavailableError}
    assert any(refusal.facts == {"cause": "device lost"} for refusal in refusals)


def test_a_card_that_is_lost_in_the_warm_up(serve, fault, caplog):
    server = serve(warm_up=True)  # it compiles what the shim has
    lost = []
    server.on_device_lost = lambda: lost.append(True)
    fault.write_text("714")
    server.warm_up()
    assert lost == [True]
    assert "the device is lost (hardware stack error)" in caplog.text


@pytest.mark.parametrize("status", [*faults.LOST, faults.OUT_OF_MEMORY, 1, 400])
@pytest.mark.parametrize("kind", ["CUDARuntimeError", "CUDADriverError"])
def test_what_errors_of_cuda_mean(fault, kind, status):
    import cupy

    error = getattr(cupy.cuda, kind)(status)
    expected = {faults.OUT_OF_MEMORY: DeviceMemoryError, 1: type(error), 400: type(error)}
    with pytest.raises(expected.get(status, UnavailableError)), faults.TranslatedErrors(cupy):
        raise error


def devices_at(address):
    """What the workers say that they compute on, asked over many connections."""
    with PoolingClient(address, connections=24) as client:
        return {client.info().backends[0].devices for _ in range(24)}


def assert_soon_at(address, each):
    """The workers are those again, once what was lost has been started anew."""
    wait_until(lambda: devices_at(address) == each)


def test_a_worker_for_each_device_and_one_that_is_lost_is_replaced(fault):
    with processes("--devices", "0,1", fault=fault) as (server, banner):
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
            assert not fault.exists(), "one has lost it"
            assert_soon_at(address, each)  # else the one that starts might lose it again
            is_wrong = threading.Event()

            def calls():
                for seed in range(60):
                    if seed == 30:  # the rest is sent, and computed, after the fault
                        assert is_wrong.wait(LIMIT_S)
                    yield ForwardCall(cases.normal((2, 3, 8, 8), seed=seed), SPEC)

            for number, result in enumerate(client.forward_many(calls())):
                x = cases.normal((2, 3, 8, 8), seed=number)
                oracle.assert_same_bits(result.output, forward(x, SPEC, backend="numpy").output)
                if number == 10:
                    fault.write_text("719")
                    is_wrong.set()
            assert not fault.exists(), "one more"
        assert_soon_at(address, each)
        server.terminate()
        _, err = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0
    for status in ("illegal address", "launch failure"):
        assert f"the device is lost ({status})" in err
    assert (
        len(re.findall(r"worker \d \(process \d+\) exited with exit code 1; restarting", err)) == 2
    )


def test_a_device_that_is_not_there_is_one_error(fault):
    fault.write_text("no device")
    with processes("--devices", "7", fault=fault) as (server, banner):
        out, err = server.communicate(timeout=LIMIT_S)
    assert (server.returncode, banner, out) == (1, "", "")
    says = 'error: backend "cupy" cannot be loaded: no usable CUDA device: ImportError: there is no'
    assert any(line.startswith(says) for line in err.splitlines()), err


def test_auto_without_a_device_serves_from_the_processor_and_says_why(fault):
    fault.write_text("driver")
    with processes("--backend", "auto", fault=fault) as (server, banner):
        with PoolingClient(address_of(banner), timeout=LIMIT_S) as client:  # Numba may compile
            assert_answers(client)
        server.terminate()
        _, err = server.communicate(timeout=LIMIT_S)
    assert "computing with num" in banner
    (line,) = err.splitlines()
    assert 'WARNING pooling_engine: no backend "cupy": no usable CUDA device: CUDA' in line
