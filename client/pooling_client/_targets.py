"""Targets of a client: checks of legal targets, and the proxy that gRPC uses for a target."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import urlsplit

from pooling_engine import InvalidSpecError

_LEGAL = "HOST:PORT or unix:/PATH, or a name such as dns:///NAME:PORT or ipv4:A:PORT,B:PORT"
_PATH_BYTES = 107  # of a Unix socket on Linux; 103 on macOS
_OTHER_SCHEMES = ("unix-abstract:", "vsock:", "xds:", "google-c2p:")
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # in the order of gRPC
_EXCEPTION_VARIABLES = ("no_grpc_proxy", "no_proxy")


def check_target(target: str) -> None:
    """Check the address of a server.

    Raises:
        InvalidSpecError: no server can be at this address.
    """
    fault = _fault(target)
    if fault:
        text = f"target is {target!r}: {fault}; it must be {_LEGAL}"
        raise InvalidSpecError(text, field="target")


def _fault(target: str) -> str:
    """Return what is wrong with a target, or an empty text."""
    if not isinstance(target, str) or not target:
        return "not an address"
    if target != target.strip() or any(char.isspace() for char in target):
        return "it contains white space"
    if target.startswith("unix:"):
        return _socket_fault(target.removeprefix("unix:").removeprefix("//"))
    if target.startswith(_OTHER_SCHEMES):
        return ""
    if target.startswith("dns:"):
        name = target.removeprefix("dns:")
        return _host_fault(name.removeprefix("//").partition("/")[2] if "/" in name else name)
    for version, scheme in ((4, "ipv4:"), (6, "ipv6:")):
        if target.startswith(scheme):
            addresses = target.removeprefix(scheme).lstrip("/").split(",")
            return next(filter(None, (_address_fault(each, version) for each in addresses)), "")
    if "/" in target:
        return "a path or web address"
    if "," in target:
        return "a list of addresses begins with ipv4: or ipv6:"
    return _host_fault(target)


def _socket_fault(path: str) -> str:
    if not hasattr(socket, "AF_UNIX"):
        return "this system has no Unix sockets"
    if not path:
        return "the path is missing"
    size = len(os.fsencode(path))
    return f"the path has {size} bytes, of at most {_PATH_BYTES}" if size > _PATH_BYTES else ""


def _host_fault(address: str) -> str:
    host, port = split_address(address)
    if not host:
        return "the host is missing"
    if ":" in host and not address.startswith("["):
        return "an IPv6 address stands in brackets, as in [::1]:50051"
    if address.startswith("[") and _address_fault(address, 6):
        return _address_fault(address, 6)
    if not re.fullmatch(r"[\w.:%-]+", host):
        return f"{host!r} is not a host name"
    return _port_fault(port)


def _address_fault(address: str, version: int) -> str:
    host, port = split_address(address)
    try:
        is_legal = ipaddress.ip_address(host.partition("%")[0]).version == version
    except ValueError:
        is_legal = False
    return _port_fault(port) if is_legal else f"{host!r} is not an IPv{version} address"


def _port_fault(port: str) -> str:
    if not port:
        return "the port is missing"
    is_legal = port.isascii() and port.isdigit() and 1 <= int(port) <= 65535
    return "" if is_legal else f"the port is {port!r}, not a number from 1 to 65535"


def split_address(address: str) -> tuple[str, str]:
    """Return the host, without brackets, and the port of ``HOST:PORT``; empty if missing."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        return host, port.removeprefix(":")
    host, colon, port = address.rpartition(":")
    return (host, port) if colon else (address, "")


def hosts_of(target: str) -> list[str]:
    """Return the hosts of a target, without ports; none for a Unix socket."""
    if target.startswith(("unix:", *_OTHER_SCHEMES)):
        return []
    rest = re.sub(r"^(dns:(//[^/]*/)?|ipv[46]:/*)", "", target)
    return [split_address(address)[0] for address in rest.split(",")]


def is_local(target: str) -> bool:
    """Return whether every host of a target is this machine, by its name or address."""
    return all(map(_is_loopback, hosts_of(target)))


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def described(target: str) -> str:
    """Return a target for messages, with the proxy that gRPC uses for it."""
    found = _proxy_of(target)
    return f"{target} (through the proxy {found})" if found else target


def _proxy_of(target: str) -> str:
    """Return the proxy of a target without its password, and its variable; empty for none."""
    if is_local(target):
        return ""
    variable = next(filter(os.environ.get, _PROXY_VARIABLES), None)
    if variable is None:
        return ""
    exceptions = next(filter(None, map(os.environ.get, _EXCEPTION_VARIABLES)), "")
    host = hosts_of(target)[0]
    if any(_excludes(entry.strip(), host) for entry in exceptions.split(",") if entry.strip()):
        return ""
    address = urlsplit(os.environ[variable])
    return f"{address.hostname}:{address.port} of {variable}" if address.hostname else ""


def _excludes(entry: str, host: str) -> bool:
    """Return whether an entry of no_proxy names a host: a suffix, or a range of addresses."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.lower().endswith(entry.lower())
