"""Stubs that a user generates from the published .proto share one process with our client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pooling_server import PoolingServer
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support.waiting import LIMIT_S

PROTOS = Path(__file__).parents[2] / "protos"
OURS = "from pooling_client import PoolingClient; from pooling_engine import PoolSpec"
THEIRS = "from pooling.v1 import pooling_pb2, pooling_pb2_grpc"
CALLS = """
import sys, grpc, numpy as np

x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
axes = [pooling_pb2.Window(kernel=2)] * 2
request = pooling_pb2.ForwardRequest(
    spec=pooling_pb2.PoolSpec(
        mode=pooling_pb2.MODE_MAX, sliding_windows=pooling_pb2.SlidingWindows(axes=axes)
    ),
    input=pooling_pb2.Tensor(
        element_type=pooling_pb2.ELEMENT_TYPE_FLOAT32, shape=x.shape, data=x.tobytes()
    ),
)
with grpc.insecure_channel(sys.argv[1]) as channel:
    reply = pooling_pb2_grpc.PoolingServiceStub(channel).Forward(request)
print(*np.frombuffer(reply.output.data, np.float32))
with PoolingClient(sys.argv[1]) as client:
    print(*client.forward(x, PoolSpec("max", 2)).output.ravel())
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stubs, generated as in the instructions for users."""
    folder = tmp_path_factory.mktemp("stubs")
    command = ["-m", "grpc_tools.protoc", f"-I{PROTOS}", "--python_out=.", "--grpc_python_out=."]
    subprocess.run(
        [sys.executable, *command, "pooling/v1/pooling.proto"],
        cwd=folder,
        check=True,
        timeout=LIMIT_S,
    )
    return folder


@pytest.mark.parametrize("imports", [(OURS, THEIRS), (THEIRS, OURS)], ids=["ours", "theirs"])
def test_both_clients_call_from_one_process(
    imports: tuple[str, str], stubs: Path, server: PoolingServer
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join((*imports, CALLS)), server.address],
        env=os.environ | {"PYTHONPATH": str(stubs)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "5.0 7.0 13.0 15.0\n" * 2


def test_the_descriptor_has_the_published_file_name() -> None:
    assert pb.DESCRIPTOR.name == "pooling/v1/pooling.proto"
    assert (PROTOS / pb.DESCRIPTOR.name).is_file()
