"""A client that sends large tensors uses the memory of their pieces again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# How many blocks of 8 MiB, once the first piece of a call is made, come straight from the system.
PROGRAM = """
import ctypes
import numpy as np
from pooling_client._calls import jobs as _jobs
from pooling_client._calls.forward_job import ForwardJob
from pooling_client._limits import ANY
from pooling_engine import PoolSpec

class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo
_jobs.SLAB_BYTES = 1 << 10
job = ForwardJob(np.zeros((4, 1, 32, 32), np.float32), PoolSpec("max", 2), False, "window")
next(job.requests(ANY))
before = mallinfo().hblks
blocks = [np.empty(8 << 20, np.uint8) for _ in range(3)]
print(mallinfo().hblks - before)
"""


@pytest.mark.parametrize(
    ("env", "from_the_system"), [({}, "0"), ({"MALLOC_MMAP_THRESHOLD_": f"{1 << 20}"}, "3")]
)
def test_pieces_use_memory_again_unless_the_environment_says_no(
    env: dict[str, str], from_the_system: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | env, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == (from_the_system, "")
