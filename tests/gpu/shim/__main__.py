"""Compile all kernels for the host, so that no test has to wait for that."""

from __future__ import annotations

from pooling_engine.backends.cupy_backend.planning.kernels import all_kernels
from pooling_engine.backends.cupy_backend.planning.launches import Launch
from tests.gpu import shim

if __name__ == "__main__":
    shim.compile_all(Launch(*name, blocks=0, values=()) for name in all_kernels())
