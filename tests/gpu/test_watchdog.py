"""Watchdog of the GPU: a GPU that is lost or hangs while idle, on the fake CuPy."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pooling_client import ForwardCall, PoolingClient
from pooling_engine import PoolingError, UnavailableError
from pooling_engine.backends import select_backend
from pooling_server.processes.device_watchdog import (
    TIMEOUT_INTERVALS,
    DeviceWatchdog,
    wait_for_answer,
)
from pooling_wire import FORWARD, SERVICE_NAME, decode_error
from tests.gpu.servers import (
    SPEC,
    address_of,
    assert_answers,
    devices_at,
    server_process,
    wait_for_devices,
)
from tests.support import cases
from tests.support.waiting import LIMIT_S

OFTEN = ("--device-watch-s", "0.2")
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


def health_of(channel: grpc.Channel) -> Any:
    """Return the stream of the server's health changes."""
    request = health_pb2.HealthCheckRequest()
    return health_pb2_grpc.HealthStub(channel).Watch(request, timeout=LIMIT_S)


def remaining_statuses(health: Any) -> list[int]:
    """Return the health changes until the server exits."""
    statuses: list[int] = []
    with pytest.raises(grpc.RpcError):
        statuses.extend(change.status for change in health)
    return statuses


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("719", "launch failure"),
        ("hang", "no answer for 1.2 s"),
        ("silent", r"the maximum of 1, \d+, 2 is \S+"),
    ],
)
def test_a_gpu_that_is_lost_while_idle_ends_the_process(fault: Path, wrong: str, why: str) -> None:
    with (
        server_process(*OFTEN, "--drain-delay-s", "60", fault=fault) as (server, banner),
        grpc.insecure_channel(address_of(banner)) as channel,
    ):
        health = health_of(channel)
        assert next(health).status == SERVING
        fault.write_text(wrong)
        assert remaining_statuses(health) == [NOT_SERVING]
        out, err = server.communicate(timeout=LIMIT_S)
    assert (server.returncode, out) == (1, "")
    (line,) = err.splitlines()
    says = rf"the device is lost \({why}\); retry later, or on another server"
    assert re.search(f"ERROR pooling_server: {says}$", line), line


def test_a_gpu_that_hangs_with_calls_in_flight_ends_the_process(fault: Path) -> None:
    """The threads of the calls hang as well; the calls still fail with UNAVAILABLE."""
    call = ForwardCall(cases.normal((2, 3, 8, 8)), SPEC)
    with (
        server_process(*OFTEN, fault=fault) as (server, banner),
        grpc.insecure_channel(address_of(banner)) as channel,
    ):
        health = health_of(channel)
        assert next(health).status == SERVING
        fault.write_text("hang")
        unary = channel.unary_unary(f"/{SERVICE_NAME}/Forward")
        futures = [unary.future(FORWARD.encode_request(call)) for _ in range(4)]
        stream = channel.stream_stream(f"/{SERVICE_NAME}/ForwardStream")
        replies = stream(iter([FORWARD.encode_item(1, call)]))
        assert remaining_statuses(health) == [NOT_SERVING]
        errors = [decode_error(future.exception(), "") for future in futures]
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        errors.append(decode_error(caught.value, ""))
        _, err = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 1
    assert {type(error) for error in errors} == {UnavailableError}, errors
    lost, late = err.splitlines()
    assert "the device is lost (no answer for 1.2 s)" in lost
    assert late == "error: calls were still running after 2 s"


@pytest.mark.parametrize("wrong", ["719", "hang"])
def test_a_worker_that_loses_its_idle_gpu_is_replaced(fault: Path, wrong: str) -> None:
    with server_process(*OFTEN, "--devices", "0,1", fault=fault) as (server, banner):
        address = address_of(banner)
        each = devices_at(address)
        assert len(each) == 2
        fault.write_text(wrong)
        assert server.stderr is not None
        assert "the device is lost" in server.stderr.readline()
        assert "exited with exit code 1; restarting it" in server.stderr.readline()
        wait_for_devices(address, each)
        with PoolingClient(address) as client:
            assert_answers(client)


