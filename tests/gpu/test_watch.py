"""A card that is lost or hangs while nobody calls; `fakes/` stands in for CuPy."""

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pooling_client import ForwardCall, PoolingClient
from pooling_engine import UnavailableError
from pooling_engine.backends import select_backend
from pooling_server.processes.device_watchdog import TIMEOUT_INTERVALS, DeviceWatchdog
from pooling_wire import FORWARD, SERVICE_NAME, decode_error
from tests.gpu.test_serving import (
    SPEC,
    address_of,
    assert_answers,
    assert_soon_at,
    devices_at,
    processes,
)
from tests.support import cases
from tests.support.waiting import LIMIT_S

OFTEN = ("--device-watch-s", "0.2")
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


def watched(channel):
    """The health of the server, as it changes."""
    request = health_pb2.HealthCheckRequest()
    return health_pb2_grpc.HealthStub(channel).Watch(request, timeout=LIMIT_S)


def statuses_until_the_end(health):
    statuses = []
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
def test_a_card_that_is_lost_while_nobody_calls(fault, wrong, why):
    with (
        processes(*OFTEN, "--drain-delay-s", "60", fault=fault) as (server, banner),
        grpc.insecure_channel(address_of(banner)) as channel,
    ):
        health = watched(channel)
        assert next(health).status == SERVING
        fault.write_text(wrong)
        assert statuses_until_the_end(health) == [NOT_SERVING]
        out, err = server.communicate(timeout=LIMIT_S)
    assert (server.returncode, out) == (1, "")
    (line,) = err.splitlines()
    says = rf"the device is lost \({why}\); retry later, or on another server"
    assert re.search(f"ERROR pooling_server: {says}$", line), line


def test_a_card_that_hangs_with_calls_in_flight(fault):
    """Their threads hang, too; the process ends all the same, and callers hear of it."""
    call = ForwardCall(cases.normal((2, 3, 8, 8)), SPEC)
    with (
        processes(*OFTEN, fault=fault) as (server, banner),
        grpc.insecure_channel(address_of(banner)) as channel,
    ):
        health = watched(channel)
        assert next(health).status == SERVING
        fault.write_text("hang")
        unary = channel.unary_unary(f"/{SERVICE_NAME}/Forward")
        futures = [unary.future(FORWARD.encode_request(call)) for _ in range(4)]
        stream = channel.stream_stream(f"/{SERVICE_NAME}/ForwardStream")
        replies = stream(iter([FORWARD.encode_item(1, call)]))
        assert statuses_until_the_end(health) == [NOT_SERVING]
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
def test_a_worker_that_loses_its_card_while_nobody_calls_is_replaced(fault, wrong):
    with processes(*OFTEN, "--devices", "0,1", fault=fault) as (server, banner):
        address = address_of(banner)
        each = devices_at(address)
        assert len(each) == 2
        fault.write_text(wrong)
        assert "the device is lost" in server.stderr.readline()
        assert "exited with exit code 1; restarting it" in server.stderr.readline()
        assert_soon_at(address, each)
        with PoolingClient(address) as client:
            assert_answers(client)


class Asked:
    """A backend whose probes are counted, and end as they are told."""

    def __init__(self, probe=lambda: None):
        self.count, self._probe = 0, probe
        self.threads = set()
        self.enough = threading.Event()

    def probe(self):
        self.count += 1
        self.threads.add(threading.current_thread())
        if self.count == 3:
            self.enough.set()
        self._probe()


@pytest.fixture
def watch():
    """Starts a watch of a backend; returns what it says of the device. Stops it in the end."""
    started = []

    def start(backend, every_s=0.01):
        lost = []
        started.append(DeviceWatchdog(backend and backend.probe, every_s, lost.append))
        started[-1].start()
        return lost

    yield start
    for each in started:
        each.stop()


def no_room():
    raise MemoryError("no room")


@pytest.mark.parametrize("probe", [lambda: None, no_room], ids=["healthy", "full"])
def test_a_card_that_answers_is_asked_again_and_again(watch, probe):
    backend = Asked(probe)
    lost = watch(backend)
    assert backend.enough.wait(LIMIT_S)
    assert lost == []
    (asking,) = backend.threads  # the first call of each holds Python's lock, in CuPy
    assert asking.daemon


def test_a_card_that_is_busy_is_not_lost(watch):
    """Nor is one whose process stood still: only what is waited for counts."""
    backend = Asked(lambda: time.sleep(0.1 * (TIMEOUT_INTERVALS - 3)))
    lost = watch(backend, 0.1)
    assert backend.enough.wait(LIMIT_S)
    assert lost == []


def test_nobody_is_asked_after_a_stop_nor_without_a_card(watch):
    backend, off = Asked(), Asked()
    assert [watch(None), watch(off, 0)] == [[], []]
    watching = DeviceWatchdog(backend.probe, 0.01, [].append)
    thread = begun(watching)
    assert backend.enough.wait(LIMIT_S)
    watching.stop()
    for each in (thread, *backend.threads):
        each.join(LIMIT_S)
        assert not each.is_alive()
    count = backend.count
    time.sleep(0.05)
    assert (backend.count, off.count) == (count, 0)


def test_a_card_that_has_not_answered_when_the_server_stops_is_not_lost():
    answer, lost = threading.Event(), []

    def stop_and_hang():
        watching.stop()
        answer.wait(LIMIT_S)

    backend = Asked(stop_and_hang)
    watching = DeviceWatchdog(backend.probe, 0.05, lost.append)
    thread = begun(watching)
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    answer.set()
    assert (backend.count, lost) == (1, [])


def begun(watching):
    """The thread of a watch, which is started."""
    before = threading.enumerate()
    watching.start()
    new = (each for each in threading.enumerate() if each not in before)
    return next(each for each in new if each.name == "device-watchdog")


def test_probes_take_memory_once(fault):
    """A card that is full answers, too: there is nothing to allocate."""
    from cupy import cuda

    backend = select_backend("cupy")
    used = cuda.MEMORY.used
    fault.write_text("memory")
    for _ in range(3):
        backend.probe()
    assert cuda.MEMORY.used == used


def test_a_probe_waits_for_no_call(fault):
    """Calls may have taken all other lanes."""
    backend = select_backend("cupy")
    lanes = backend.staging.buffers
    with ExitStack() as taken:
        while lanes.count < lanes.max_count:
            taken.enter_context(lanes.borrow(1))
        backend.probe()
