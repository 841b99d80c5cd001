"""Threads and processor cores that the engine uses."""
