"""The GPU benchmark on a stand-in for a GPU; no time is asserted."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import report
from benchmarks.engine import suite as engine_suite
from benchmarks.engine.suite import FORWARD_INDICES, FORWARD_MAX, LAYOUTS, OPERATIONS, Layer
from benchmarks.gpu import __main__ as bench_gpu
from benchmarks.gpu import contenders as gpu_contenders
from benchmarks.gpu import device as gpu_device
from benchmarks.gpu import goals as gpu_goals
from benchmarks.gpu import plot as gpu_plot
from benchmarks.gpu import report as gpu_report
from benchmarks.gpu import serving as gpu_serving
from benchmarks.gpu import suite as gpu_suite
from benchmarks.wire import suite as wire_suite
from pooling_client import _limits
from pooling_engine.backends import select_backend

Run = Callable[..., tuple[int, dict[str, Any]]]
TINY = Layer("LeNet", (2, 8, 9, 12), 3, 2, 1)
FACTS = {
    "name": "NVIDIA Nothing 1 (fabricated)",
    "multiprocessors": 1,
    "memory_gib": 1.0,
    "compute_capability": "9.0",
    "driver": 1,
    "cuda": 1,
    "cupy": "0",
    "torch": "0",
}


class HostDevice(gpu_device.Device):
    """Stand-in on the host: PyTorch on the CPU and the kernels compiled for the CPU."""

    device = "cpu"

    def __init__(self) -> None:
        self._cupy = importlib.import_module("cupy")

    def facts(self) -> dict[str, Any]:
        return FACTS

    def pinned(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(shape)

    def synchronize(self) -> None:
        self._cupy.cuda.NULL.synchronize()

    def kernel_ms(self, call: Any) -> float:
        return self.calls_ms(call, 1)

    def launches_ms(self, call: Any) -> float:
        return self.calls_ms(call, 1)

    def copy_in_and_out(self, host_in: Any, host_out: Any) -> Any:
        return lambda: time.sleep(1e-5)


@pytest.fixture
def device(fault: Path, every_kernel: None) -> HostDevice:
    return HostDevice()


@pytest.fixture
def run(device: HostDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs the benchmark on a tiny layer; it returns exit code and JSON."""
    monkeypatch.setattr(gpu_suite, "LAYERS", (TINY,))
    monkeypatch.setattr(bench_gpu, "CALLS", 3)
    monkeypatch.setattr(gpu_serving, "rows", lambda *_: [])

    def run(*flags: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr("sys.argv", ["bench_gpu.py", "--rounds", "2", *flags])
        monkeypatch.setattr("sys.argv", [*bench_gpu.sys.argv, "--output", str(tmp_path)])
        code = bench_gpu.main(lambda: device)
        return code, json.loads((tmp_path / "gpu-nothing-1-fabricated.json").read_text())

    return run


def test_every_row_has_every_contender_with_equal_results(run: Run, tmp_path: Path) -> None:
    code, result = run()
    rows = result["rows"]
    assert [(r["dtype"], r["layout"], r["operation"]) for r in rows] == [
        (d, lay, o)
        for d in ("float32", "float16", "bfloat16")
        for lay in LAYOUTS
        for o in OPERATIONS
    ]
    for row in rows:
        rivals = {"torch_channels_last"} | ({"torch"} if row["layout"] == "NCHW" else set())
        assert row["times_ms"].keys() == row["calls_ms"].keys() == rivals | {"ours", "copy"}
        assert row["times_faster"].keys() == rivals | {"copy"}
        assert row["differs"] == [], row
        assert len(row["kernels"]) == 1
        assert ("kernels_ms" in row) == (row["operation"] == "backward max")
    assert (code, result["failures"], result["left_out"]) == (0, [], 0)
    assert result["command"] == "python -m benchmarks.gpu --rounds 2"
    assert {path.suffix for path in tmp_path.iterdir()} >= {".json", ".md", ".png"}
    assert "kernels only" in next(tmp_path.glob("*.md")).read_text()


def test_tables_are_written_before_the_calls_through_the_server(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They survive an interrupt there, and name no picture without Matplotlib."""
    seen = []

    def rows(*_: Any) -> NoReturn:
        seen.append(next(tmp_path.glob("*.md")).read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_serving, "rows", rows)
    monkeypatch.setattr(gpu_report.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(KeyboardInterrupt):
        run("--only", "forward max$", "--dtype", "float32", "--layout", "NCHW")
    assert "## Forward max, float32 NCHW" in seen[0]
    assert ".png" not in seen[0]
    assert next(tmp_path.glob("*.json")).exists()


class StandingEvent:
    """CUDA event that reports one millisecond for every span."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Any) -> float:
        return 1.0


def test_the_device_on_stand_ins(fault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line runs on stand-ins for CuPy and `torch.cuda`."""
    cupy = importlib.import_module("cupy")
    monkeypatch.setattr(cupy, "__version__", "0", raising=False)
    for name in ("driverGetVersion", "runtimeGetVersion"):
        monkeypatch.setattr(cupy.cuda.runtime, name, lambda: 13000, raising=False)
    facts = {"name": "x", "multi_processor_count": 1, "total_memory": 1 << 30}
    facts = SimpleNamespace(**facts, major=9, minor=0)
    stand_ins = {"Event": StandingEvent, "Stream": object, "stream": contextlib.nullcontext}
    stand_ins |= {"synchronize": lambda: None, "get_device_properties": lambda device: facts}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(gpu_device, "SWEEP_BYTES", 64)
    monkeypatch.setattr(gpu_device.Device, "device", "cpu")
    device = gpu_device.Device()
    assert device.facts().keys() >= FACTS.keys()
    assert device.kernel_ms(lambda: None) == 1
    assert device.calls_ms(lambda: None, 3) < 1000
    events = []
    monkeypatch.setattr(device, "_begin", SimpleNamespace(record=lambda: events.append("begin")))
    end = StandingEvent(enable_timing=True)
    end.record = lambda: events.append("end")
    monkeypatch.setattr(device, "_end", end)
    monkeypatch.setattr(device._begin, "elapsed_time", lambda other: 2.0, raising=False)
    launcher = select_backend("cupy").device
    monkeypatch.setattr(type(launcher), "launch", lambda _, what: events.append(what.name))
    one, two = (SimpleNamespace(name=name) for name in ("one", "two"))
    assert device.launches_ms(lambda: [launcher.launch(one), launcher.launch(two)]) == 2.0
    assert events == ["begin", "one", "end", "two", "end"]
    source, target = torch.ones(3), torch.zeros(3)
    device.copy_in_and_out(source, target)()
    assert target.tolist() == [0, 0, 0], "copied from the GPU, which holds a copy of the target"


def test_bytes_that_must_move(device: HostDevice) -> None:
    tensors = gpu_contenders.DeviceTensors(device, TINY, "float16", "NCHW")
    x, y = 2 * 8 * 9 * 12, 2 * 8 * 5 * 6
    assert tensors.moved_bytes(FORWARD_MAX) == 2 * (x + y)
    assert tensors.moved_bytes(FORWARD_INDICES) == 2 * (x + y) + y
    assert tensors.moved_bytes("backward max") == 2 * (x + y) + y
    assert tensors.moved_bytes("backward average") == 2 * (x + y)


def test_failures_are_recorded_and_the_rest_is_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured_row = bench_gpu.measured_row

    def broken(tensors: Any, operation: str, rounds: Any) -> Any:
        if operation == "backward max":
            raise RuntimeError("an illegal address")
        return measured_row(tensors, operation, rounds)

    monkeypatch.setattr(bench_gpu, "measured_row", broken)
    code, result = run("--dtype", "float32", "--layout", "NCHW")
    assert (code, len(result["rows"])) == (1, 4)
    said = f"{TINY.name} backward max float32 NCHW: RuntimeError: an illegal address"
    assert result["failures"] == [said]
    assert f"**Not measured: {said}**" in next(tmp_path.glob("*.md")).read_text()


def test_a_layer_that_does_not_fit_is_recorded_as_a_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> NoReturn:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(bench_gpu, "DeviceTensors", full)
        code, result = run("--dtype", "float32", "--layout", "NCHW")
    assert (code, result["rows"]) == (1, [])
    assert result["failures"] == [f"{TINY.name} float32 NCHW: MemoryError: no room"]


def test_a_result_that_differs_from_pytorch_fails_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = bench_gpu.answer
    monkeypatch.setattr(bench_gpu, "answer", lambda *given: theirs(*given) + 1e-4)
    code, result = run("--only", "forward max$", "--dtype", "float32", "--layout", "NCHW")
    assert (code, result["rows"][0]["differs"]) == (1, ["torch", "torch_channels_last"])


def test_rows_are_measured_without_a_failing_pytorch(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missing kernel is not mentioned; a call that fails is, with its reason."""
    theirs = gpu_contenders.engine_torch.torch_call

    def call(layer: Any, operation: str, x: Any, dy: Any, memory_format: Any) -> Any:
        if memory_format is torch.channels_last:
            raise NotImplementedError("no kernel")
        work = theirs(layer, operation, x, dy, memory_format)

        def works_or_not() -> Any:
            if operation == "backward max":
                raise RuntimeError("out of memory\nTry less.")
            return work()

        return works_or_not

    monkeypatch.setattr(gpu_contenders.engine_torch, "torch_call", call)
    code, result = run("--dtype", "float32", "--layout", "NCHW", "--only", "max$")
    forward, backward = result["rows"]
    assert (code, result["failures"]) == (0, [])
    assert forward["times_ms"].keys() == {"ours", "torch", "copy"}
    assert backward["times_ms"].keys() == {"ours", "copy"}
    assert (forward["unable"], backward["unable"]) == ({}, {"torch": "out of memory"})
    text = next(tmp_path.glob("*.md")).read_text()
    assert f"**PyTorch failed: {TINY.name} backward max float32 NCHW: out of memory**" in text


def test_a_failure_to_write_tables_does_not_stop_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: Any) -> NoReturn:
        raise ValueError("no backend")

    served = [{"transport": "a", "payload": "b", "rounds": [1.0]}]
    monkeypatch.setattr(gpu_plot, "draw", draw)
    monkeypatch.setattr(gpu_serving, "rows", lambda *_: served)
    code, result = run("--only", "forward max$", "--dtype", "float32", "--layout", "NCHW")
    assert (code, result["serving"], len(result["rows"])) == (1, served, 1)
    assert set(result["failures"]) == {"tables: ValueError: no backend"}


def test_only_differing_contenders_are_marked(tmp_path: Path) -> None:
    row = fabricated("a", FORWARD_MAX, 1, copy=1, torch=2, torch_channels_last=3)
    row["differs"] = ["torch_channels_last"]
    table = gpu_report.times_table([row])
    assert "| 2 (2-2) | 3 (3-3) differs |" in table


def test_rows_beyond_the_time_limit_are_skipped(run: Run) -> None:
    code, result = run("--seconds", "0")
    assert (code, result["rows"], result["left_out"]) == (1, [], 30)


def test_layers_match_the_cpu_benchmark_fit_and_have_unique_names() -> None:
    kinds = {layer._replace(shape=layer.shape[1:]) for layer in engine_suite.LAYERS}
    assert {layer._replace(shape=layer.shape[1:]) for layer in gpu_suite.LAYERS} == kinds
    names = [layer.name for layer in gpu_suite.LAYERS]
    assert len(set(names)) == len(names)
    for layer in gpu_suite.LAYERS:
        assert 32 <= layer.shape[0] <= 256
        assert 4 * np.prod(layer.shape) <= gpu_suite.MOST_BYTES


def fabricated(
    layer: str, operation: str, ours: float, moved: int = 10**9, **others: float
) -> dict[str, Any]:
    """Return a row with made-up times."""
    row = {"layer": layer, "operation": operation, "dtype": "float32", "layout": "NCHW"}
    row |= {"input_bytes": moved, "moved_bytes": moved, "kernels": ["select_rows<float>"]}
    times = {"ours": ours} | others
    taken = {name: [value] * 3 for name, value in times.items()}
    row |= bench_gpu.compared("times", taken) | {"differs": [], "unable": {}}
    return row | (bench_gpu.compared("calls", taken) if moved < gpu_suite.SMALL else {})


@pytest.mark.parametrize(
    ("operation", "copy", "rival"),
    [
        ("forward max", 0.9, 1.3),
        ("forward average", 0.9, 1.3),
        ("forward max with indices", 0.85, 1.5),
        ("backward max", 0.85, 2),
        ("backward average", 0.85, 2),
    ],
)
def test_goals_use_the_slowest_large_tensor(operation: str, copy: float, rival: float) -> None:
    goals = gpu_goals.GOALS[operation]
    good = fabricated("good", operation, 1, copy=copy, torch=rival)
    small = fabricated("small", operation, 1, 10**6, copy=0.1, torch=0.1)
    bad = fabricated("bad", operation, 1, copy=copy - 0.01, torch=rival - 0.01)
    for rows, verdict in (([small, good], "met"), ([good, bad, small], "**missed**")):
        name = "good" if verdict == "met" else "bad"
        for judged in (gpu_goals.against_copy(rows, goals), gpu_goals.against_torch(rows, goals)):
            assert judged.endswith(verdict), judged
            assert f"({name})" in judged


def test_goals_of_small_layers_are_one_kernel_and_no_slower_than_pytorch() -> None:
    small = fabricated("small", FORWARD_MAX, 1, 10**6, copy=1, torch=1)
    assert gpu_goals.of_small([small]).count(": met") == 2
    slow = fabricated("slow", FORWARD_MAX, 1, 10**6, copy=1, torch=0.99)
    slow["kernels"] *= 2
    assert gpu_goals.of_small([small, slow]).count("**missed**") == 2
    assert gpu_goals.of_small([fabricated("large", FORWARD_MAX, 1, copy=1, torch=1)]) == "—"


@pytest.mark.parametrize(("link", "verdict"), [(0.8, "met"), (0.79, "**missed**")])
def test_the_shared_memory_goal_uses_the_host_gpu_bandwidth(link: float, verdict: str) -> None:
    layer = {"payload": wire_suite.LAYER.name}
    rows = [{"transport": wire_suite.SHARED, "rounds": [10.0], **layer}]
    assert gpu_goals.through_shared_memory(rows) == "not measured"
    rows.append({"transport": gpu_goals.LINK, "rounds": [10 * link], **layer})
    assert gpu_goals.through_shared_memory(rows).endswith(verdict)


def test_tables_and_picture_need_only_the_json(tmp_path: Path) -> None:
    rows = [
        fabricated(f"{n} 256x64x{n}x{n} k3 s2", operation, t, moved, torch=2 * t, copy=0.9 * t)
        for operation in OPERATIONS
        for n, moved, t in ((14, 10**6, 0.003), (56, 10**8, 0.04), (224, 10**9, 0.4))
    ]
    serving = [
        {"payload": "103 MB", "transport": name, "rounds": [9.0, 10.0, 11.0]}
        for name in (wire_suite.UNARY, wire_suite.SHARED, gpu_goals.LINK)
    ]
    about = {"device": FACTS, "rounds": 3, "load_before": 0, "left_out": 2, "failures": []}
    path = report.write("gpu-x", "the command", rows, tmp_path, serving=serving, **about)
    gpu_report.write(path)
    text = path.with_suffix(".md").read_text()
    assert "# The engine on NVIDIA Nothing 1 (fabricated)" in text
    assert "**No time was left for 2 more rows.**" in text
    assert "share of the host-GPU bandwidth: 1.00, goal 0.8: met." in text
    assert len([line for line in text.splitlines() if line.startswith("| ---")]) == 2 + 2 * 5
    assert "| 56 256x64x56x56 k3 s2 | 100 | 0.04 (0.04-0.04) |" in text
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.width == 1800


def test_calls_go_through_a_server(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of this test computes on the host."""
    monkeypatch.setattr(device, "backend", "numpy", raising=False)
    monkeypatch.setattr(gpu_serving, "PAYLOADS", (wire_suite.SMALL, wire_suite.PAYLOADS[3]))
    monkeypatch.setattr(_limits, "STREAM_BYTES", _limits.STREAM_BYTES)  # the transports change it
    rows = gpu_serving.rows(device, 2)
    names = [wire_suite.LOCAL, gpu_goals.TORCH_PINNED, gpu_goals.LINK]
    expected = [("12 KB", name) for name in (wire_suite.UNARY, wire_suite.STREAM, *names)]
    names = (wire_suite.UNARY, wire_suite.STREAM, wire_suite.SHARED, *names)
    expected += [("1 MB", name) for name in names]
    assert [(row["payload"], row["transport"]) for row in rows] == expected
    assert all(len(row["rounds"]) == 2 for row in rows)


def test_a_different_result_ends_the_serving_benchmark() -> None:
    calls = {gpu_goals.TORCH_PINNED: lambda: np.zeros(2), "wrong": lambda: np.ones(2)}
    with pytest.raises(ArithmeticError, match="wrong: the result differs"):
        gpu_serving.check(calls)


def test_the_plot_draws_available_rows(tmp_path: Path) -> None:
    gpu_plot.draw([fabricated("a", "backward average", 1, copy=1)], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 10_000
