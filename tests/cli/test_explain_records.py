"""`pooling explain`: the records of the steps, and the JSON made of them, are the engine's."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pooling_cli.explain import WindowSteps, as_json, render, seed_steps, spec_steps, window_steps
from pooling_cli.explain.check import round_to
from pooling_cli.explain.records import Norm, Selection, Sum
from pooling_cli.main import cli
from pooling_engine import InvalidSpecError, InvalidTensorError, PoolSpec, backward, forward
from tests.cli.support import BYTES, GAPS, HUGE, NAN, TIED

BACKEND = "numpy"  # nothing to compile; the other backends' results are bit-identical


def strict(text: str) -> Any:
    """Return the JSON data of a text; `NaN` and `Infinity` without quotes are not JSON."""

    def reject(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=reject)


def gradient_of(x: Any, spec: PoolSpec, at: tuple[int, ...], output: Any, upstream: float) -> Any:
    """Return the engine's input gradient if output `at` alone has an upstream gradient."""
    dy = np.zeros_like(output)
    dy[at] = upstream
    given: dict[str, Any] = {"input_shape": x.shape}
    if spec.mode in ("max", "min", "lp"):
        given = {"input": x}
    return backward(dy, spec, **given, backend=BACKEND)


def assert_engine(steps: WindowSteps, x: Any, spec: PoolSpec, gradient: Any = None) -> None:
    """Assert that the numbers of the records are those of the engine for the whole tensor."""
    selects = spec.mode in ("max", "min")
    result = forward(x, spec, return_indices=selects, backend=BACKEND)
    output = result.output[steps.at]
    np.testing.assert_array_equal(steps.output.value, output.item())
    assert steps.parameters.output_shape == result.output.shape
    assert tuple(size.outputs for size in steps.output_size) == tuple(
        axis.outputs for axis in steps.parameters.axes
    )
    step = steps.forward
    if selects and isinstance(step, Selection):
        index = result.indices[steps.at]
        assert (np.iinfo(index.dtype).max if step.tap is None else step.tap) == index
        assert np.iinfo(index.dtype).max == steps.parameters.indices.none
    region = tuple(np.array(axis.elements, int) for axis in steps.region.axes)
    is_last = spec.layout == "channels_last"
    n, c = steps.at[0], steps.at[-1 if is_last else 1]
    plane = x[n, ..., c] if is_last else x[n, c]
    np.testing.assert_array_equal(
        np.array(steps.region.values, float).reshape(steps.region.shape),
        plane[np.ix_(*region)].astype(float),
    )
    backward_step = steps.backward
    if backward_step is None:
        assert x.dtype.kind in "iu"
        return
    if backward_step.shares is None:
        return
    upstream = 1.0 if gradient is None else gradient[steps.at]
    assert backward_step.upstream == upstream
    if spec.mode == "lp" and not np.isfinite(plane).all():
        return  # a NaN of another window makes the gradient of the whole tensor NaN
    dx = gradient_of(x, spec, steps.at, result.output, upstream)
    dx_plane = dx[n, ..., c] if is_last else dx[n, c]
    np.testing.assert_array_equal(
        np.array(backward_step.shares).reshape(steps.region.shape),
        dx_plane[np.ix_(*region)].astype(float),
    )


COMMANDS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "max": (TIED, {"kernel": 2, "stride": 1}, ("--kernel", "2", "--stride", "1")),
    "min": (
        TIED,
        {"mode": "min", "kernel": 3, "stride": 2, "padding": 1, "tie_policy": "split"},
        ("--mode", "min", "--kernel", "3", "--stride", "2", "--padding", "1",
         "--tie-policy", "split"),
    ),
    "average": (
        TIED.astype(np.float32) / 3,
        {"mode": "average", "kernel": 2, "stride": 1, "padding": 1},
        ("--mode", "average", "--kernel", "2", "--stride", "1", "--padding", "1"),
    ),
    "sum of integers": (
        HUGE[..., :3].copy(),
        {"mode": "sum", "kernel": 2, "stride": 1},
        ("--mode", "sum", "--kernel", "2", "--stride", "1"),
    ),
    "lp": (TIED, {"mode": "lp", "global_window": True}, ("--mode", "lp", "--global-window")),
    "adaptive": (BYTES, {"adaptive_output": 2}, ("--adaptive-output", "2")),
}  # fmt: skip


