"""The code in docs/jax.md runs, in order, in one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pooling_server import PoolingServer

PAGE = Path(__file__).parents[2] / "docs/jax.md"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_code_of_the_page_runs(server: PoolingServer, tmp_path: Path) -> None:
    code = "\n".join(PYTHON.findall(PAGE.read_text()))
    script = tmp_path / "page.py"
    script.write_text(code.replace("127.0.0.1:50051", server.address))
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"POOLING_TARGET": server.address},  # for calls without a server
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    printed = re.findall(r"print\(.*\)  # (.*)", code)
    assert len(printed) == 4
    assert lines[:4] == printed
    wrong = "InvalidSpecError window_shape[0] is 0; it must be an integer from 1 to 2147483647"
    assert wrong in lines
    assert "TypeError window_shape must be a sequence of integers, not 2" in lines
    assert any(line.startswith("InvalidTensorError inputs has the shape") for line in lines)
    assert lines[-1].startswith("UnavailableError: no server answers at 127.0.0.1:1 ")
