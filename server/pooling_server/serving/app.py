"""The server put together: the service, health and reflection, started and stopped."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

import pooling_engine
from pooling_engine import PoolingError, UnavailableError
from pooling_engine.backends import select_backend
from pooling_server.config import MESSAGE_CEILING, ServerConfig
from pooling_server.processes.device_watchdog import Watch
from pooling_server.serving.executor import Executor
from pooling_server.serving.health import Health, add_reflection
from pooling_server.serving.server_info import used_backends
from pooling_server.serving.servicer import PoolingServicer
from pooling_server.sockets.listening import Listeners
from pooling_server.sockets.shared_memory import SharedMemory
from pooling_wire import keepalive

_log = logging.getLogger("pooling_server")
# Once the device is lost: seconds to tell callers, fewer than those in which they try again, and
# seconds for calls in flight to hear of it.
_LOST_DELAY_S, _LOST_GRACE_S = 0.2, 2.0
_SPARE_THREADS = 8  # for refusals while as many calls as may be are in flight
_HEALTH_THREADS = 4  # of its own: it answers, whatever callers do
_LONG_WARM_UP_S = 5.0
_COMPILING = "compiling kernels, for a minute or more at the very first start; NumPy answers at %s"


class PoolingServer:
    """A server of `pooling.v1.PoolingService`.

    Args:
        config: its options.
        shared_port: whether other processes listen on the same ports.

    Raises:
        OSError: an address cannot be bound.
        pooling_engine.InvalidSpecError: there is no such backend.

    Attributes:
        addresses: what it listens on, with numbers in place of port 0.
        address: the first of them.
        grace_s: seconds that calls in flight get to finish, when it stops.
        on_lost: called once the device is found lost, which only a new process has again. Until
            it stops, calls are answered with UNAVAILABLE.
    """

    def __init__(self, config: ServerConfig, *, shared_port: bool = False) -> None:
        if config.threads:
            pooling_engine.set_thread_count(config.threads)
        self._config = config
        self.grace_s, self._drain_delay_s = config.grace_s, config.drain_delay_s
        self.on_lost: Callable[[], None] = lambda: None
        self._first_loss = threading.Lock()
        self._backend = select_backend(config.backend)
        if config.device_memory_bytes:
            self._backend.limit_memory(config.device_memory_bytes)
        self._watch = Watch(self._backend, config.device_watch_s, self._lose)
        self._executor = Executor(pooling_engine.thread_count(), config.max_in_flight)
        self._server = grpc.server(
            ThreadPoolExecutor(_HEALTH_THREADS, "pooling-health"),
            options=_channel_options(config, shared_port),
        )
        self._health = Health(self._server)
        if config.reflection:
            add_reflection(self._server)
        self._listeners = Listeners(
            self._server,
            config.listen,
            int(config.socket_mode, 8),
            leases_memory=config.shared_memory_bytes > 0,
        )
        self._memory = SharedMemory(
            self._listeners.lease_sockets, config.shared_memory_bytes, self._backend.pin
        )
        self.servicer = PoolingServicer(config, self._executor, version(), self._memory)
        self.servicer.lose = self._lose
        calls = ThreadPoolExecutor(config.max_in_flight + _SPARE_THREADS, "pooling-call")
        self._server.add_generic_rpc_handlers((self.servicer.handlers(calls),))
        self.addresses = self._listeners.addresses
        self.address = self.addresses[0]

    def start(self) -> None:
        """Begins to answer, and warms up; returns once health says SERVING."""
        self.begin()
        self.warm_up()

    def begin(self) -> None:
        """Begins to answer, while health says NOT_SERVING.

        Until the warm-up is over, the last backend computes: it has nothing to compile, and the
        others would let calls wait for their kernels. The bits are the same, or for norms as exact.
        """
        if self._config.warm_up:
            self.servicer.backend = used_backends(self._config.backend)[-1].name
        self._memory.start()
        self._server.start()
        self._watch.start()
        _log.info("listening on %s", " and ".join(self.addresses))

    def warm_up(self) -> None:
        """Compiles what the backend has to compile, then turns health to SERVING.

        Should that fail, the log says why, and the server serves all the same; it also says why
        nothing is heard of a server for so long.
        """
        if self._config.warm_up:
            notice = threading.Timer(_LONG_WARM_UP_S, _log.warning, (_COMPILING, self.address))
            notice.daemon = True
            notice.start()
            try:
                pooling_engine.warm_up(self._config.backend, background=True)
            except UnavailableError as error:
                self._lose(error)
            except Exception:
                _log.exception("the warm-up failed")
            finally:
                notice.cancel()
        self.servicer.backend = self._config.backend
        self._health.serve()

    def stop(self) -> bool:
        """Stops: NOT_SERVING, then no new calls, then the end. Returns whether nothing was lost."""
        self._watch.stop()
        self._health.stop()
        time.sleep(self._drain_delay_s)
        all_finished = self._executor.drain(self.grace_s)
        self._server.stop(grace=1 if all_finished else None).wait()
        self._memory.stop()
        self._listeners.remove_files()
        return all_finished

    def _lose(self, error: PoolingError) -> None:
        """Says NOT_SERVING, and that there is little to wait for: calls in flight will fail."""
        if self._first_loss.acquire(blocking=False):
            _log.error("%s", error)
            self._health.stop()
            self.grace_s = min(self.grace_s, _LOST_GRACE_S)
            self._drain_delay_s = _LOST_DELAY_S
            self.on_lost()

    def abandon(self) -> None:
        """Leaves nothing behind, for a process that ends at once with calls in flight."""
        self._memory.stop()
        self._listeners.remove_files()

    def banner(self) -> str:
        """One line: what this is, where it listens, what it computes on."""
        devices = ", ".join(self._backend.devices())
        computes = f"computing with {self._backend.name} ({devices})"
        return f"pooling {version()} listening on {' and '.join(self.addresses)}, {computes}"


def version() -> str:
    """The version of the distribution, or that it is not installed."""
    try:
        return importlib.metadata.version("pooling-service")
    except importlib.metadata.PackageNotFoundError:
        return "from source"


def _channel_options(config: ServerConfig, shared_port: bool) -> list[tuple[str, int]]:
    # gRPC's own refusal cannot say which option raises the limit, so it stands further out
    # than ours: a message between the two is refused with details.
    ceiling = min(2 * config.max_message_bytes, MESSAGE_CEILING + (1 << 20))
    return [
        ("grpc.max_receive_message_length", ceiling),
        ("grpc.max_send_message_length", ceiling),
        ("grpc.so_reuseport", int(shared_port)),  # else a port in use is an error
        *keepalive.server_options(),
    ]
