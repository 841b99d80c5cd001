"""Threads and processor cores that the engine uses."""

from pooling_engine.runtime.cores import usable_cores
from pooling_engine.runtime.threads import run_range, set_thread_count, thread_count

__all__ = ["run_range", "set_thread_count", "thread_count", "usable_cores"]
