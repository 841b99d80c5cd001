"""Shared memory between client and server: leases, and locations in regions."""
