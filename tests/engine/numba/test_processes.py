"""What a process of its own finds: no Numba, a cache that it made before, or none to write to."""

from __future__ import annotations

import os
import subprocess
import sys

LIMIT_S = 300  # a kernel is compiled on a machine that others use


def run(code, says="", **environment):
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=os.environ | environment,
    )
    assert (done.returncode, done.stderr) == (0, says)
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


def test_auto_is_numba_where_it_is_installed():
    assert run(FORWARD) == ["numba ('numba', 'numpy')", "[[[1.0, 3.0]]]"]


def test_auto_without_numba_is_numpy():
    assert run(WITHOUT + FORWARD) == ["numpy ('numpy',)", "[[[1.0, 3.0]]]"]


def test_numba_that_is_not_installed_is_refused_by_name():
    refusal = run(WITHOUT + FORWARD + REFUSED)[-1]
    assert refusal.startswith('backend - backend "numba" cannot be loaded: ')
    assert refusal.endswith('; available here: "auto", "numpy"')


def test_the_engine_imports_numba_when_a_backend_is_asked_for():
    imported = "print('numba' in sys.modules)\n"
    asked = "pooling_engine.backends.select_backend()\n"
    code = "import sys, pooling_engine\n" + imported + asked + imported
    assert run(code) == ["False", "True"]


def test_numba_is_left_as_it_was_configured():
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
from pooling_engine.backends.numba_backend.dispatch import scatter
x = np.arange(16.0).reshape(1, 1, 4, 4)
spec = PoolSpec("max", 2)
dy = np.ones((1, 1, 2, 2))
marks = np.full((1, 1, 2, 2), 3, np.uint8)
dx = pooling_engine.backward(dy, spec, input_shape=x.shape, indices=marks, backend="numba")
print(dx.sum(), sum(scatter.stats.cache_hits.values()), sum(scatter.stats.cache_misses.values()))
"""


def test_kernels_are_kept_on_disk(tmp_path):
    """Where NUMBA_CACHE_DIR says; the next process finds them."""
    first = run(COMPILE, NUMBA_CACHE_DIR=str(tmp_path))
    [kept] = tmp_path.glob("pooling-service/*/*/*.nbc")
    assert kept.name.startswith("max_min_scatter.scatter-")
    second = run(COMPILE, NUMBA_CACHE_DIR=str(tmp_path))
    assert (first, second) == (["4.0 0 1"], ["4.0 1 0"])


UNWRITABLE = """
import os, tempfile
def refuse(*_, **__):
    raise PermissionError("this file system is read-only")
os.makedirs = tempfile.TemporaryFile = refuse
"""


def test_nothing_breaks_where_nothing_can_be_written():
    says = "kernels are compiled anew by every process: this file system is read-only\n"
    assert run(UNWRITABLE + COMPILE, says) == ["4.0 0 1"]
