"""Protocol of the lease socket, through which a client leases regions of shared memory.

The socket (SOCK_SEQPACKET) is a file beside the server's Unix socket; its name ends with
`LEASE_SUFFIX` in addition. A client sends two kinds of packets, which differ in length:

- 8 bytes, an unsigned little-endian number: a request for a region of that size. The reply is the
  region's handle (`HANDLE_BYTES`) with a file descriptor to map (SCM_RIGHTS). If the region would
  exceed the limit, the reply is 8 bytes: how many bytes may still be leased.
- a handle: the client returns that region. There is no reply.

All leases end with the connection, so a killed client leaves nothing behind. Requests name a region
by its handle, which is random and cannot be guessed.
"""

from __future__ import annotations

LEASE_SUFFIX = ".memory"
HANDLE_BYTES = 32
_SIZE_BYTES = 8
LONGEST_PACKET = HANDLE_BYTES + 1  # the extra byte shows that a packet is too long


def lease_socket_path(address: str) -> str | None:
    """Return the path of the lease socket of ``unix:/PATH``; None for other addresses."""
    kind, colon, path = address.partition(":")
    return path + LEASE_SUFFIX if kind == "unix" and colon and path.startswith("/") else None


def encode_size(size_bytes: int) -> bytes:
    """Return the packet that requests a region, or says how much may still be leased."""
    return size_bytes.to_bytes(_SIZE_BYTES, "little")


def decode_packet(packet: bytes) -> int | bytes | None:
    """Return the size or the handle in a packet; None for an invalid packet."""
    if len(packet) == _SIZE_BYTES:
        return int.from_bytes(packet, "little")
    return packet if len(packet) == HANDLE_BYTES else None
