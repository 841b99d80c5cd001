"""Packages: exports, imports, and optional dependencies."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pooling_engine", "pooling_wire", "pooling_server", "pooling_client")
ENGINE_FACES = tuple(
    f"pooling_engine.{name}" for name in ("backends", "calls", "plans", "runtime", "specs")
)
HEAVY = "{'torch', 'jax', 'keras', 'matplotlib', 'PIL', 'pytest', 'hypothesis'}"


@pytest.mark.parametrize(
    "name", [*PACKAGES, *ENGINE_FACES, "pooling_client.torch", "pooling_client.jax"]
)
def test_all_lists_every_export(name: str) -> None:
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
        ("pooling_cli.main", "{'pooling_server'} | " + HEAVY),
        ("pooling_server", HEAVY),
    ],
)
def test_package_imports_nothing_heavy(module: str, unwanted: str) -> None:
    assert imported_of(unwanted, module) == "[]\n"


def test_heavy_imports_are_detected() -> None:
    assert imported_of(HEAVY, "matplotlib") == "['PIL', 'matplotlib']\n"


def imported_of(unwanted: str, module: str) -> str:
    """Return the unwanted modules that importing `module` loads in a fresh process."""
    return run(f"import sys, {module}; print(sorted(({unwanted}) & set(sys.modules)))").stdout


SERVES = """
import numpy as np
from pooling_client import PoolingClient
from pooling_engine import InvalidTensorError, PoolSpec
from pooling_server import PoolingServer, ServerConfig

x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
server = PoolingServer(ServerConfig(listen="127.0.0.1:0"))
server.start()
with PoolingClient(server.address, shared_streams=False) as client:
    print(client.info().version, client.forward(x, PoolSpec("max", 2)).output.tolist())
    try:
        client.forward(x * np.nan, PoolSpec("max", 2, nan_policy="error"))
    except InvalidTensorError as error:
        print(str(error).partition(' ')[2])
assert server.stop()
"""
NEEDED = ("numpy", "numpy.libs", "grpc", "typing_extensions.py", "google/protobuf", "google/_upb")


@pytest.fixture
def bare(tmp_path: Path) -> list[str]:
    """Return a Python with grpcio, protobuf, NumPy and this source tree only."""
    for name in NEEDED:
        there = Path(str(importlib.metadata.distribution("grpcio").locate_file(name)))
        if there.exists():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).symlink_to(there)
    sources = [str(ROOT / folder) for folder in ("", "wire", "server", "client")]
    path = f"import sys; sys.path += {[str(tmp_path), *sources]}"
    return [sys.executable, "-I", "-S", "-c", path + "\n"]


def run_bare(bare: list[str], code: str) -> subprocess.CompletedProcess[str]:
    *command, path = bare
    return subprocess.run(
        [*command, path + code], capture_output=True, text=True, timeout=60, check=False
    )


def test_client_and_server_run_with_grpcio_protobuf_and_numpy(bare: list[str]) -> None:
    done = run_bare(bare, SERVES)
    assert done.stdout == (
        "from source [[[[5.0, 7.0], [13.0, 15.0]]]]\n"
        "rejected the call (INVALID_ARGUMENT: input has a NaN in a window; "
        'nan_policy "error" rejects it)\n'
    )
    assert "grpcio-health-checking is not installed" in done.stderr
    assert "grpcio-reflection is not installed" in done.stderr


def test_missing_click_is_reported_in_one_line(bare: list[str]) -> None:
    for module in ("pooling_server.__main__", "pooling_server.healthcheck"):
        done = run_bare(bare, f"import {module}")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: "), done.stderr
        assert "click" in done.stderr


def test_lowest_constraints_match_the_declared_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = project["dependencies"] + extras["server"][1:] + extras["bfloat16"]
    declared += [line for line in extras["test"] if line.startswith("grpcio-tools")]
    oldest = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    assert sorted(line.replace(">=", "==") for line in declared) == sorted(
        line for line in oldest if not line.startswith("#")
    )


def test_generated_code_names_the_oldest_toolchain() -> None:
    """Newer runtimes accept code of older generators, not the reverse."""
    generated = ROOT / "wire/pooling_wire/v1"
    assert "GRPC_GENERATED_VERSION = '1.71.0'" in (generated / "pooling_pb2_grpc.py").read_text()
    assert "# Protobuf Python Version: 5.29.0" in (generated / "pooling_pb2.py").read_text()


def test_server_info_without_ml_dtypes_leaves_out_bfloat16() -> None:
    done = run(
        "import sys\n"
        "sys.modules['ml_dtypes'] = None\n"
        "import pooling_wire\n"
        "from pooling_wire.v1 import pooling_pb2 as pb\n"
        "types = [pb.ELEMENT_TYPE_BFLOAT16, pb.ELEMENT_TYPE_FLOAT32]\n"
        "response = pb.GetServerInfoResponse(backends=[pb.Backend(element_types=types)])\n"
        "info = pooling_wire.decode_server_info(response.SerializeToString())\n"
        "print(*info.backends[0].dtypes)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "float32\n"


def test_bfloat16_without_ml_dtypes_is_rejected_by_name() -> None:
    done = run(
        "import sys\n"
        "sys.modules['ml_dtypes'] = None\n"
        "import pooling_engine, pooling_wire\n"
        "from pooling_wire.v1 import pooling_pb2 as pb\n"
        "tensor = pb.Tensor(element_type=pb.ELEMENT_TYPE_BFLOAT16, shape=(1, 1, 2))\n"
        "request = pb.ForwardRequest(input=tensor).SerializeToString()\n"
        "try:\n"
        "    pooling_wire.FORWARD.decode_request(request)\n"
        "except pooling_engine.UnsupportedError as error:\n"
        "    print(error.field, '-', error)\n"
        "from pooling_engine.backends.cupy_backend.planning.kernels import all_kernels\n"
        "assert all(file.endswith('.cu') for file, _ in all_kernels())\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "input.element_type - input.element_type is bfloat16, which needs ml_dtypes: "
        "pip install 'pooling-service[bfloat16]'\n"
    )
