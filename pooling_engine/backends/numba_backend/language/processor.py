"""Features of the processor for which kernels are compiled."""

from __future__ import annotations

from llvmlite import binding
from numba import config


def compresses_in_registers() -> bool:
    """Return whether one instruction moves chosen lanes of a vector together (AVX-512)."""
    features = config.CPU_FEATURES  # None: those of this processor
    if features is None:
        return bool(binding.get_host_cpu_features().get("avx512f"))
    return "+avx512f" in features
