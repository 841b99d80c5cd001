"""Memory that clients on the same host share with the server.

The server creates every region: anonymous memory, sealed so that no process can shrink it
during a call. A client gets its descriptor over a Unix socket (`pooling_wire.shared_memory`);
the file permissions of that socket decide who may connect. A call that uses a region keeps it
mapped, even after its lease ends. After the last view is released, the region is unregistered
from the GPU and then unmapped.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import mmap
import os
import secrets
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pooling_engine import InvalidTensorError
from pooling_wire.shared_memory import (
    HANDLE_BYTES,
    LONGEST_PACKET,
    decode_packet,
    encode_size,
)

_log = logging.getLogger("pooling_server")
MAX_CLIENTS = 256  # connections; further ones are closed, and their calls send their tensors
MAX_REGIONS = 256  # per client
Pin = Callable[[NDArray[Any]], Callable[[], None] | None]
Region = ctypes.Array[ctypes.c_ubyte]
_STOP_S = 2.0  # unregistering a region blocks for longer only if the GPU hangs
_NO_DESCRIPTOR_S = 0.1  # pause before the next accept when the process has no free descriptor
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedMemory:
    """Leased regions by handle, and the thread that leases them.

    Args:
        listeners: bound and listening Unix sockets; `stop` closes them.
        limit_bytes: maximum bytes leased at the same time.
        pin: `DeviceBackend.pin` of the compute backend; None without a device.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], limit_bytes: int, pin: Pin | None
    ) -> None:
        self._listeners = listeners
        self._free_bytes = limit_bytes
        self._pin = pin
        self._regions: dict[bytes, Region] = {}
        self._leases: dict[socket.socket, set[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="pooling-leases", daemon=True)

    @property
    def region_count(self) -> int:
        """Number of leased regions."""
        return len(self._regions)

    @property
    def free_bytes(self) -> int:
        """Bytes that can still be leased."""
        return self._free_bytes

    def start(self) -> None:
        """Start to lease."""
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """End every lease; calls in flight keep their regions. Safe to call more than once."""
        if self._thread.is_alive():
            self._wake.send(b"x")
            self._thread.join(_STOP_S)
        else:  # never started, or already stopped
            self._close()

    def find(self, handle: bytes) -> memoryview:
        """Return the region of a handle; it stays mapped as long as the view exists.

        Raises:
            InvalidTensorError: no current lease has this handle.
        """
        region = self._regions.get(handle)
        if region is None:
            raise InvalidTensorError("no lease of shared memory has this handle")
        return memoryview(region).cast("B")

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready: Any = key.fileobj
                if ready is self._woken:
                    self._close()
                    return
                if ready in self._listeners:
                    self._accept(ready)
                else:
                    self._answer(ready)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError as error:  # the client has disconnected, or no descriptor is free
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(_NO_DESCRIPTOR_S)
            return
        if len(self._leases) == MAX_CLIENTS:
            client.close()
            return
        client.setblocking(False)
        self._leases[client] = set()
        self._selector.register(client, selectors.EVENT_READ)

    def _answer(self, client: socket.socket) -> None:
        """Answer one packet; close the connection after an invalid packet or at its end."""
        try:
            packet = decode_packet(client.recv(LONGEST_PACKET))
            if isinstance(packet, int):
                self._lease(client, packet)
            elif packet is not None and packet in self._leases[client]:
                self._end_lease(client, packet)
            else:
                self._disconnect(client)
        except OSError as error:
            _log.info("a client of shared memory was disconnected: %s", error)
            self._disconnect(client)

    def _lease(self, client: socket.socket, size_bytes: int) -> None:
        handles = self._leases[client]
        has_no_slot = len(handles) == MAX_REGIONS
        if has_no_slot or not 0 < size_bytes <= self._free_bytes:
            client.send(encode_size(0 if has_no_slot else self._free_bytes))
            return
        handle = secrets.token_bytes(HANDLE_BYTES)
        descriptor = os.memfd_create("pooling", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self._regions[handle] = self._map(descriptor, size_bytes)
            self._free_bytes -= size_bytes
            handles.add(handle)
            socket.send_fds(client, [handle], [descriptor])
        finally:
            os.close(descriptor)

    def _map(self, descriptor: int, size_bytes: int) -> Region:
        """Map a region and register it with the device; views keep the returned object alive."""
        memory = mmap.mmap(descriptor, size_bytes)
        region = (ctypes.c_ubyte * size_bytes).from_buffer(memory)
        unpin = None if self._pin is None else self._pin(np.frombuffer(memory, np.uint8))
        if unpin is not None:
            weakref.finalize(region, unpin).atexit = False
        return region

    def _end_lease(self, client: socket.socket, handle: bytes) -> None:
        self._leases[client].remove(handle)
        self._free_bytes += len(self._regions.pop(handle))

    def _disconnect(self, client: socket.socket) -> None:
        for handle in tuple(self._leases[client]):
            self._end_lease(client, handle)
        del self._leases[client]
        self._selector.unregister(client)
        client.close()

    def _close(self) -> None:
        for client in tuple(self._leases):
            self._disconnect(client)
        self._selector.close()
        for each in (*self._listeners, self._wake, self._woken):
            each.close()
