"""Worker processes: data loaders, forks, and data-parallel training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADER = """
import sys
import torch
from torch.utils.data import DataLoader, Dataset
from pooling_client.torch import functional

class Pooled(Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, number):
        return functional.max_pool2d(torch.full((1, 4, 4), float(number)), 2)

if __name__ == "__main__":
    method, workers = sys.argv[1:]
    Pooled()[0]  # so that a connection is open
    loader = DataLoader(Pooled(), 2, num_workers=int(workers), multiprocessing_context=method)
    print(torch.cat(list(loader)).amax((1, 2, 3)).tolist(), Pooled()[1].shape)
"""
LOADED = "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0] torch.Size([1, 2, 2])\n"

DATA_PARALLEL = """
import sys
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from pooling_client.torch import AvgPool2d, MaxPool2d

def model():
    torch.manual_seed(0)
    features = [nn.Conv2d(1, 4, 3), MaxPool2d(2), nn.ReLU(), AvgPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(16, 2))

def data(rank):
    return torch.randn(8, 1, 10, 10, generator=torch.Generator().manual_seed(rank))

def train(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    net = DistributedDataParallel(model())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(data(rank)).square().mean().backward()
        optimizer.step()
    if rank == 0:
        torch.save(net.module.state_dict(), f"{folder}/weights")
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(train, (sys.argv[1],), nprocs=2)
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.cat([data(0), data(1)])).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(torch.load(f"{sys.argv[1]}/weights"), dict(net.state_dict()))
    print("equal")
"""


def run(
    folder: Path, code: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, "-W", "ignore", script, *arguments],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.usefixtures("address")
def test_forked_workers_open_their_own_connections(tmp_path: Path) -> None:
    done = run(tmp_path, LOADER, "fork", "2", GRPC_ENABLE_FORK_SUPPORT="1")
    assert done.stdout == LOADED, done.stderr


@pytest.mark.usefixtures("address")
def test_spawned_workers(tmp_path: Path) -> None:
    done = run(tmp_path, LOADER, "spawn", "1")
    assert done.stdout == LOADED, done.stderr


@pytest.mark.usefixtures("address")
def test_a_fork_without_support_of_grpc_is_an_error(tmp_path: Path) -> None:
    """Without this error, the call would hang: gRPC's threads do not exist in the child."""
    done = run(tmp_path, LOADER, "fork", "2", GRPC_ENABLE_FORK_SUPPORT="0")
    assert "RuntimeError: the parent of this process called a server" in done.stderr
    assert "GRPC_ENABLE_FORK_SUPPORT=1" in done.stderr


@pytest.mark.usefixtures("address")
def test_data_parallel_training_equals_one_process(tmp_path: Path) -> None:
    done = run(tmp_path, DATA_PARALLEL, str(tmp_path))
    assert done.stdout == "equal\n", done.stderr
