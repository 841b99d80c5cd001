"""Shared memory between client and server: locations in regions, and the lease protocol."""

from pooling_wire.shared_memory.leases import (
    HANDLE_BYTES,
    LEASE_SUFFIX,
    LONGEST_PACKET,
    decode_packet,
    encode_size,
    lease_socket_path,
)
from pooling_wire.shared_memory.places import (
    INDICES,
    INPUT_GRADIENT,
    NO_PLACES,
    NO_REGIONS,
    OUTPUT,
    Place,
    Placed,
    Places,
    Regions,
    array_at,
)

__all__ = [
    "HANDLE_BYTES",
    "INDICES",
    "INPUT_GRADIENT",
    "LEASE_SUFFIX",
    "LONGEST_PACKET",
    "NO_PLACES",
    "NO_REGIONS",
    "OUTPUT",
    "Place",
    "Placed",
    "Places",
    "Regions",
    "array_at",
    "decode_packet",
    "encode_size",
    "lease_socket_path",
]
