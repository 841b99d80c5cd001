"""The example in the README of the kernel language runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pooling_engine.backends.numba_backend import language

pytestmark = pytest.mark.once  # every test names its backend

LIMIT_S = 300  # includes the compilation of small kernels on a busy machine
README = Path(language.__file__).with_name("README.md")


def test_the_example_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 3
    assert all("assert output.tolist()" in block for block in blocks)
    example = tmp_path / "example.py"
    example.write_text("\n".join(blocks), "utf-8")
    done = subprocess.run(
        [sys.executable, example],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
