"""One worker per CUDA device: legal values of `--devices`, and the device each worker sees."""

from __future__ import annotations

import os
import subprocess

import pytest

from pooling_server import ServerConfig
from pooling_server.processes.devices import environment_for, split_devices
from pooling_server.processes.supervisor import worker_configs
from tests.support.processes import SERVE
from tests.support.waiting import LIMIT_S

UUID = "GPU-0a1b2c3d-0000-1111-2222-333344445555"


@pytest.mark.parametrize(
    ("text", "devices"),
    [("", []), ("0", ["0"]), ("3, 1", ["3", "1"]), (f"0,{UUID}", ["0", UUID]), ("00", ["0"])],
)
def test_devices_are_numbers_or_uuids(text: str, devices: list[str]) -> None:
    assert split_devices(text) == devices


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"devices": "0,1,0"}, "devices is '0,1,0'; 0 is listed twice"),
        ({"devices": "1,01"}, "devices is '1,01'; 1 is listed twice"),
        ({"devices": "0,"}, "devices is '0,'; it must be a comma-separated list of CUDA device"),
        ({"devices": "-1"}, "devices is '-1'; it must be a comma-separated list"),
        ({"devices": "all"}, "devices is 'all'; it must be a comma-separated list"),
        (
            {"devices": "0,1", "workers": 2},
            "devices is '0,1' and workers is 2; each device has exactly one",
        ),
        (
            {"devices": "0", "backend": "numpy"},
            "devices is '0' and backend is 'numpy'; with devices",
        ),
        ({"devices": "0", "backend": "numba"}, 'backend must be "cupy" or omitted'),
        ({"devices": "0,1", "listen": "unix:/a"}, "devices is 0,1, but a Unix socket cannot be"),
    ],
)
def test_invalid_combinations_are_rejected(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match="devices is ") as caught:
        ServerConfig(**options)  # type: ignore[arg-type]
    assert text in str(caught.value)


def test_one_device_may_listen_on_a_unix_socket_only() -> None:
    ServerConfig(devices="1", listen="unix:/a")


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("1", None, "1"),
        ("1", "4,6", "6"),  # numbers count the devices that this process sees
        ("0", f"{UUID},2", UUID),
        (UUID, "4,6", UUID),
    ],
)
def test_a_worker_sees_one_device(device: str, visible: str | None, expected: str) -> None:
    environment = {"HOME": "/"} | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    own = {"HOME": "/", "CUDA_VISIBLE_DEVICES": expected}
    assert environment_for(device, environment) == own


def test_each_worker_gets_one_device() -> None:
    config = ServerConfig(devices="2,0,5", threads=4)
    shares = worker_configs(config, ["127.0.0.1:1", "unix:/a"])
    assert [share.devices for share in shares] == ["2", "0", "5"]
    assert [share.threads for share in shares] == [2, 1, 1]
    assert {(share.backend, share.workers) for share in shares} == {("cupy", 1)}
    assert [share.listen for share in shares] == ["127.0.0.1:1,unix:/a", *["127.0.0.1:1"] * 2]


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--devices", "0,0"], 2, "Error: devices is '0,0'; 0 is listed twice"),
        (
            ["--devices", "0,2"],
            1,
            "error: devices includes 2, but CUDA_VISIBLE_DEVICES is '4,6'; "
            "device numbers must be below 2",
        ),
    ],
)
def test_invalid_devices_are_reported_in_one_line(flags: list[str], code: int, text: str) -> None:
    done = subprocess.run(
        [*SERVE, *flags],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "4,6"},
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1] == text
