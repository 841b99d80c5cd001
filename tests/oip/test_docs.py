"""The `curl` lines of the README and of the page about the protocol, against a server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.http.support import serving

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/open-inference-protocol.md"])
def test_the_curl_line_pools(page: str) -> None:
    text = (ROOT / page).read_text()
    line = re.search(r"curl -s 127\.0\.0\.1:8080/v2.*?\}'\n", text, re.DOTALL)
    assert line is not None
    with serving() as server:
        command = line[0].replace("127.0.0.1:8080", server.http_address)
        done = subprocess.run(command, shell=True, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout)["outputs"][0]["data"] == [5, 7]
