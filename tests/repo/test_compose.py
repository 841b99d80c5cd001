"""docker-compose.yml and server/Dockerfile: services, stages, health checks, users, volumes."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pooling_server import PoolingServer, ServerConfig
from pooling_server.__main__ import _option

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"server": "cpu", "server-gpu": "cuda", "server-local": "cpu"}
VOLUMES = {"server": "kernels", "server-gpu": "kernels-gpu", "server-local": "kernels"}
EVERYTHING = ("--profile", "gpu", "--profile", "local")
SOCKETS = "/run/pooling"
HEALTH_MODULE = "pooling_server.healthcheck"

Steps = list[tuple[str, str]]


@cache
def compose(*options: str) -> dict[str, Any]:
    """Parse docker-compose.yml with podman-compose; with --dry-run it needs no podman."""
    command = [sys.executable, "-m", "podman_compose", "--dry-run", "-f", "docker-compose.yml"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    done = subprocess.run(
        [*command, *options, "config"],
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    parsed: dict[str, Any] = yaml.safe_load(done.stdout)
    return parsed


def services(*options: str) -> dict[str, dict[str, Any]]:
    return dict(compose(*options)["services"])


@cache
def stages() -> dict[str, Steps]:
    """Read the Dockerfile: stage name -> [(instruction, arguments)], FROM first."""
    text = (ROOT / "server/Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    found: dict[str, Steps] = {}
    steps: Steps = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        instruction, arguments = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = arguments.split()
            steps = found[name] = [("FROM", base)]
        else:
            steps.append((instruction, arguments))
    return found


def inherited(target: str) -> Steps:
    """Return the steps of a target's image, those of its base stages first."""
    steps = stages()[target]
    base = steps[0][1]
    return (inherited(base) if base in stages() else []) + steps


def last(steps: Steps, instruction: str) -> str:
    return [arguments for name, arguments in steps if name == instruction][-1]


def test_up_starts_only_the_cpu_server() -> None:
    assert set(services()) == {"server"}


