"""Listening sockets, and the sockets that lease shared memory."""
