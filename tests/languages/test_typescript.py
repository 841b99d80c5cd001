"""The TypeScript client: generated code, tests on Node, and the package of `npm pack`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.http.support import serving
from tests.support.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "client/typescript"
PROTOS = ("pooling/v1/pooling.proto", "status.proto")


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if shutil.which("node") is None:
        pytest.fail("node is not installed; the tests need Node 20 or later")
    if not (FOLDER / "node_modules/typescript").is_dir():
        pytest.fail("packages are not installed: make test, or npm ci in client/typescript")


def run(*command: str, **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=FOLDER,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    plugin = FOLDER / "node_modules/.bin/protoc-gen-es"
    run(
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}/protos", f"-I{ROOT}/client/node"),
        *(f"--plugin=protoc-gen-es={plugin}", f"--es_out={tmp_path}"),
        *("--es_opt=target=ts,import_extension=js", *PROTOS),
    )
    for proto in PROTOS:
        name = proto.replace(".proto", "_pb.ts")
        generated = (tmp_path / name).read_text()
        assert (FOLDER / "src/gen" / name).read_text() == generated, "run: npm run generate"


def test_the_client_on_node() -> None:
    run("npm", "run", "build", "--silent")
    tests = sorted(str(path) for path in (FOLDER / "test").glob("*.test.js"))
    with serving() as server:
        addresses = {"POOLING_TARGET": server.address, "POOLING_HTTP": server.http_address}
        output = run("node", "--test", *tests, **addresses)
    assert "# pass 45\n" in output, "a test did not run"


def test_the_package_has_the_client_and_its_types() -> None:
    (package,) = json.loads(run("npm", "pack", "--dry-run", "--json"))
    files = {entry["path"] for entry in package["files"]}
    assert {"README.md", "dist/index.js", "dist/index.d.ts"} <= files
    assert not {name for name in files if name.startswith(("src", "test"))}
