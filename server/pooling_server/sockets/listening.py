"""Where a server listens: ports, and Unix sockets with permissions of their own."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import grpc

from pooling_wire.shared_memory import leases

_UNIX = "unix:"
_LONGEST_PATH_BYTES = 107 - len(leases.SUFFIX)  # what the system has room for
_EVERYWHERE = ("0.0.0.0", "[::]")


def split_addresses(listen: str) -> tuple[str, ...]:
    """The addresses in a list with commas, as HOST:PORT or unix:/PATH.

    Raises:
        ValueError: one is neither; the text says what is legal.
    """
    return tuple(_checked(address.strip()) for address in listen.split(","))


def is_unix(address: str) -> bool:
    """Whether the address is that of a Unix socket."""
    return address.startswith(_UNIX)


def reachable(address: str) -> str:
    """Where a client on the same machine reaches a server that listens on the address."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in _EVERYWHERE else address


def reserve(address: str, reserved: ExitStack) -> str:
    """Keeps a port, as long as `reserved` is open, for processes that will share it.

    Nobody can connect until one of them listens.

    Returns:
        The address, with the number that took the place of port 0.

    Raises:
        OSError: the address is wrong, or somebody listens there.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        holder = reserved.enter_context(socket.socket(found[0][0], socket.SOCK_STREAM))
        # What is left of an earlier server's connections would be in the way.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(found[0][4])
        # Only now: else a port that another server shares would not count as in use.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        raise _unusable(address) from None
    return f"{host}:{holder.getsockname()[1]}"


class Listeners:
    """What a server listens on.

    Args:
        server: the server, before it starts.
        listen: a list of addresses with commas.
        socket_mode: the permissions of Unix sockets; who may write may connect.

    Raises:
        OSError: an address cannot be bound; then none is.

    Attributes:
        addresses: with the numbers that took the place of port 0.
        lease_sockets: those beside the Unix sockets, where memory is leased; bound, with the same
            permissions.
    """

    def __init__(
        self, server: grpc.Server, listen: str, socket_mode: int, *, leases_memory: bool
    ) -> None:
        self._files: list[tuple[Path, tuple[int, int] | None]] = []
        self._leases_memory = leases_memory
        self.lease_sockets: list[socket.socket] = []
        try:
            self.addresses = tuple(
                self._bind_socket(server, address, socket_mode)
                if is_unix(address)
                else f"{address.rpartition(':')[0]}:{_add(server, address)}"
                for address in split_addresses(listen)
            )
        except OSError:
            self.remove_files()
            for lease_socket in self.lease_sockets:
                lease_socket.close()
            raise

    def remove_files(self) -> None:
        """Removes the files of Unix sockets that still are this server's."""
        for path, identity in self._files:
            if _identity(path) == identity:
                path.unlink(missing_ok=True)

    def _bind_socket(self, server: grpc.Server, address: str, mode: int) -> str:
        path = Path(address.removeprefix(_UNIX))
        try:
            _make_way(path)
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
        before = os.umask(0o777 & ~mode)  # at no moment may more users connect
        try:
            _add(server, address)
        finally:
            os.umask(before)
        self._files.append((path, _identity(path)))
        if self._leases_memory:
            self._bind_lease_socket(address, mode)
        return address

    def _bind_lease_socket(self, address: str, mode: int) -> None:
        path = Path(leases.lease_socket(address) or "")
        if path.is_socket():
            path.unlink()  # of a server that has gone: the socket beside it was free
        lease_socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        before = os.umask(0o777 & ~mode)
        try:
            lease_socket.bind(os.fspath(path))
        except OSError as error:
            lease_socket.close()
            raise OSError(f"cannot lease memory at {path}: {error.strerror or error}") from None
        finally:
            os.umask(before)
        lease_socket.listen()
        self.lease_sockets.append(lease_socket)
        self._files.append((path, _identity(path)))


def _checked(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address.startswith("unix-abstract:"):
        raise ValueError(
            f"listen is {address!r}: anybody could connect to an abstract socket; "
            "take one with a file, unix:/PATH"
        )
    if is_unix(address):
        path = address.removeprefix(_UNIX)
        if not path.startswith("/") or path.endswith("/"):
            raise ValueError(f"listen is {address!r}; a Unix socket is unix:/PATH from the root on")
        if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
            raise ValueError(
                f"listen is {address!r}; the path of a Unix socket has at most "
                f"{_LONGEST_PATH_BYTES} bytes"
            )
    elif not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(
            f"listen is {address!r}; it must be HOST:PORT, port 0 to 65535, or unix:/PATH"
        )
    return address


def _add(server: grpc.Server, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise _unusable(address)
    return port


def _unusable(address: str) -> OSError:
    return OSError(f"cannot listen on {address}: the address is wrong, or in use")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns  # numbers of files are used again, moments are not


def _make_way(path: Path) -> None:
    """Removes the socket of a server that has gone; gRPC would remove that of a live one too."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError("a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # somebody listens, and has no time
    raise OSError("another server listens there")
