"""Memory that callers on the same host share with the server.

The server creates every region: anonymous memory, sealed so that nobody can shrink it under a
running call. A client gets its descriptor over a Unix socket (`pooling_wire.shared_memory.leases`);
the file permissions of that socket decide who may connect. A call that uses a region keeps it
mapped, even after its lease ends. When the last view is gone, the region is unregistered from the
GPU and then unmapped.
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
from pooling_wire.shared_memory import leases

_log = logging.getLogger("pooling_server")
MOST_CALLERS = 256  # connections at once; one more is closed, and its calls send their tensors
MOST_REGIONS = 256  # of one caller
Pin = Callable[[NDArray[Any]], Callable[[], None] | None]
Region = ctypes.Array[ctypes.c_ubyte]
_UNPIN_S = 2.0  # a card that hangs would keep whoever waits longer
_FULL_S = 0.1  # until a process that has no descriptor left looks for one again
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedMemory:
    """Regions, by handle, and the thread that leases them.

    Args:
        listeners: the Unix sockets to lease at, bound and listening; closed in the end.
        limit_bytes: the most that is leased at once.
        pin: of the backend that computes, as `pooling_engine.backends.Backend` says.
    """

    def __init__(self, listeners: Sequence[socket.socket], limit_bytes: int, pin: Pin) -> None:
        self._listeners = listeners
        self._free_bytes = limit_bytes
        self._pin = pin
        self._regions: dict[bytes, Region] = {}
        self._leases: dict[socket.socket, set[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="pooling-leases", daemon=True)

    def start(self) -> None:
        """Begins to lease."""
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Ends every lease; calls in flight keep what they use. Once more, it does nothing."""
        if self._thread.is_alive():
            self._wake.send(b"x")
            self._thread.join(_UNPIN_S)
        else:  # never started, or stopped
            self._close()

    def find(self, handle: bytes) -> memoryview:
        """The region of a handle; it is there for as long as the view is.

        Raises:
            InvalidTensorError: no lease has that handle, or it has ended.
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
            caller, _ = listener.accept()
        except OSError as error:  # gone again, or it has to wait
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(_FULL_S)
            return
        if len(self._leases) == MOST_CALLERS:
            caller.close()
            return
        caller.setblocking(False)
        self._leases[caller] = set()
        self._selector.register(caller, selectors.EVENT_READ)

    def _answer(self, caller: socket.socket) -> None:
        """One packet; a caller that is gone, or talks nonsense, or does not listen, is let go."""
        try:
            asked = leases.decode_packet(caller.recv(leases.LONGEST_PACKET))
            if isinstance(asked, int):
                self._lease(caller, asked)
            elif asked is not None and asked in self._leases[caller]:
                self._end(caller, asked)
            else:
                self._let_go(caller)
        except OSError as error:
            _log.info("a lease ended: %s", error)
            self._let_go(caller)

    def _lease(self, caller: socket.socket, size_bytes: int) -> None:
        own = self._leases[caller]
        if not 0 < size_bytes <= self._free_bytes or len(own) == MOST_REGIONS:
            caller.send(leases.encode_size(0 if len(own) == MOST_REGIONS else self._free_bytes))
            return
        handle = secrets.token_bytes(leases.HANDLE_BYTES)
        descriptor = os.memfd_create("pooling", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self._regions[handle] = self._map(descriptor, size_bytes)
            self._free_bytes -= size_bytes
            own.add(handle)
            socket.send_fds(caller, [handle], [descriptor])
        finally:
            os.close(descriptor)

    def _map(self, descriptor: int, size_bytes: int) -> Region:
        """A region mapped, and pinned where that helps; every view of it holds this object."""
        memory = mmap.mmap(descriptor, size_bytes)
        region = (ctypes.c_ubyte * size_bytes).from_buffer(memory)
        unpin = self._pin(np.frombuffer(memory, np.uint8))
        if unpin is not None:
            weakref.finalize(region, unpin).atexit = False
        return region

    def _end(self, caller: socket.socket, handle: bytes) -> None:
        self._leases[caller].remove(handle)
        self._free_bytes += len(self._regions.pop(handle))

    def _let_go(self, caller: socket.socket) -> None:
        for handle in tuple(self._leases[caller]):
            self._end(caller, handle)
        del self._leases[caller]
        self._selector.unregister(caller)
        caller.close()

    def _close(self) -> None:
        for caller in tuple(self._leases):
            self._let_go(caller)
        self._selector.close()
        for each in (*self._listeners, self._wake, self._woken):
            each.close()
