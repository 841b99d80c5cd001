"""Assembly of a server: the pooling service, health and reflection, with their start and stop."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

import pooling_engine
from pooling_engine import PoolingError, UnavailableError
from pooling_engine.backends import DeviceBackend, select_backend
from pooling_server.config import MESSAGE_CEILING, ServerConfig
from pooling_server.observability.metrics import Metrics, Numbers
from pooling_server.oip.service import InferenceService
from pooling_server.processes.device_watchdog import DeviceWatchdog
from pooling_server.security.certificates import Certificates
from pooling_server.security.files import FileWatch
from pooling_server.security.tokens import Tokens
from pooling_server.serving.byte_budget import ByteBudget
from pooling_server.serving.call_processor import CallProcessor
from pooling_server.serving.executor import Executor
from pooling_server.serving.health import Health, add_reflection
from pooling_server.serving.polling_thread import PolledMethods, unsupported_reason
from pooling_server.serving.rpcs import Rpcs
from pooling_server.serving.server_info import used_backends
from pooling_server.serving.servicer import PoolingServicer
from pooling_server.sockets.listening import Listeners
from pooling_server.sockets.shared_memory import Pin, SharedMemory
from pooling_wire import keepalive

if TYPE_CHECKING:
    from pooling_server.http.server import HttpServer

_log = logging.getLogger("pooling_server")
# After a device is lost: the drain delay, shorter than clients keep retrying, and the time for
# calls in flight to fail.
_LOST_DELAY_S, _LOST_GRACE_S = 0.2, 2.0
# After the drain: time without a new call, and the longest wait for it.
_QUIET_S, _MOST_QUIET_S = 0.02, 0.5
_SPARE_THREADS = 8  # these reject calls while `max_in_flight` calls occupy all other threads
_HEALTH_THREADS = 4  # health has its own threads, so that slow clients cannot block it
_LONG_WARM_UP_S = 5.0
_UNLIMITED_MS = (1 << 31) - 1
_NO_COMPRESSION = ("grpc.compression_enabled_algorithms_bitset", 1)  # identity only
_COMPILING = (
    "compiling kernels, which takes a minute or more on the very first start; "
    "until then, calls to %s are computed by NumPy"
)


class PoolingServer:
    """Server of `pooling.v1.PoolingService`.

    Args:
        config: options of the server.
        shared_port: if true, other processes may listen on the same ports.

    Raises:
        OSError: an address cannot be bound, or a certificate or the token file cannot be used.
        ValueError: a line of the token file is not valid.
        pooling_engine.InvalidSpecError: the backend is unknown or cannot be loaded.

    Attributes:
        addresses: listening addresses, with port 0 replaced by the actual port.
        address: the first of them.
        grace_s: seconds that calls in flight have to finish when the server stops.
        calls: computes calls; its arena holds the buffers of results.
        executor: admission control; shows how many calls are in flight.
        shared_memory: regions that are leased to clients.
        on_device_lost: called once when the device is lost; only a new process can use the device
            again. Calls are answered with UNAVAILABLE until the server stops.
    """

    def __init__(self, config: ServerConfig, *, shared_port: bool = False) -> None:
        if config.threads:
            pooling_engine.set_thread_count(config.threads)
        self._config = config
        self.grace_s, self._drain_delay_s = config.grace_s, config.drain_delay_s
        self.on_device_lost: Callable[[], None] = lambda: None
        self._first_loss = threading.Lock()
        self._backend = select_backend(config.backend)
        device = self._backend if isinstance(self._backend, DeviceBackend) else None
        if device is not None and config.device_memory_bytes:
            device.limit_memory(config.device_memory_bytes)
        probe = None if device is None else device.probe
        self._watchdog = DeviceWatchdog(probe, config.device_watch_s, self._handle_lost_device)
        self.executor = Executor(pooling_engine.thread_count(), config.max_in_flight)
        self.calls = CallProcessor(config)
        self._files = FileWatch()
        self._certificates = _certificates(config)
        if self._certificates is not None:
            self._files.add(self._certificates.files)
        tokens = Tokens(Path(config.token_file)) if config.token_file else None
        if tokens is not None:
            self._files.add(tokens.file)
        self._metrics = Metrics() if config.metrics_listen else None
        self._budget = ByteBudget(config.max_in_flight_bytes)
        self._rpcs = Rpcs(self._metrics, self._budget, tokens)
        self._server = grpc.server(
            ThreadPoolExecutor(_HEALTH_THREADS, "pooling-health"),
            options=_channel_options(config, shared_port),
        )
        self._health = Health(self._server)
        if config.reflection:
            add_reflection(self._server)
        self._listen(shared_memory_pin=None if device is None else device.pin)
        self._add_handlers()
        self._http = self._http_server(shared_port) if config.http_listen else None

    def _listen(self, shared_memory_pin: Pin | None) -> None:
        config = self._config
        self._listeners = Listeners(
            self._server,
            config.listen,
            int(config.socket_mode, 8),
            leases_memory=config.shared_memory_bytes > 0,
            credentials=self._certificates.credentials if self._certificates else None,
        )
        self.shared_memory = SharedMemory(
            self._listeners.lease_sockets,
            config.shared_memory_bytes,
            pin=shared_memory_pin,
        )
        self.addresses = self._listeners.addresses
        self.address = self.addresses[0]

    def _add_handlers(self) -> None:
        config = self._config
        self._servicer = servicer = PoolingServicer(
            config, self.executor, self.calls, version(), self.shared_memory, self._rpcs
        )
        servicer.on_device_lost = self._handle_lost_device
        self._threads = ThreadPoolExecutor(config.max_in_flight + _SPARE_THREADS, "pooling-call")
        self._polled: PolledMethods | None = None
        if config.inline_calls and _supports_inline_calls():
            self._polled = PolledMethods(self._server)
        servicer.add_to(self._server, self._threads, self._polled)
        self._inference = InferenceService(self.calls, version(), lambda: self._health.is_serving)
        servicer.add_inference(self._inference, self._server, self._threads, self._polled)

    def _http_server(self, shared_port: bool) -> HttpServer:
        try:
            from pooling_server.http.server import HttpServer, HttpServices
        except ImportError as error:
            raise OSError(
                "http_listen needs connectrpc, starlette and uvicorn (the extra 'http'): "
                f"{error.name} is not installed"
            ) from None
        services = HttpServices(
            config=self._config,
            executor=self.executor,
            rpcs=self._rpcs,
            threads=self._threads,
            prepares=self._servicer.prepares,
            inference=self._inference,
            failed=self._servicer.failed,
            is_ready=lambda: self._health.is_serving,
        )
        try:
            return HttpServer(services, self._certificates, is_shared=shared_port)
        except OSError:
            self.abort()
            raise

    def start(self) -> None:
        """Start to serve and warm up; return once health reports SERVING."""
        self.begin()
        self.warm_up()

    def begin(self) -> None:
        """Start to serve, while health reports NOT_SERVING.

        Until the warm-up is done, calls are computed by the last fallback backend, which has
        nothing to compile; with any other backend, calls would wait for its kernels. Results are
        bit-identical, except for Lp norms, which are equally accurate.
        """
        if self._config.warm_up:
            self.calls.never_waits = not isinstance(self._backend, DeviceBackend)
            self.calls.backend = used_backends(self._config.backend)[-1].name
        self.shared_memory.start()
        self._servicer.start()
        self._server.start()
        if self._polled is not None:
            self._polled.serve()
        if self._http is not None:
            self._http.start()
        self._watchdog.start()
        self._files.start()
        _log.info("listening on %s", " and ".join(self.addresses))

    def warm_up(self) -> None:
        """Compile the common kernels, then report SERVING.

        If compilation fails, the error is logged and the server serves anyway. If it takes longer
        than 5 s, a notice is logged.
        """
        if self._config.warm_up:
            notice = threading.Timer(_LONG_WARM_UP_S, _log.warning, (_COMPILING, self.address))
            notice.daemon = True
            notice.start()
            try:
                pooling_engine.warm_up(self._config.backend, background=True)
            except UnavailableError as error:
                self._handle_lost_device(error)
            except Exception:
                self.calls.never_waits = False
                _log.exception("warm-up failed; serving anyway")
            finally:
                notice.cancel()
        self.calls.backend = self._config.backend
        self._health.serve()

    def reload(self) -> None:
        """Read the files of certificates and tokens again."""
        self._files.reload()

    def stop(self) -> bool:
        """Report NOT_SERVING, reject new calls, wait for calls in flight, then shut down.

        Returns:
            True if every call in flight was answered within the grace period.
        """
        self._watchdog.stop()
        self._files.stop()
        self._health.stop()
        time.sleep(self._drain_delay_s)
        all_finished = self.executor.drain(self.grace_s)
        self.executor.wait_for_silence(_QUIET_S, _MOST_QUIET_S)
        if self._http is not None:
            self._http.stop()
        self._server.stop(grace=1 if all_finished else None).wait()
        self._servicer.stop()
        self.shared_memory.stop()
        self._listeners.remove_files()
        return all_finished

    def _handle_lost_device(self, error: PoolingError) -> None:
        """Report NOT_SERVING and shorten the stop, because calls in flight will fail."""
        if self._first_loss.acquire(blocking=False):
            _log.error("%s", error)
            self._health.stop()
            self.grace_s = min(self.grace_s, _LOST_GRACE_S)
            self._drain_delay_s = _LOST_DELAY_S
            self.on_device_lost()

    def abort(self) -> None:
        """Remove leases and socket files, for a process that exits with calls in flight."""
        self.shared_memory.stop()
        self._listeners.remove_files()

    def numbers(self) -> Numbers:
        """Return the metrics of this process; without `metrics_listen`, only those in flight."""
        return (self._metrics or Metrics()).numbers(
            self.executor.in_flight, self._budget.used_bytes
        )

    def banner(self) -> str:
        """Return one line with the version, the addresses, the backend and its devices."""
        devices = ", ".join(self._backend.devices())
        computes = f"computing with {self._backend.name} ({devices})"
        http = "" if self._http is None else f", HTTP on {self._http.address}"
        return f"pooling {version()} listening on {' and '.join(self.addresses)}{http}, {computes}"

    @property
    def http_address(self) -> str:
        """Address of the HTTP endpoint, with the actual port; empty if there is none."""
        return "" if self._http is None else self._http.address


def _certificates(config: ServerConfig) -> Certificates | None:
    if not config.tls_certificate:
        return None
    return Certificates(
        Path(config.tls_certificate),
        Path(config.tls_key),
        Path(config.tls_client_ca) if config.tls_client_ca else None,
    )


def version() -> str:
    """Return the version of the installed distribution, or "from source"."""
    try:
        return importlib.metadata.version("pooling-service")
    except importlib.metadata.PackageNotFoundError:
        return "from source"


def _supports_inline_calls() -> bool:
    reason = unsupported_reason()
    if reason is not None:
        _log.warning("small calls are answered by threads, which is slower: %s", reason)
    return reason is None


def _channel_options(config: ServerConfig, shared_port: bool) -> list[tuple[str, int]]:
    # gRPC's own error cannot name the option that raises the limit, so its limit is higher than
    # ours: a message between the two limits is rejected with details.
    ceiling = min(2 * config.max_message_bytes, MESSAGE_CEILING + (1 << 20))
    return [
        ("grpc.max_receive_message_length", ceiling),
        ("grpc.max_send_message_length", ceiling),
        ("grpc.max_concurrent_streams", config.max_connection_streams),
        ("grpc.max_connection_age_ms", _ms(config.max_connection_age_s)),
        ("grpc.max_connection_idle_ms", _ms(config.max_connection_idle_s)),
        ("grpc.so_reuseport", int(shared_port)),  # without it, a port in use is an error
        *([] if config.accept_compression else [_NO_COMPRESSION]),
        *keepalive.server_options(),
    ]


def _ms(seconds: float) -> int:
    """Return milliseconds for gRPC, whose largest number means unlimited."""
    return min(round(1000 * seconds), _UNLIMITED_MS) if seconds else _UNLIMITED_MS