class Probe:
    """Probe that counts its calls.

    Attributes:
        count: number of calls.
        threads: threads that called it.
        third: set at the third call.
    """

    def __init__(self, action: Callable[[], object] = lambda: None) -> None:
        self._action = action
        self.count = 0
        self.threads: set[threading.Thread] = set()
        self.third = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.threads.add(threading.current_thread())
        if self.count == 3:
            self.third.set()
        self._action()


Start = Callable[..., tuple[DeviceWatchdog, list[PoolingError]]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start watchdogs; return each with the errors that it reports. Stop them after the test."""
    started: list[DeviceWatchdog] = []

    def start(
        probe: Probe | None, interval_s: float = 0.01
    ) -> tuple[DeviceWatchdog, list[PoolingError]]:
        lost: list[PoolingError] = []
        started.append(DeviceWatchdog(probe, interval_s, lost.append))
        started[-1].start()
        return started[-1], lost

    yield start
    for each in started:
        each.stop()


def watchdog_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "device-watchdog"}


def out_of_memory() -> NoReturn:
    raise MemoryError


@pytest.mark.parametrize("action", [lambda: None, out_of_memory], ids=["healthy", "full"])
def test_a_device_that_answers_is_probed_repeatedly(
    start: Start, action: Callable[[], object]
) -> None:
    probe = Probe(action)
    _, lost = start(probe)
    assert probe.third.wait(LIMIT_S)
    assert lost == []
    (thread,) = probe.threads  # the first CUDA call of a thread holds the GIL in CuPy
    assert thread.daemon


class SlowAnswers:
    """Queue whose answer comes after a number of intervals, without any real waiting."""

    def __init__(self, intervals: int) -> None:
        self._left = intervals

    def get(self, timeout: float) -> None:
        if self._left:
            self._left -= 1
            raise queue.Empty


def test_a_busy_device_is_not_lost_before_the_last_interval() -> None:
    """Only intervals that were waited for count, so a suspended process loses no device."""
    assert wait_for_answer(SlowAnswers(TIMEOUT_INTERVALS - 1), 5) is None
    error = wait_for_answer(SlowAnswers(TIMEOUT_INTERVALS), 5)
    assert "no answer for 30 s" in str(error)


@pytest.mark.parametrize(("probe", "interval_s"), [(None, 0.01), (Probe(), 0)])
def test_no_device_and_no_interval_start_no_thread(
    start: Start, probe: Probe | None, interval_s: float
) -> None:
    before = watchdog_threads()
    start(probe, interval_s)
    assert watchdog_threads() <= before


def test_after_a_stop_the_threads_end(start: Start) -> None:
    before = watchdog_threads()
    probe = Probe()
    watchdog, lost = start(probe)
    assert probe.third.wait(LIMIT_S)
    (thread,) = watchdog_threads() - before
    watchdog.stop()
    for each in (thread, *probe.threads):
        each.join(LIMIT_S)
        assert not each.is_alive()
    assert lost == []


def test_a_device_that_has_not_answered_when_the_server_stops_is_not_lost(start: Start) -> None:
    """The probe itself stops the watchdog, and then hangs for longer than the timeout."""
    answer, stopped = threading.Event(), threading.Event()

    def stop_and_hang() -> None:
        stopped.wait(LIMIT_S)
        answer.wait(LIMIT_S)

    before = watchdog_threads()
    probe = Probe(stop_and_hang)
    watchdog, lost = start(probe, 0.05)
    (thread,) = watchdog_threads() - before
    watchdog.stop()
    stopped.set()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    answer.set()
    assert lost == []


def test_probes_allocate_memory_once(fault: Path, cuda: ModuleType) -> None:
    """A GPU without free memory therefore passes its probes."""
    backend = select_backend("cupy")
    used = cuda.MEMORY.used
    fault.write_text("memory")
    for _ in range(3):
        backend.probe()
    assert cuda.MEMORY.used == used


def test_a_probe_needs_no_buffer_of_the_calls(fault: Path, cuda: ModuleType) -> None:
    backend = select_backend("cupy")
    buffers = backend.staging.buffers
    with ExitStack() as borrowed:
        while buffers.count < buffers.max_count:
            borrowed.enter_context(buffers.borrow(1))
        assert buffers.idle_count == 0
        cuda.EVENTS.clear()
        backend.probe()
    assert [what for _, what in cuda.EVENTS] == ["upload", "launch", "download", "wait"]