@pytest.mark.parametrize(("x", "arguments", "options"), COMMANDS.values(), ids=COMMANDS.keys())
def test_the_json_of_the_command_has_the_engine_s_numbers(
    tmp_path: Path, x: Any, arguments: dict[str, Any], options: tuple[str, ...]
) -> None:
    np.save(tmp_path / "x.npy", x)
    at = (0,) * x.ndim
    done = CliRunner().invoke(
        cli,
        ["explain", str(tmp_path / "x.npy"), "--at", ",".join(map(str, at)), *options, "--json"],
    )
    assert done.exit_code == 0, done.output
    data = strict(done.output)

    spec = PoolSpec(**{"mode": "max"} | arguments)
    selects = spec.mode in ("max", "min")
    result = forward(x, spec, return_indices=selects, backend=BACKEND)
    assert data["output"]["value"] == result.output[at]
    assert data["parameters"]["output_shape"] == list(result.output.shape)
    if selects:
        assert data["forward"]["tap"] == result.indices[at]
    if x.dtype.kind == "f":
        dx = gradient_of(x, spec, at, result.output, 1)[0, 0]
        elements = np.ix_(*(axis["elements"] for axis in data["region"]["axes"]))
        assert data["region"]["values"] == x[0, 0][elements].ravel().tolist()
        assert data["backward"]["shares"] == dx[elements].ravel().tolist()
    else:
        assert data["backward"] is None


def test_the_json_of_a_spec_has_the_plan_s_numbers() -> None:
    options = ("--kernel", "3", "--stride", "2", "--padding", "same_upper", "--dtype", "int8")
    done = CliRunner().invoke(cli, ["explain", "--shape", "2,3,14,9", *options, "--json"])
    assert done.exit_code == 0, done.output
    data = strict(done.output)
    x = np.zeros((2, 3, 14, 9), np.int8)
    output = forward(x, PoolSpec("max", 3, 2, "same_upper"), backend=BACKEND).output
    assert data["parameters"]["output_shape"] == list(output.shape)
    assert data["parameters"]["output_dtype"] == output.dtype.name
    rows, columns = data["output_size"]
    assert (rows["outputs"], rows["padding"]) == (7, 1)
    assert (columns["outputs"], columns["padding"]) == (5, 2)


def test_the_json_of_the_example_has_three_modes() -> None:
    done = CliRunner().invoke(cli, ["explain", "--seed-example", "--json"])
    data = strict(done.output)
    assert data["max"]["output"]["value"] == 12688.05480956
    assert data["min"]["output"]["value"] == 2468.53560093
    assert data["average"]["forward"]["divisor"]["value"] == 9
    assert data["plane"]["parameters"]["output_shape"] == [10, 16, 6, 6]


def test_numbers_that_json_lacks_are_strings() -> None:
    x = np.array([NAN, math.inf, -math.inf]).reshape(1, 1, 3)
    data: Any = as_json(window_steps(x, PoolSpec("max", 3), (0, 0, 0)))
    assert data["region"]["values"] == ["NaN", "Infinity", "-Infinity"]
    assert strict(json.dumps(data)) == data


def test_integers_stay_exact_in_json() -> None:
    data: Any = as_json(window_steps(HUGE[..., :3].copy(), PoolSpec("sum", 3), (0, 0, 0)))
    assert strict(json.dumps(data))["output"]["value"] == 2**62 + 2**61 - 5


def test_the_records_of_a_selection() -> None:
    steps = window_steps(GAPS, PoolSpec("max", 2, 1, nan_policy="ignore"), (0, 0, 0, 0))
    step, gradient = steps.forward, steps.backward
    assert isinstance(step, Selection)
    assert gradient is not None
    assert steps.region.shape == (2, 2)
    assert (step.extreme, step.skipped, step.tied) == ("largest", 1, (0, 3))
    assert (step.selected, step.position, step.tap) == (0, (0, 0), 0)
    assert (gradient.receivers, gradient.shares) == ((0,), (1.0, 0.0, 0.0, 0.0))
    assert gradient.other_windows == (0, 1, 1, 3)
    assert steps.check.compared == ("index", "output", "gradient")


