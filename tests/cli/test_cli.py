"""The program `pooling`: its files, output and errors; no error shows a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec
from pooling_server import PoolingServer
from tests.cli.support import pooling
from tests.support.waiting import LIMIT_S

RNG = np.random.default_rng(3)


def to(server: PoolingServer) -> tuple[str, ...]:
    return "--target", server.address, "--timeout", str(LIMIT_S)  # kernels may be compiled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", RNG.standard_normal((2, 3, 14, 14)).astype(np.float32))
    return tmp_path


def test_forward_and_backward_on_files(folder: Path, server: PoolingServer) -> None:
    target = to(server)
    options = ("--mode", "max", "--kernel", "3", "--stride", "2", "--padding", "1:1,0:1")
    done = pooling("forward", "x.npy", "y.npy", *options, "--indices", "i.npy", *target, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 3, 14, 14) -> (2, 3, 7, 7) in ")

    x = np.load(folder / "x.npy")
    spec = PoolSpec("max", 3, 2, ((1, 1), (0, 1)))
    local = pooling_engine.forward(x, spec, return_indices=True)
    np.testing.assert_array_equal(np.load(folder / "y.npy"), local.output, strict=True)
    np.testing.assert_array_equal(np.load(folder / "i.npy"), local.indices, strict=True)

    shape = ("--input-shape", "2,3,14,14", "--indices", "i.npy")
    done = pooling("backward", "y.npy", "dx.npy", *options, *shape, *target, cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = pooling_engine.backward(
        local.output, spec, input_shape=x.shape, indices=local.indices
    )
    np.testing.assert_array_equal(np.load(folder / "dx.npy"), expected, strict=True)


@pytest.mark.parametrize(
    ("options", "spec"),
    [
        (("--mode", "average", "--kernel", "3", "--padding", "1", "--count-exclude-pad"),
         PoolSpec("average", 3, padding=1, count_include_pad=False)),
        (("--mode", "average", "--kernel", "2,3", "--divisor-override", "2"),
         PoolSpec("average", (2, 3), divisor_override=2)),
        (("--mode", "lp", "--kernel", "3", "--stride", "1,2", "--norm-p", "inf"),
         PoolSpec("lp", 3, (1, 2), norm_p=np.inf)),
        (("--mode", "min", "--kernel", "3", "--stride", "2", "--padding", "same_lower"),
         PoolSpec("min", 3, 2, "same_lower")),
        (("--mode", "sum", "--kernel", "2", "--dilation", "2", "--ceil-mode"),
         PoolSpec("sum", 2, dilation=2, ceil_mode=True)),
    ],
)  # fmt: skip
def test_every_option_reaches_the_server(
    folder: Path, server: PoolingServer, options: tuple[str, ...], spec: PoolSpec
) -> None:
    done = pooling("forward", "x.npy", "y.npy", *options, *to(server), cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = pooling_engine.forward(np.load(folder / "x.npy"), spec).output
    np.testing.assert_array_equal(np.load(folder / "y.npy"), expected, strict=True)


def test_info(folder: Path, server: PoolingServer) -> None:
    done = pooling("info", *to(server), cwd=folder)
    assert done.returncode == 0
    assert "modes          max, min, average, sum, lp" in done.stdout
    assert "message        33,554,432 bytes" in done.stdout


DEAD = ("--target", "127.0.0.1:1")
KERNEL = ("--kernel", "2")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("forward", "none.npy", "y.npy", *KERNEL), 2, "none.npy: No such file"),
        (("forward", "text.npy", "y.npy", *KERNEL), 2, "text.npy is not a numeric .npy file"),
        (("forward", "empty.npy", "y.npy", *KERNEL), 2, "empty.npy is not a numeric .npy file"),
        (("forward", "cut.npy", "y.npy", *KERNEL), 2, "cut.npy is not a numeric .npy file"),
        (("forward", "objects.npy", "y.npy", *KERNEL), 2, "objects.npy is not a numeric .npy file"),
        (("forward", "many.npz", "y.npy", *KERNEL), 2, "many.npz holds several arrays"),
        (("forward", ".", "y.npy", *KERNEL), 2, "is a directory"),
        (("forward", "flat.npy", "y.npy", *KERNEL), 2, "the shape (5,) has 1 axes"),
        (("forward", "x.npy", "y.npy"), 2, "exactly one of kernel"),
        (("forward", "x.npy", "y.npy", "--kernel", "two"), 2, "'two' is not of the form 3 or 3,5"),
        (("forward", "x.npy", "y.npy", *KERNEL, "--padding", "1:2:3"), 2, "is not of the form"),
        (("forward", "x.npy", "y.npy", *KERNEL, "--padding", "5"), 2, "must be less than"),
        (("forward", "x.npy", "y.npy", *KERNEL, "--padding", "reflect"), 2, "padding is 'reflect'"),
        (("forward", "x.npy", "y.npy", *KERNEL, "--mode", "mean"), 2, "'mean' is not one of 'max'"),
        (
            ("forward", "x.npy", "y.npy", *KERNEL, "--timeout", "0"),
            2,
            "--timeout is 0.0; it must be",
        ),
        (("forward", "x.npy", "y.npy", *KERNEL, "--timeout", "nan"), 2, "timeout is nan"),
        (("forward", "x.npy", "y.npy", *KERNEL, "--target", "/s"), 2, "target is '/s'"),
        (("forward", "x.npy", "y.npy", *KERNEL, "--tie-policy", "no"), 2, "'no' is not one of 'f"),
        (("forward", "x.npy", "y.npy", *KERNEL, "--layout", "nhwc"), 2, "'nhwc' is not one of"),
        (
            ("forward", "x.npy", "y.npy", *KERNEL, "--index-format", "plane"),
            2,
            "requires --indices FILE",
        ),
        (("forward", "x.npy", "y.npy", *KERNEL, *DEAD), 1, "no server answers at 127.0.0.1:1"),
        (("backward", "x.npy", "y.npy", *KERNEL), 2, "input_shape is required"),
        (("info", *DEAD), 1, "no server answers at 127.0.0.1:1"),
        (("explain",), 2, "give INPUT.npy and --at"),
        (("explain", "x.npy", *KERNEL, "--at", "0,0,9,9"), 2, "at"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_misuse_is_a_one_line_error(
    folder: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    (folder / "text.npy").write_text("pooling")
    (folder / "empty.npy").touch()
    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:200])
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / "flat.npy", np.ones(5))
    np.savez(folder / "many.npz", a=np.ones(1))
    done = pooling(*arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("output", "reason"),
    [("none/y.npy", "No such file or directory"), ("/dev/full", "No space left on device")],
)
def test_an_output_file_that_cannot_be_written_is_a_one_line_error(
    folder: Path, server: PoolingServer, output: str, reason: str
) -> None:
    done = pooling("forward", "x.npy", output, *KERNEL, *to(server), cwd=folder)
    assert done.returncode == 1
    assert done.stderr == f"error: cannot write {output}: {reason}\n"


def test_a_bfloat16_file_is_rejected_with_the_reason(folder: Path) -> None:
    np.save(folder / "b.npy", np.load(folder / "x.npy").astype(ml_dtypes.bfloat16))
    done = pooling("forward", "b.npy", "y.npy", *KERNEL, cwd=folder)
    assert done.returncode == 2
    assert "b.npy holds elements of type |V2, not numbers" in done.stderr
    assert "bfloat16" in done.stderr


@pytest.mark.parametrize("index_format", ["window", "plane", "tensor"])
def test_indices_of_every_format_are_accepted_by_backward(
    folder: Path, server: PoolingServer, index_format: str
) -> None:
    options = (*KERNEL, "--index-format", index_format, *to(server))
    done = pooling("forward", "x.npy", "y.npy", *options, "--indices", "i.npy", cwd=folder)
    assert done.returncode == 0, done.stderr
    sent = ("--input-shape", "2,3,14,14", "--indices", "i.npy")
    done = pooling("backward", "y.npy", "dx.npy", *options, *sent, cwd=folder)
    assert done.returncode == 0, done.stderr
    x, spec = np.load(folder / "x.npy"), PoolSpec("max", 2)
    expected = pooling_engine.backward(np.load(folder / "y.npy"), spec, input=x)
    np.testing.assert_array_equal(np.load(folder / "dx.npy"), expected, strict=True)


def test_help_names_every_command(folder: Path) -> None:
    done = pooling("--help", cwd=folder)
    for command in ("serve", "forward", "backward", "info", "explain", "demo"):
        assert f"\n  {command} " in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2]  # whole sentences on 80 columns
    for flag in ("-h", "--help"):
        assert pooling("serve", flag, cwd=folder).stdout.startswith("Usage: pooling serve")


@pytest.mark.parametrize("command", ["forward", "backward", "info", "explain", "demo"])
def test_help_fits_on_80_columns(folder: Path, command: str) -> None:
    done = pooling(command, "--help", cwd=folder)
    assert done.stdout.startswith(f"Usage: pooling {command} [OPTIONS]")
    assert max(map(len, done.stdout.split("\n"))) <= 80


def test_a_large_tensor_shows_a_progress_bar_on_a_terminal_only(
    tmp_path: Path, server: PoolingServer
) -> None:
    np.save(tmp_path / "x.npy", np.ones((5, 16, 256, 256), np.float32))
    arguments = ("forward", "x.npy", "y.npy", "--kernel", "2", *to(server))
    done = pooling(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    main, terminal = os.openpty()
    command = [sys.executable, "-m", "pooling_cli.main", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=terminal, cwd=tmp_path
    ) as process:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # once the process has closed its end
            while part := os.read(main, 1000):
                shown += part
    os.close(main)
    assert process.returncode == 0
    assert b"100%" in shown
    assert (np.load(tmp_path / "y.npy") == 1).all()


def test_the_former_module_name_runs_the_program() -> None:
    command = [sys.executable, "-m", "pooling_client.cli", "serve", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert "--listen" in done.stdout
