"""New processes: without Numba, with a filled cache of kernels, and without a writable one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once  # every test names its backend

LIMIT_S = 300  # includes the compilation of a kernel on a busy machine


def run(code, logs="", **environment):
    """Return the lines that a new process prints.

    Args:
        logs: what it is expected to write to standard error.
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=os.environ | environment,
    )
    assert (done.returncode, done.stderr) == (0, logs)
    return done.stdout.splitlines()


WITHOUT = "import sys; sys.modules['numba'] = None\n"

FORWARD = """
import numpy as np, pooling_engine
from pooling_engine import PoolSpec
from pooling_engine.backends import available_backends, select_backend
print(select_backend().name, available_backends())
print(pooling_engine.forward(np.arange(4.0).reshape(1, 1, 4), PoolSpec("max", 2)).output.tolist())
"""

REFUSED = """
try:
    pooling_engine.forward(np.zeros((1, 1, 4)), PoolSpec("max", 2), backend="numba")
except pooling_engine.InvalidSpecError as error:
    print(error.field, "-", error)
"""


def test_auto_selects_numba_if_it_is_installed():
    assert run(FORWARD) == ["numba ('numba', 'numpy')", "[[[1.0, 3.0]]]"]


def test_auto_selects_numpy_without_numba():
    assert run(WITHOUT + FORWARD) == ["numpy ('numpy',)", "[[[1.0, 3.0]]]"]


def test_the_backend_numba_is_rejected_if_numba_is_not_installed():
    refusal = run(WITHOUT + FORWARD + REFUSED)[-1]
    assert refusal.startswith('backend - backend "numba" cannot be loaded: ')
    assert refusal.endswith('; available here: "auto", "numpy"')


def test_numba_is_imported_when_a_backend_is_selected():
    imported = "print('numba' in sys.modules)\n"
    asked = "pooling_engine.backends.select_backend()\n"
    code = "import sys, pooling_engine\n" + imported + asked + imported
    assert run(code) == ["False", "True"]


def test_the_configuration_of_numba_is_restored():
    code = (
        "import numba\n"
        "numba.config.CACHE_DIR = 'mine'\n"
        "import pooling_engine.backends.numba_backend.backend\n"
        "print(numba.config.CACHE_DIR)\n"
    )
    assert run(code) == ["mine"]


COMPILE = """
import numpy as np, pooling_engine
from pooling_engine import PoolSpec
from pooling_engine.backends.numba_backend.dispatch import scatter_gradients
x = np.arange(16.0).reshape(1, 1, 4, 4)
spec = PoolSpec("max", 2)
dy = np.ones((1, 1, 2, 2))
indices = np.full((1, 1, 2, 2), 3, np.uint8)
dx = pooling_engine.backward(dy, spec, input_shape=x.shape, indices=indices, backend="numba")
stats = scatter_gradients.stats
print(dx.sum(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_kernels_are_cached_in_numba_cache_dir(tmp_path):
    first = run(COMPILE, NUMBA_CACHE_DIR=str(tmp_path))
    [cached] = tmp_path.glob("pooling-service/*/*/*.nbc")
    assert cached.name.startswith("max_min_scatter.scatter_gradients-")
    second = run(COMPILE, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first, second) == (["4.0 0 1"], ["4.0 1 0"])


UNWRITABLE = """
import os, tempfile
def refuse(*_, **__):
    raise PermissionError("this file system is read-only")
os.makedirs = tempfile.TemporaryFile = refuse
"""


def test_kernels_compile_without_a_writable_cache():
    logs = (
        "compiled kernels cannot be cached, so every process compiles: "
        "this file system is read-only\n"
    )
    assert run(UNWRITABLE + COMPILE, logs) == ["4.0 0 1"]
