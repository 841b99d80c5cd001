"""Custom ops: schemas, tracing, `torch.compile` and `torch.export`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from torch import nn

import pooling_client.torch as remote
import pooling_engine
from pooling_client.torch import _layer, _ops, functional
from tests.support import cases

MAX, AVERAGE = "window=sliding;mode=max", "window=sliding;mode=average;ceil_mode=True"
SIZES = [3, 2, 1, 1, 1, 2, 2, 1, 0, 0]
LAST = ";layout=channels_last"


def samples(last: bool) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return each op with arguments."""
    suffix = LAST if last else ""
    format_ = torch.channels_last if last else torch.contiguous_format

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(memory_format=format_).requires_grad_()

    x, y = tensor(2, 3, 9, 8), tensor(2, 3, 5, 4)
    indices = functional.max_pool2d(x, (3, 2), (2, 2), (1, 0), return_indices=True)[1]
    window = torch.ops.pooling.select(x, MAX + suffix, SIZES, "")[1]
    shape = [2, 3, 9, 8]
    return [
        (_ops.forward, (x, AVERAGE + suffix, SIZES, "")),
        (_ops.forward, (x, f"window=adaptive;mode=average{suffix}", [4, 3], "")),
        (_ops.forward, (x, f"window=sliding;mode=lp;norm_p=3.0{suffix}", SIZES, "")),
        (_ops.forward, (tensor(0, 3, 9, 8), MAX + suffix, SIZES, "")),
        (_ops.forward, (x.detach().int(), f"window=sliding;mode=sum{suffix}", SIZES, "")),
        (_ops.select, (x, MAX + suffix, SIZES, "")),
        (_ops.select, (x, f"window=adaptive;mode=max{suffix}", [4, 3], "")),
        (_ops.backward, (y, AVERAGE + suffix, SIZES, shape, "")),
        (_ops.scatter, (y, window, MAX + suffix, SIZES, shape, "")),
        (_ops.scatter, (y, indices, MAX + suffix, SIZES, shape, "")),
        (_ops.gather, (x, window, MAX + suffix, SIZES, "")),
    ]


@pytest.mark.usefixtures("address")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("number", range(11))
def test_opcheck(number: int, last: bool) -> None:
    op, arguments = samples(last)[number]
    checks = torch.library.opcheck(op, arguments)
    assert set(checks.values()) == {"SUCCESS"}, checks


@pytest.mark.usefixtures("address")
def test_opcheck_of_a_gradient_without_derivative() -> None:
    text, x, dy = (
        "window=sliding;mode=lp;norm_p=3.0",
        torch.randn(2, 3, 9, 8),
        torch.randn(2, 3, 5, 4),
    )
    checks = torch.library.opcheck(_ops.input_backward, (dy, x, text, SIZES, ""))
    assert set(checks.values()) == {"SUCCESS"}, checks


@cases.many_examples
@given(cases.ranked_windows(2))
def test_traced_sizes_equal_planned_sizes(drawn: Any) -> None:
    """The formula for symbolic sizes gives what the engine plans."""
    options, inputs, _ = drawn
    if "global_window" in options:
        return
    text = f"mode=max;ceil_mode={options.get('ceil_mode', False)}"
    if "adaptive_output" in options:
        text, sizes = "mode=max;window=adaptive", list(options["adaptive_output"])
    else:
        text += ";window=sliding"
        rows = [options[name] for name in ("kernel", "stride", "dilation", "padding")]
        sizes = [
            size
            for kernel, stride, dilation, pads in zip(*rows, strict=True)
            for size in (kernel, stride, dilation, *pads)
        ]
    spec = _layer.spec_of(text, tuple(sizes))
    plan = pooling_engine.plan(spec, (1, 1, *inputs), "float32")
    assert _layer.output_sizes(text, sizes, inputs) == list(plan.output_shape[2:])
    assert _layer.kernel_sizes(text, sizes, inputs) == [axis.kernel for axis in plan.planned_axes]


class Net(nn.Module):
    """Convolutions with pooling of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            remote.MaxPool2d(3, 2, 1),
            nn.Conv2d(4, 4, 3, padding=1),
            remote.AvgPool2d(2, ceil_mode=True),
            remote.AdaptiveAvgPool2d((None, 1)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def gradients(model: nn.Module, call: Any, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    y = call(x)
    y.square().sum().backward()
    return [y.detach(), *(each.grad.clone() for each in model.parameters())]


@pytest.mark.usefixtures("address")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_compile_as_one_graph_with_dynamic_shapes() -> None:
    torch._dynamo.reset()
    model = Net()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 3, 16, 16), (3, 3, 17, 20), (1, 3, 33, 31)):
        x = torch.randn(shape)
        for actual, expected in zip(
            gradients(model, compiled, x), gradients(model, model, x), strict=True
        ):
            torch.testing.assert_close(actual, expected)


@pytest.mark.usefixtures("address")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_compile_with_inductor() -> None:
    torch._dynamo.reset()
    function = torch.compile(lambda x: remote.MaxPool2d(3, 2, 1)(x) + 1, fullgraph=True)
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    torch.testing.assert_close(function(x), functional.max_pool2d(x, 3, 2, 1) + 1)


@pytest.mark.usefixtures("address")
def test_dynamic_shapes_compile_once() -> None:
    torch._dynamo.reset()
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    function = torch.compile(
        lambda x: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        fullgraph=True,
        dynamic=True,
        backend=backend,
    )
    for size in (8, 9, 15, 40):
        x = torch.randn(2, 3, size, size + 1)
        torch.testing.assert_close(function(x), functional.max_pool2d(x, 3, 2, 1, ceil_mode=True))
    assert len(graphs) == 1


@pytest.mark.usefixtures("address")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_export_with_a_dynamic_batch_and_size() -> None:
    model = Net()
    size = {
        0: torch.export.Dim("n"),
        2: torch.export.Dim("h", min=8),
        3: torch.export.Dim("w", min=8),
    }
    program = torch.export.export(model, (torch.randn(2, 3, 16, 16),), dynamic_shapes=(size,))
    called = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert torch.ops.pooling.forward.default in called
    x = torch.randn(5, 3, 19, 24)
    torch.testing.assert_close(program.module()(x), model(x))