def test_the_records_of_an_average() -> None:
    spec = PoolSpec("average", 3, 2, padding=1)
    steps = window_steps(TIED, spec, (0, 0, 0, 0), np.full((1, 1, 2, 2), 4.5))
    step, gradient = steps.forward, steps.backward
    assert isinstance(step, Sum)
    assert step.divisor is not None
    assert gradient is not None
    assert steps.region.values == (5.0, 1.0, 3.0, 5.0)
    assert [axis.elements for axis in steps.region.axes] == [(0, 1), (0, 1)]
    assert [axis.start for axis in steps.region.axes] == [-1, -1]
    divisor = step.divisor
    assert (step.total, divisor.value, step.result) == (14.0, 9, 14 / 9)
    assert (divisor.on_elements, divisor.in_padding, divisor.beyond_padding) == (4, 5, 0)
    assert (gradient.receivers, gradient.shares) == (None, (0.5, 0.5, 0.5, 0.5))


def test_the_records_of_a_norm() -> None:
    x = np.array([3.0, -4.0, 12.0]).reshape(1, 1, 3)
    steps = window_steps(x, PoolSpec("lp", 2, 1), (0, 0, 0))
    assert steps.forward == Norm(p=2.0, scale=1.0, powers=(9.0, 16.0), total=25.0, result=5.0)
    assert steps.backward is not None
    assert steps.backward.shares == (0.6, -0.8)
    assert steps.backward.other_windows == (0, 1)


def test_the_records_of_an_output_size_that_ceil_mode_corrects() -> None:
    (size,) = spec_steps(PoolSpec("max", 1, 3, ceil_mode=True), (1, 1, 5), "int8").output_size
    assert (size.rule, size.room, size.by_formula) == ("ceil", 4, 3)
    assert (size.dropped_start, size.outputs) == (6, 2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("bfloat16", 1 + 2**-8 + 2**-40, 1 + 2**-7),  # a tie in float32, which would go to 1
        ("bfloat16", 1 + 2**-8, 1.0),
        ("bfloat16", -(2.0**-134) * 1.01, -(2.0**-133)),
        ("bfloat16", 1e300, np.inf),
        ("float16", 1 + 2**-11 + 2**-40, 1 + 2**-10),
        ("float16", 65520.0, np.inf),
        ("float16", 2.0**-25, 0.0),
        ("float32", 1 + 2**-24 + 2**-50, 1 + 2**-23),
        ("float64", 0.1, 0.1),
    ],
)
def test_numbers_are_rounded_once(name: str, value: float, expected: float) -> None:
    assert float(round_to(np.dtype(name), np.array([value]))[0]) == expected


def test_nothing_is_compiled_for_an_explanation() -> None:
    script = (
        "import sys; from pooling_cli.explain import seed_steps; "
        "seed_steps(); print('numba' in sys.modules)"
    )
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert done.stdout == "False\n", done.stderr


def assert_explained(x: Any, spec: PoolSpec, at: tuple[int, ...], gradient: Any = None) -> None:
    """Assert that the records, the JSON and the text agree with the engine."""
    steps = window_steps(x, spec, at, gradient)
    assert_engine(steps, x, spec, gradient)
    strict(json.dumps(as_json(steps)))
    lines = render(steps).split("\n")
    start = f"  output[{', '.join(map(str, at))}] = "
    (stated,) = (line for line in lines if line.startswith(start))
    output = forward(x, spec, backend=BACKEND).output
    assert stated.removeprefix(start).split()[0] == str(output[at])
    assert max(map(len, lines)) <= 90


def random_case(rng: np.random.Generator) -> tuple[Any, dict[str, Any]]:
    """Return a tensor and the arguments of a spec, which may not fit."""
    rank = int(rng.integers(1, 5))
    mode = str(rng.choice(["max", "min", "average", "sum", "lp"]))
    sizes = rng.integers(1, (30, 12, 6, 4)[rank - 1], rank)
    last = bool(rng.random() < 0.3)
    shape = (2, *sizes, 3) if last else (2, 3, *sizes)
    x = rng.standard_normal(shape).astype(rng.choice(["float16", "float32", "float64"]))
    if rng.random() < 0.3:
        x = np.round(x)
    if rng.random() < 0.2:
        x[rng.random(shape) < 0.2] = NAN
    kernel, dilation = rng.integers(1, 5, rank), rng.integers(1, 3, rank)
    extents = (kernel - 1) * dilation + 1
    pads: Any = [(int(rng.integers(0, e)), int(rng.integers(0, e))) for e in extents]
    if rng.random() < 0.3:
        pads = str(rng.choice(["same_upper", "same_lower", "valid"]))
    spec: dict[str, Any] = {
        "mode": mode,
        "kernel": kernel.tolist(),
        "stride": rng.integers(1, 4, rank).tolist(),
        "padding": pads,
        "dilation": dilation.tolist(),
        "ceil_mode": not isinstance(pads, str) and bool(rng.random() < 0.5),
        "layout": "channels_last" if last else "channels_first",
    }
    if mode == "average":
        spec["count_include_pad"] = bool(rng.random() < 0.5)
    if mode == "lp":
        spec["norm_p"] = float(rng.choice([1, 2, 2.5, 7]))
    return x, spec


