"""One face for several libraries: pool, and pull a gradient back, as a `PoolSpec`'s options say.

Tensors are NumPy arrays, channels first. What a library has no operation or option for raises
`NotOffered`; what it has and refuses, or fails at, raises whatever the library raises.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

import pooling_engine
from pooling_engine import PoolSpec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

Options = dict[str, Any]


class NotOffered(Exception):  # noqa: N818  not an error: a fact about the library
    """The library has no such operation or option."""


class Library:
    """What every library is asked; what it does not override it does not offer."""

    title = ""
    modules: tuple[str, ...] = ()

    def __init__(self):
        for module in self.modules:
            setattr(self, module.rpartition(".")[2], importlib.import_module(module))

    def forward(self, x, options: Options):
        raise NotOffered

    def indices(self, x, options: Options):
        """The selected elements, as positions in the spatial plane."""
        raise NotOffered

    def tensor_indices(self, x, options: Options):
        raise NotOffered

    def backward(self, x, dy, options: Options):
        raise NotOffered

    def unpool(self, values, indices, size: int):
        raise NotOffered

    def column_major(self, x, options: Options):
        raise NotOffered

    def channels_last_indices(self, x, options: Options, has_batch: bool):
        raise NotOffered


class Engine(Library):
    """The engine of this repository."""

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
        spec = PoolSpec("max", size, size - 1, 1)  # two windows that both reach every element
        shape = (1, 1, size)
        return pooling_engine.backward(values, spec, input_shape=shape, indices=indices)


SUMS = ("sum", "average")


class Torch(Library):
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
        """The output, or for maxima the output and the indices."""
        mode, count = options["mode"], x.dim() - 2
        named = {"max": "max", "average": "avg", "sum": "avg", "lp": "lp"}.get(mode)
        if "adaptive_output" in options and named in ("max", "avg"):
            pool = getattr(self.functional, f"adaptive_{named}_pool{count}d")
            more = {"return_indices": True} if mode == "max" else {}
            return pool(x, options["adaptive_output"], **more)
        padding = options.get("padding", 0)
        has_option = isinstance(padding, int) and (mode == "max" or "dilation" not in options)
        if named is None or not has_option or (mode == "sum" and count == 1):
            raise NotOffered
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
            raise NotOffered
        return self.pool(self.tensor(x), options)[1].numpy()

    def backward(self, x, dy, options):
        tensor = self.tensor(x).requires_grad_()
        output = self.pool(tensor, options)
        if options["mode"] == "max":
            output, indices = output
            if indices.numel() and indices.max() >= np.prod(x.shape[2:]):
                raise NotOffered  # it would write outside the gradient
        return self.array(self.torch.autograd.grad(output, tensor, self.tensor(dy))[0])

    def unpool(self, values, indices, size):
        values, indices = self.torch.from_numpy(values), self.torch.from_numpy(indices)
        return self.functional.max_unpool1d(values, indices, 2, output_size=(size,)).numpy()


class OnnxRuntime(Library):
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
        how = self.onnxruntime.SessionOptions()
        how.log_severity_level = 4
        session = self.onnxruntime.InferenceSession(
            model.SerializeToString(), how, providers=["CPUExecutionProvider"]
        )
        return session.run(None, sources)

    def pool(self, x, options, outputs=1, **attributes):
        operator = {"max": "MaxPool", "average": "AveragePool", "lp": "LpPool"}.get(options["mode"])
        if operator is None or "kernel" not in options:
            raise NotOffered
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
            raise NotOffered
        return self.pool(x, options, outputs=2, **attributes)[1]

    def indices(self, x, options):
        if x.shape[:2] != (1, 1):
            raise NotOffered
        return self.tensor_indices(x, options)

    def unpool(self, values, indices, size):
        inputs = [values, indices, np.array([1, 1, size])]
        return self.run("MaxUnpool", inputs, [values.dtype], kernel_shape=[2], strides=[2])[0]

    def column_major(self, x, options):
        return self.tensor_indices(x, options, storage_order=1)


ONNX_SIZES = {"kernel_shape": "kernel", "strides": "stride", "dilations": "dilation"}
SAME = {"same_upper": "SAME", "same_lower": "SAME_LOWER"}


class Jax(Library):
    title = "JAX / Flax"
    modules = ("jax", "flax.linen")

    def __init__(self):
        super().__init__()
        self.jax.config.update("jax_enable_x64", True)

    def pool(self, x, options):
        mode, count = options["mode"], x.ndim - 2
        if mode == "lp" or "kernel" not in options or options.get("ceil_mode"):
            raise NotOffered
        kernel, padding = (options["kernel"],) * count, options.get("padding", 0)
        strides = (options.get("stride") or options["kernel"],) * count
        pads = SAME.get(padding) if isinstance(padding, str) else [(padding, padding)] * count
        if mode == "average":
            if "dilation" in options:
                raise NotOffered
            include = options.get("count_include_pad", True)
            last = self.jax.numpy.moveaxis(x, 1, -1)
            output = self.linen.avg_pool(last, kernel, strides, pads, count_include_pad=include)
            return self.jax.numpy.moveaxis(output, -1, 1)
        lax = self.jax.lax
        reducer = {"max": lax.max, "min": lax.min, "sum": lax.add}[mode]
        start = np.array(0, x.dtype)
        if mode != "sum":
            is_float = not np.issubdtype(x.dtype, np.integer)
            limits = (-np.inf, np.inf) if is_float else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
            start = np.array(limits[mode == "min"]).astype(x.dtype)
        pads = pads if isinstance(pads, str) else [(0, 0), (0, 0), *pads]
        ones, dilation = (1, 1), (options.get("dilation", 1),) * count
        return lax.reduce_window(
            x, start, reducer, ones + kernel, ones + strides, pads, window_dilation=ones + dilation
        )

    def forward(self, x, options):
        return np.asarray(self.pool(self.jax.numpy.asarray(x), options))

    def backward(self, x, dy, options):
        if "dilation" in options:
            raise NotOffered
        _, pull = self.jax.vjp(lambda x: self.pool(x, options), self.jax.numpy.asarray(x))
        return np.asarray(pull(self.jax.numpy.asarray(dy))[0])


class TensorFlow(Library):
    title = "TensorFlow"
    modules = ("tensorflow",)

    def pool(self, x, options):
        """Pools a channels-last tensor."""
        mode, padding = options["mode"], options.get("padding", 0)
        named = {"max": "MAX", "average": "AVG"}.get(mode)
        if named is None or "kernel" not in options or options.get("ceil_mode"):
            raise NotOffered
        count, kernel = len(x.shape) - 2, options["kernel"]
        stride = options.get("stride") or kernel
        if padding == "same_lower" or (mode == "average" and padding and include_pads(options)):
            raise NotOffered
        if padding == "same_upper" or not padding:
            return self.tensorflow.nn.pool(
                x,
                [kernel] * count,
                named,
                [stride] * count,
                padding="SAME" if padding else "VALID",
                dilations=[options.get("dilation", 1)] * count,
            )
        if mode == "average" or "dilation" in options or count > 2:
            raise NotOffered
        lifted = x[:, None] if count == 1 else x
        rows = (1, 1, (0, 0)) if count == 1 else (kernel, stride, (padding, padding))
        output = self.tensorflow.nn.max_pool2d(
            lifted,
            [rows[0], kernel],
            [rows[1], stride],
            [(0, 0), rows[2], (padding, padding), (0, 0)],
        )
        return output[:, 0] if count == 1 else output

    def forward(self, x, options):
        return np.moveaxis(self.pool(self.tensorflow.constant(last(x)), options).numpy(), -1, 1)

    def channels_last_indices(self, x, options, has_batch):
        padding = options.get("padding", 0)
        if options["mode"] != "max" or padding not in (0, "same_upper") or "ceil_mode" in options:
            raise NotOffered
        lifted = last(x)[:, None] if x.ndim == 3 else last(x)
        kernel, stride = options["kernel"], options.get("stride") or options["kernel"]
        _, indices = self.tensorflow.nn.max_pool_with_argmax(
            lifted,
            [1, kernel] if x.ndim == 3 else kernel,
            [1, stride] if x.ndim == 3 else stride,
            "SAME" if padding else "VALID",
            include_batch_in_index=has_batch,
        )
        return indices.numpy()

    def indices(self, x, options):
        if x.shape[1] != 1 or x.ndim > 4:
            raise NotOffered
        return self.channels_last_indices(x, options, has_batch=False)

    def backward(self, x, dy, options):
        tensor = self.tensorflow.constant(last(x))
        with self.tensorflow.GradientTape() as tape:
            tape.watch(tensor)
            output = self.pool(tensor, options)
        dy = self.tensorflow.constant(last(dy))
        return np.moveaxis(tape.gradient(output, tensor, dy).numpy(), -1, 1)


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def include_pads(options):
    return options.get("count_include_pad", True)


def installed() -> list[Library]:
    """This engine, and the libraries that can be imported."""
    libraries = []
    for library in (Engine, Torch, OnnxRuntime, Jax, TensorFlow):
        try:
            libraries.append(library())
        except ImportError as error:
            print(f"{library.title} is left out: {error}")
    return libraries
