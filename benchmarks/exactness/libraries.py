"""Common interface to several libraries: pooling and gradients with the options of a `PoolSpec`.

Tensors are NumPy arrays, channels first. A missing operation or option raises `NotSupported`; any
other error is the library's own.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import pooling_engine
from pooling_engine import PoolSpec

Options = dict[str, Any]


class NotSupported(Exception):  # noqa: N818  a fact about the library, not an error
    """The library has no such operation or option."""


class Library:
    """Interface of all libraries; a method that is not overridden is not supported."""

    title = ""
    modules: tuple[str, ...] = ()

    def __init__(self):
        for module in self.modules:
            setattr(self, module.rpartition(".")[2], importlib.import_module(module))

    def forward(self, x, options: Options):
        raise NotSupported

    def indices(self, x, options: Options):
        """Return the selected elements as positions in the spatial plane."""
        raise NotSupported

    def tensor_indices(self, x, options: Options):
        raise NotSupported

    def backward(self, x, dy, options: Options):
        raise NotSupported

    def unpool(self, values, indices, size: int):
        raise NotSupported

    def column_major(self, x, options: Options):
        raise NotSupported

    def channels_last_indices(self, x, options: Options, has_batch: bool):
        raise NotSupported


class Engine(Library):
    """Engine of this repository."""

    title = "this engine"

    def forward(self, x, options):
        return pooling_engine.forward(x, PoolSpec(**options)).output

    def indices(self, x, options, index_format="plane"):
        spec = PoolSpec(**options)
        return pooling_engine.forward(
            x, spec, return_indices=True, index_format=index_format
        ).indices

    def tensor_indices(self, x, options):
        return self.indices(x, options, "tensor")

    def backward(self, x, dy, options):
        residual = {"input_shape": x.shape} if options["mode"] in SUMS else {"input": x}
        return pooling_engine.backward(dy, PoolSpec(**options), **residual)

    def unpool(self, values, indices, size):
        spec = PoolSpec("max", size - 1, 1)  # two windows that overlap
        shape = (1, 1, size)
        return pooling_engine.backward(values, spec, input_shape=shape, indices=indices)


SUMS = ("sum", "average")


class Torch(Library):
    """PyTorch on the CPU; an average with a divisor of 1 replaces the missing sum."""

    title = "PyTorch"
    modules = ("torch", "torch.nn.functional")

    def tensor(self, x):
        if x.dtype.name != "bfloat16":
            return self.torch.from_numpy(np.array(x))
        return self.torch.from_numpy(x.view(np.int16)).view(self.torch.bfloat16)

    def array(self, tensor):
        tensor = tensor.detach()
        if tensor.dtype != self.torch.bfloat16:
            return tensor.numpy()
        return tensor.view(self.torch.int16).numpy().view("bfloat16")

    def pool(self, x, options):
        """Return the output, or for maxima the output and the indices."""
        mode, count = options["mode"], x.dim() - 2
        named = {"max": "max", "average": "avg", "sum": "avg", "lp": "lp"}.get(mode)
        if "adaptive_output" in options and named in ("max", "avg"):
            pool = getattr(self.functional, f"adaptive_{named}_pool{count}d")
            more = {"return_indices": True} if mode == "max" else {}
            return pool(x, options["adaptive_output"], **more)
        padding = options.get("padding", 0)
        has_option = isinstance(padding, int) and (mode == "max" or "dilation" not in options)
        if named is None or not has_option or (mode == "sum" and count == 1):
            raise NotSupported
        layer = {"stride": options.get("stride"), "ceil_mode": options.get("ceil_mode", False)}
        if mode == "lp":
            pool = getattr(self.functional, f"lp_pool{count}d")
            return pool(x, options.get("norm_p", 2), options["kernel"], **layer)
        layer["padding"] = padding
        if mode == "max":
            layer |= {"dilation": options.get("dilation", 1), "return_indices": True}
        elif mode == "sum":
            layer["divisor_override"] = 1
        else:
            layer["count_include_pad"] = options.get("count_include_pad", True)
        return getattr(self.functional, f"{named}_pool{count}d")(x, options["kernel"], **layer)

    def forward(self, x, options):
        result = self.pool(self.tensor(x), options)
        return self.array(result[0] if options["mode"] == "max" else result)

    def indices(self, x, options):
        if options["mode"] != "max":
            raise NotSupported
        return self.pool(self.tensor(x), options)[1].numpy()

    def backward(self, x, dy, options):
        tensor = self.tensor(x).requires_grad_()
        output = self.pool(tensor, options)
        if options["mode"] == "max":
            output, indices = output
            if indices.numel() and indices.max() >= np.prod(x.shape[2:]):
                raise NotSupported  # PyTorch would write outside the gradient
        return self.array(self.torch.autograd.grad(output, tensor, self.tensor(dy))[0])

    def unpool(self, values, indices, size):
        values, indices = self.torch.from_numpy(values), self.torch.from_numpy(indices)
        return self.functional.max_unpool1d(values, indices, 2, output_size=(size,)).numpy()


class OnnxRuntime(Library):
    """ONNX Runtime on the CPU, one operator of opset 22 per model; it has no gradients."""

    title = "ONNX Runtime"
    modules = ("onnx", "onnxruntime")

    def run(self, operator, inputs, types, **attributes):
        helper = self.onnx.helper
        info, of_type = helper.make_tensor_value_info, helper.np_dtype_to_tensor_dtype
        sources = {f"x{number}": array for number, array in enumerate(inputs)}
        results = {f"y{number}": np.dtype(dtype) for number, dtype in enumerate(types)}
        graph = helper.make_graph(
            [helper.make_node(operator, list(sources), list(results), **attributes)],
            operator,
            [info(name, of_type(array.dtype), array.shape) for name, array in sources.items()],
            [info(name, of_type(dtype), None) for name, dtype in results.items()],
        )
        opset = [helper.make_opsetid("", 22)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        session_options = self.onnxruntime.SessionOptions()
        session_options.log_severity_level = 4
        session = self.onnxruntime.InferenceSession(
            model.SerializeToString(), session_options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, sources)

    def pool(self, x, options, outputs=1, **attributes):
        operator = {"max": "MaxPool", "average": "AveragePool", "lp": "LpPool"}.get(options["mode"])
        if operator is None or "kernel" not in options:
            raise NotSupported
        count, padding = x.ndim - 2, options.get("padding", 0)
        for name, word in ONNX_SIZES.items():
            if options.get(word) is not None:
                attributes[name] = [options[word]] * count
        attributes.setdefault("strides", attributes["kernel_shape"])
        if isinstance(padding, str):
            attributes["auto_pad"] = padding.upper()
        else:
            pairs = padding if isinstance(padding, list) else [(padding, padding)] * count
            attributes["pads"] = [pair[side] for side in (0, 1) for pair in pairs]
        attributes["ceil_mode"] = int(options.get("ceil_mode", False))
        if operator == "AveragePool":
            attributes["count_include_pad"] = int(options.get("count_include_pad", True))
        if operator == "LpPool":
            attributes["p"] = options.get("norm_p", 2)
        return self.run(operator, [x], [x.dtype, "int64"][:outputs], **attributes)

    def forward(self, x, options):
        return self.pool(x, options)[0]

    def tensor_indices(self, x, options, **attributes):
        if options["mode"] != "max":
            raise NotSupported
        return self.pool(x, options, outputs=2, **attributes)[1]

    def indices(self, x, options):
        if x.shape[:2] != (1, 1):
            raise NotSupported
        return self.tensor_indices(x, options)

    def unpool(self, values, indices, size):
        inputs = [values, indices, np.array([1, 1, size])]
        return self.run("MaxUnpool", inputs, [values.dtype], kernel_shape=[2], strides=[2])[0]

    def column_major(self, x, options):
        return self.tensor_indices(x, options, storage_order=1)


ONNX_SIZES = {"kernel_shape": "kernel", "strides": "stride", "dilations": "dilation"}
