"""The code in docs/pytorch.md runs, in order, in one program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from pooling_server import PoolingServer

PAGE = Path(__file__).parents[2] / "docs/pytorch.md"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_code_of_the_page_runs(server: PoolingServer, tmp_path: Path) -> None:
    code = "\n".join(PYTHON.findall(PAGE.read_text()))
    script = tmp_path / "page.py"
    script.write_text(code.replace("127.0.0.1:50051", server.address))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    printed = re.findall(r"print\(.*\)  # (.*)", code)
    assert [line for line in lines if line.startswith("torch.Size")] == printed
    assert "2 pooling modules swapped, 1 left alone" in lines
    assert (
        "InvalidOptionError kernel_size[0] is 0; it must be an integer from 1 to 2147483647"
        in lines
    )
    assert "TypeError kernel_size must be an integer, not '2'" in lines
    assert any(line.startswith("InvalidInputError input has 2 axes") for line in lines)
    assert "127.0.0.1:1" in lines[-1]