def test_gpu_profile_adds_the_gpu_server_with_one_nvidia_device() -> None:
    everything = services("--profile", "gpu")
    assert set(everything) == {"server", "server-gpu"}
    devices = everything["server-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert "deploy" not in everything["server"]


def test_published_ports() -> None:
    published = {name: service["ports"] for name, service in services("--profile", "gpu").items()}
    assert published == {
        "server": ["127.0.0.1:50051:50051"],
        "server-gpu": ["127.0.0.1:50052:50051"],
    }


@pytest.mark.parametrize("name", TARGETS)
def test_service_is_locked_down_and_has_time_to_drain(name: str) -> None:
    service = services(*EVERYTHING)[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    config = ServerConfig()
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_s > config.drain_delay_s + config.grace_s


@pytest.mark.parametrize("name", TARGETS)
def test_service_is_built_from_its_stage(name: str) -> None:
    build = services(*EVERYTHING)[name]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).samefile(ROOT / "server/Dockerfile")
    assert build["target"] == TARGETS[name]
    assert build["target"] in stages()


@pytest.mark.parametrize("name", TARGETS)
def test_health_is_checked_by_the_health_module(name: str) -> None:
    image = last(stages()[TARGETS[name]], "HEALTHCHECK").partition("CMD ")[2]
    assert json.loads(image) == ["python", "-m", HEALTH_MODULE]
    service = services(*EVERYTHING)[name]
    assert service["healthcheck"]["test"] == ["CMD", *json.loads(image)]
    assert find_spec(HEALTH_MODULE) is not None


@pytest.mark.parametrize("name", TARGETS)
def test_health_check_options_agree_and_allow_a_first_start(name: str) -> None:
    image = last(stages()[TARGETS[name]], "HEALTHCHECK").partition("CMD ")[0]
    service = services(*EVERYTHING)[name]["healthcheck"]
    for key in ("interval", "timeout", "start_period", "retries"):
        assert f"--{key.replace('_', '-')}={service[key]} " in image
    assert int(service["start_period"].removesuffix("s")) >= 90


@pytest.mark.parametrize("name", TARGETS)
def test_kernel_cache_is_a_volume_owned_by_the_user(name: str) -> None:
    """The root is read-only; a new volume takes the owner of the folder."""
    source, folder = services(*EVERYTHING)[name]["volumes"][0].split(":")
    assert source == VOLUMES[name]
    assert source in compose(*EVERYTHING)["volumes"]
    steps = stages()[TARGETS[name]]
    assert f"NUMBA_CACHE_DIR={folder}" in last(steps, "ENV").split()
    user, group = last(steps, "USER").split(":")
    made = ("RUN", f"install --directory --owner={user} --group={group} {folder}")
    assert made in steps
    assert steps.index(made) < [step for step, _ in steps].index("USER")


@cache
def local() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the server and the client that share memory."""
    found = services("--profile", "local")
    assert set(found) == {"server", "server-local", "client-local"}
    return found["server-local"], found["client-local"]


def test_local_server_listens_on_the_shared_volume() -> None:
    server, client = local()
    command = click.Command("serve", params=[_option(field) for field in fields(ServerConfig)])
    options = command.make_context("serve", list(server["command"])).params
    config = ServerConfig(**options)
    exposed = last(stages()["cpu"], "EXPOSE")
    assert config.listen == f"0.0.0.0:{exposed},unix:{SOCKETS}/sock"
    assert config.workers == 2
    for service in (server, client):
        assert f"sockets:{SOCKETS}" in service["volumes"]
    assert "sockets" in compose("--profile", "local")["volumes"]
    user, group = last(stages()["cpu"], "USER").split(":")
    made = f"install --directory --owner={user} --group={group} {SOCKETS}"
    assert ("RUN", made) in stages()["cpu"]
    other_user, same_group = client["user"].split(":")
    assert other_user not in (user, "0")
    assert (same_group, config.socket_mode) == (group, "660")


def test_local_client_needs_only_the_volume() -> None:
    _, client = local()
    assert client["network_mode"] == "none"
    assert client["read_only"] is True
    assert client["cap_drop"] == ["ALL"]
    assert not {"ipc", "ports", "shm_size", "tmpfs"} & set(client)
    assert client["depends_on"]["server-local"]["condition"] == "service_healthy"


def test_code_of_the_local_client_runs(tmp_path: Path) -> None:
    _, client = local()
    assert client["entrypoint"] == ["python", "-c"]
    (code,) = client["command"]
    server = PoolingServer(ServerConfig(listen=f"unix:{tmp_path}/sock", warm_up=False))
    server.start()
    here = code.replace(SOCKETS, str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", here], capture_output=True, text=True, timeout=60, check=False
    )
    assert server.stop()
    shapes = "(32, 64, 112, 112) to (32, 64, 56, 56)"
    assert done.stdout == f"pooled {shapes} in shared memory\n", done.stderr


@pytest.mark.parametrize("builder", ["build-cpu", "build-cuda"])
def test_images_have_the_compiled_backend(builder: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    install = next(arguments for name, arguments in stages()[builder] if "pip install" in arguments)
    assert '".[server,fast,http,metrics]"' in install
    assert {"server", "fast"} <= set(extras["optional-dependencies"])


def test_cpu_is_the_default_target() -> None:
    assert list(stages())[-1] == "cpu"


@pytest.mark.parametrize(("target", "packages"), [("cpu", set()), ("cuda", {"python3"})])
def test_final_image_has_no_build_tools(target: str, packages: set[str]) -> None:
    commands = [arguments for name, arguments in inherited(target) if name == "RUN"]
    installed = [
        word
        for command in commands
        for words in re.findall(r"apt-get install([^&|;]*)", command)
        for word in words.split()
        if not word.startswith("-")
    ]
    assert set(installed) == packages
    assert not [command for command in commands if "pip" in command]


@pytest.mark.parametrize("target", TARGETS.values())
def test_final_image_runs_as_a_numeric_user_other_than_root(target: str) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(inherited(target), "USER"))


def test_final_images_run_the_same_server() -> None:
    names = ("USER", "WORKDIR", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT")
    cpu, cuda = ([last(stages()[target], name) for name in names] for target in ("cpu", "cuda"))
    assert cpu == cuda
    assert cpu[names.index("STOPSIGNAL")] == "SIGTERM"
    assert json.loads(cpu[names.index("ENTRYPOINT")]) == ["python", "-m", "pooling_server"]


@pytest.mark.parametrize("target", TARGETS.values())
def test_server_listens_on_the_exposed_port(target: str) -> None:
    steps = stages()[target]
    assert f"POOLING_LISTEN=0.0.0.0:{last(steps, 'EXPOSE')}" in last(steps, "ENV").split()


def test_dockerignore_admits_every_package_of_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{package}" for package in packages} <= set(allowed)
