"""Listening addresses of a server: TCP ports, and Unix sockets with their own file mode."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from pooling_wire.shared_memory import LEASE_SUFFIX, lease_socket_path

_UNIX = "unix:"
_MAX_PATH_BYTES = 107 - len(LEASE_SUFFIX)  # sockaddr_un has room for 107
_ALL_INTERFACES = ("0.0.0.0", "[::]")


def split_addresses(listen: str, name: str = "listen") -> tuple[str, ...]:
    """Return the addresses in a comma-separated list, each as HOST:PORT or unix:/PATH.

    Args:
        listen: the list.
        name: its option, for errors.

    Raises:
        ValueError: an address has neither form; the text names the legal forms.
    """
    return tuple(_checked(address.strip(), name) for address in listen.split(","))


def is_unix(address: str) -> bool:
    """Return True for the address of a Unix socket."""
    return address.startswith(_UNIX)


def is_local(address: str) -> bool:
    """Return True if only processes on this host can connect to an address.

    A host name other than localhost may resolve to any address.
    """
    host = address.rpartition(":")[0].strip("[]")
    if is_unix(address) or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_target(address: str) -> str:
    """Return the target that a client on the same host uses for a listening address."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in _ALL_INTERFACES else address


def reserve_port(address: str, reserved: ExitStack) -> str:
    """Reserve a port, until `reserved` is closed, for processes that will share it.

    Clients cannot connect until one of these processes listens.

    Returns:
        The address, with port 0 replaced by the number of the reserved port.

    Raises:
        OSError: the address is invalid or in use.
    """
    host = address.rpartition(":")[0]
    holder = reserved.enter_context(bound_socket(address, is_shared=False))
    # After bind: otherwise a port that another server shares would not count as in use.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return f"{host}:{holder.getsockname()[1]}"


def bound_socket(address: str, *, is_shared: bool) -> socket.socket:
    """Return a TCP socket that is bound to HOST:PORT, but does not listen yet.

    Args:
        address: the address.
        is_shared: if true, other processes may bind the same port.

    Raises:
        OSError: the address is invalid or in use.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        # With the protocol: asyncio sets TCP_NODELAY only on sockets that name it.
        bound = socket.socket(found[0][0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            # Connections of an earlier server in TIME_WAIT would block the port otherwise.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(found[0][4])
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise _unusable(address, error) from None
    return bound


class Listeners:
    """Listening addresses of a server.

    Args:
        server: the server, before it starts.
        listen: comma-separated list of addresses.
        socket_mode: file mode of Unix sockets; write permission is needed to connect.
        leases_memory: if true, a lease socket is bound beside each Unix socket.
        credentials: returns the TLS credentials of a port; None for plaintext. Unix sockets never
            use TLS.

    Raises:
        OSError: an address cannot be bound; then none stays bound.

    Attributes:
        addresses: the addresses, with port 0 replaced by the actual port.
        lease_sockets: bound lease sockets, with the same file mode.
    """

    def __init__(
        self,
        server: grpc.Server,
        listen: str,
        socket_mode: int,
        *,
        leases_memory: bool,
        credentials: Callable[[], grpc.ServerCredentials] | None = None,
    ) -> None:
        self._files: list[tuple[Path, tuple[int, int] | None]] = []
        self._leases_memory = leases_memory
        self.lease_sockets: list[socket.socket] = []
        try:
            self.addresses = tuple(
                self._bind_socket(server, address, socket_mode)
                if is_unix(address)
                else f"{address.rpartition(':')[0]}:{_bind(server, address, credentials)}"
                for address in split_addresses(listen)
            )
        except OSError:
            self.remove_files()
            for listener in self.lease_sockets:
                listener.close()
            raise

    def remove_files(self) -> None:
        """Remove the files of Unix sockets, unless another server has replaced them."""
        for path, identity in self._files:
            if _identity(path) == identity:
                path.unlink(missing_ok=True)

    def _bind_socket(self, server: grpc.Server, address: str, mode: int) -> str:
        path = Path(address.removeprefix(_UNIX))
        try:
            path.parent.stat()
            _remove_stale_socket(path)
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
        with _file_mode(mode):
            _bind(server, address)
        self._files.append((path, _identity(path)))
        if self._leases_memory:
            self._bind_lease_socket(address, mode)
        return address

    def _bind_lease_socket(self, address: str, mode: int) -> None:
        path = Path(lease_socket_path(address) or "")
        if path.is_socket():
            path.unlink()  # left behind by an earlier server: its main socket was stale
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with _file_mode(mode):
                listener.bind(os.fspath(path))
        except OSError as error:
            listener.close()
            raise OSError(f"cannot lease memory at {path}: {error.strerror or error}") from None
        listener.listen()
        self.lease_sockets.append(listener)
        self._files.append((path, _identity(path)))


def _checked(address: str, name: str) -> str:
    host, _, port = address.rpartition(":")
    if address.startswith("unix-abstract:"):
        raise ValueError(
            f"{name} is {address!r}; abstract sockets are not supported, because any user could "
            "connect; it must be unix:/PATH"
        )
    if is_unix(address):
        path = address.removeprefix(_UNIX)
        if not path.startswith("/") or path.endswith("/"):
            raise ValueError(
                f"{name} is {address!r}; a Unix socket must be unix:/PATH, with an absolute path"
            )
        if len(os.fsencode(path)) > _MAX_PATH_BYTES:
            raise ValueError(
                f"{name} is {address!r}; the path of a Unix socket must have at most "
                f"{_MAX_PATH_BYTES} bytes"
            )
    elif not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(
            f"{name} is {address!r}; it must be HOST:PORT, with a port from 0 to 65535, "
            "or unix:/PATH"
        )
    return address


@contextmanager
def _file_mode(mode: int) -> Iterator[None]:
    """Create files with this mode from the start: a later chmod would leave a gap."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def _bind(
    server: grpc.Server,
    address: str,
    credentials: Callable[[], grpc.ServerCredentials] | None = None,
) -> int:
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials())
    except RuntimeError:
        port = 0
    if port == 0:
        if not is_unix(address):
            bound_socket(address, is_shared=False).close()  # raises the reason, unlike gRPC
        raise _unusable(address)
    return port


def _unusable(address: str, error: OSError | None = None) -> OSError:
    reason = (error and error.strerror) or "the address is invalid or in use"
    return OSError(f"cannot listen on {address}: {reason}")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns  # inode numbers are reused; the time tells them apart


def _remove_stale_socket(path: Path) -> None:
    """Remove the socket of a server that has exited; gRPC would also remove that of a live one."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError("a file that is not a socket already exists there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # a server listens, but is busy
    raise OSError("another server is listening there")