def test_random_sliding_windows_agree_with_the_engine() -> None:
    rng = np.random.default_rng(20240607)
    explained = 0
    for _ in range(200):
        x, arguments = random_case(rng)
        spec = PoolSpec(**arguments)
        try:
            output = forward(x, spec, backend=BACKEND).output
        except InvalidSpecError:  # no window fits
            continue
        at = tuple(int(rng.integers(size)) for size in output.shape)
        gradient = rng.standard_normal(output.shape).astype(x.dtype)
        assert_explained(x, spec, at, gradient)
        explained += 1
    assert explained > 100


def random_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    """Return a tensor with ties, and NaNs in some of floating point."""
    if name.startswith(("int", "uint")):
        limits = np.iinfo(name)
        most = int(limits.max) // 64
        return rng.integers(max(int(limits.min) // 64, -most), most + 1, shape).astype(name)
    x = np.round(rng.standard_normal(shape) * 2) / 2
    if rng.random() < 0.3:
        x[rng.random(shape) < 0.4] = NAN
    return x.astype(np.dtype(name))


def random_spec(rng: np.random.Generator, name: str, rank: int, last: bool) -> PoolSpec:
    """Return a spec of any kind of window that the type allows."""
    is_float = "float" in name
    mode = str(rng.choice(["max", "min", "average", "sum", "lp"][: 5 if is_float else 4]))
    options: dict[str, Any] = {"layout": "channels_last" if last else "channels_first"}
    kind = rng.integers(3)
    if kind == 0:
        options["global_window"] = True
    elif kind == 1:
        options["adaptive_output"] = rng.integers(1, 7, rank).tolist()
    else:
        options |= {"kernel": 2, "stride": int(rng.integers(1, 3)), "padding": "same_lower"}
    if mode in ("max", "min"):
        options["tie_policy"] = str(rng.choice(["first", "all", "split"]))
        options["nan_policy"] = str(rng.choice(["propagate", "ignore", "error"]))
    return PoolSpec(mode, **options)


TYPES = ["bfloat16", "float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64"]


@pytest.mark.parametrize("name", TYPES)
def test_random_windows_of_every_kind_agree_with_the_engine(name: str) -> None:
    rng = np.random.default_rng(20250131)
    explained = 0
    for _ in range(60):
        rank, last = int(rng.integers(1, 4)), bool(rng.random() < 0.3)
        sizes = tuple(map(int, rng.integers(1, (30, 9, 5)[rank - 1], rank)))
        shape = (2, *sizes, 3) if last else (2, 3, *sizes)
        x, spec = random_tensor(rng, name, shape), random_spec(rng, name, rank, last)
        try:
            output = forward(x, spec, backend=BACKEND).output
        except InvalidTensorError as error:  # a NaN, where it is an error
            with pytest.raises(InvalidTensorError, match=str(error)):
                window_steps(x, spec, (0,) * x.ndim)
            continue
        at = tuple(int(rng.integers(size)) for size in output.shape)
        gradient = rng.standard_normal(output.shape).astype(x.dtype) if "float" in name else None
        assert_explained(x, spec, at, gradient)
        explained += 1
    assert explained > 40


def test_the_example_is_explained_in_three_modes() -> None:
    steps = seed_steps()
    assert [s.parameters.mode for s in (steps.max, steps.average, steps.min)] == [
        "max",
        "average",
        "min",
    ]
    assert steps.plane.parameters.input_shape == (10, 16, 14, 14)
