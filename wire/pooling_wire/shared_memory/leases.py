"""Leases of shared memory: what caller and server say beside gRPC, over a Unix socket.

The socket (SOCK_SEQPACKET) is the file of the server's own with `SUFFIX` behind it. Each packet
of the caller is one of two, told apart by their lengths:

- 8 bytes, an unsigned little-endian number: lease me a region of so many bytes. The answer is the
  region's handle, `HANDLE_BYTES`, with a file descriptor to map (SCM_RIGHTS); or 8 bytes, how
  many may still be leased, where that is too much.
- a handle: I give that region back. There is no answer.

A lease ends with the connection, so that a caller that is killed leaves nothing behind. Requests
name a region by its handle, which nobody can guess.
"""

from __future__ import annotations

SUFFIX = ".memory"
HANDLE_BYTES = 32
_SIZE_BYTES = 8
LONGEST_PACKET = HANDLE_BYTES + 1  # one byte more shows that a packet is too long


def lease_socket(address: str) -> str | None:
    """Where a server that listens on ``unix:/PATH`` leases memory; None for other addresses."""
    kind, colon, path = address.partition(":")
    return path + SUFFIX if kind == "unix" and colon and path.startswith("/") else None


def encode_size(size_bytes: int) -> bytes:
    """The packet that asks for a region, or says how much is left."""
    return size_bytes.to_bytes(_SIZE_BYTES, "little")


def decode_packet(packet: bytes) -> int | bytes | None:
    """A size, a handle, or None for what is neither."""
    if len(packet) == _SIZE_BYTES:
        return int.from_bytes(packet, "little")
    return packet if len(packet) == HANDLE_BYTES else None
