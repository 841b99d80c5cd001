"""The packages: what they export, what they import, and what they do without."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pooling_engine", "pooling_wire", "pooling_server", "pooling_client")
HEAVY = "{'torch', 'matplotlib', 'PIL', 'pytest', 'hypothesis'}"


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_what_the_package_defines(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    assert len(set(package.__all__)) == len(package.__all__)
    for export in package.__all__:
        assert getattr(package, export).__doc__ or isinstance(getattr(package, export), str)
    tree = ast.parse(Path(str(package.__file__)).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported <= set(package.__all__)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pooling_engine", "{'grpc', 'google', 'click'} | " + HEAVY),
        ("pooling_wire", HEAVY),
        ("pooling_client", "{'click', 'pooling_server'} | " + HEAVY),
        ("pooling_client.cli", "{'pooling_server'} | " + HEAVY),
        ("pooling_server", HEAVY),
    ],
)
def test_imports_only_what_it_needs(module: str, unwanted: str) -> None:
    assert imported_of(unwanted, module) == "[]\n"


def test_that_test_can_fail() -> None:
    assert imported_of(HEAVY, "matplotlib") == "['PIL', 'matplotlib']\n"


def imported_of(unwanted: str, module: str) -> str:
    """Which of the unwanted modules a fresh process has imported once it has imported `module`."""
    return run(f"import sys, {module}; print(sorted(({unwanted}) & set(sys.modules)))").stdout


def test_the_server_serves_without_health_and_reflection() -> None:
    """They are extras: where they are not installed the server says so and goes on."""
    done = run(
        "import sys\n"
        "sys.modules['grpc_health'] = sys.modules['grpc_reflection'] = None\n"
        "from pooling_server import PoolingServer, ServerConfig\n"
        "from pooling_client import PoolingClient\n"
        "server = PoolingServer(ServerConfig(listen='127.0.0.1:0'))\n"
        "server.start()\n"
        "with PoolingClient(server.address) as client:\n"
        "    print(client.info().backends[-1].name)\n"
        "assert server.stop()\n"
    )
    assert done.stdout == "numpy\n"
    assert "grpcio-health-checking is not installed" in done.stderr
    assert "grpcio-reflection is not installed" in done.stderr


def test_the_oldest_versions_are_those_that_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = project["dependencies"] + extras["server"][1:] + extras["bfloat16"]
    oldest = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    assert sorted(line.replace(">=", "==") for line in declared) == sorted(
        line for line in oldest if not line.startswith("#")
    )


def test_generated_code_says_which_toolchain_made_it() -> None:
    """The oldest, so that every later runtime takes it."""
    generated = ROOT / "protos/pooling_wire/v1"
    assert "GRPC_GENERATED_VERSION = '1.71.0'" in (generated / "pooling_pb2_grpc.py").read_text()
    assert "# Protobuf Python Version: 5.29.0" in (generated / "pooling_pb2.py").read_text()


def test_without_ml_dtypes_bfloat16_is_refused_by_name() -> None:
    done = run(
        "import sys\n"
        "sys.modules['ml_dtypes'] = None\n"
        "import pooling_engine, pooling_wire\n"
        "from pooling_wire.v1 import pooling_pb2 as pb\n"
        "tensor = pb.Tensor(element_type=pb.ELEMENT_TYPE_BFLOAT16, shape=(1, 1, 2))\n"
        "request = pb.ForwardRequest(input=tensor).SerializeToString()\n"
        "try:\n"
        "    pooling_wire.decode_forward_request(request)\n"
        "except pooling_engine.UnsupportedError as error:\n"
        "    print(error.field, '-', error)\n"
    )
    assert done.stdout == (
        "input.element_type - input.element_type is bfloat16, which needs ml_dtypes: "
        "pip install 'pooling-service[bfloat16]'\n"
    )
