"""JAX and TensorFlow behind the interface of `libraries`."""

from __future__ import annotations

import os

import numpy as np

from benchmarks.exactness.libraries import Library, NotSupported

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SAME = {"same_upper": "SAME", "same_lower": "SAME_LOWER"}


class Jax(Library):
    """JAX: `lax.reduce_window`, and Flax for averages, on the CPU."""

    title = "JAX / Flax"
    modules = ("jax", "flax.linen")

    def __init__(self):
        super().__init__()
        self.jax.config.update("jax_enable_x64", True)

    def pool(self, x, options):
        mode, count = options["mode"], x.ndim - 2
        if mode == "lp" or "kernel" not in options or options.get("ceil_mode"):
            raise NotSupported
        kernel, padding = (options["kernel"],) * count, options.get("padding", 0)
        strides = (options.get("stride") or options["kernel"],) * count
        pads = SAME.get(padding) if isinstance(padding, str) else [(padding, padding)] * count
        if mode == "average":
            if "dilation" in options:
                raise NotSupported
            include = options.get("count_include_pad", True)
            last = self.jax.numpy.moveaxis(x, 1, -1)
            output = self.linen.avg_pool(last, kernel, strides, pads, count_include_pad=include)
            return self.jax.numpy.moveaxis(output, -1, 1)
        lax = self.jax.lax
        reducer = {"max": lax.max, "min": lax.min, "sum": lax.add}[mode]
        start = np.array(0, x.dtype)
        if mode != "sum":
            is_float = not np.issubdtype(x.dtype, np.integer)
            limits = (
                (-np.inf, np.inf) if is_float else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
            )
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
            raise NotSupported
        _, pull = self.jax.vjp(lambda x: self.pool(x, options), self.jax.numpy.asarray(x))
        return np.asarray(pull(self.jax.numpy.asarray(dy))[0])


class TensorFlow(Library):
    """TensorFlow: `tf.nn` on the CPU, channels last; its averages never count padding."""

    title = "TensorFlow"
    modules = ("tensorflow",)

    def pool(self, x, options):
        """Pool a channels-last tensor."""
        mode, padding = options["mode"], options.get("padding", 0)
        is_named, is_max, count = isinstance(padding, str), mode == "max", len(x.shape) - 2
        counts_pads = bool(padding) and options.get("count_include_pad", True)
        if (
            mode not in ("max", "average")
            or "kernel" not in options
            or options.get("ceil_mode")
            or "dilation" in options
            or padding == "same_lower"
            or (not is_max and (counts_pads or (padding and not is_named)))
        ):
            raise NotSupported
        kernel, stride = options["kernel"], options.get("stride") or options["kernel"]
        nn = self.tensorflow.nn
        if is_named or not padding:
            pool = nn.max_pool if is_max else nn.avg_pool
            return pool(x, kernel, stride, "SAME" if is_named else "VALID")
        if count == 1:  # explicit pads need two axes
            pads = [(0, 0), (0, 0), (padding, padding), (0, 0)]
            return nn.max_pool2d(x[:, None], [1, kernel], [1, stride], pads)[:, 0]
        return nn.max_pool2d(x, kernel, stride, [(0, 0), *[(padding, padding)] * count, (0, 0)])

    def forward(self, x, options):
        return np.moveaxis(self.pool(self.tensorflow.constant(last(x)), options).numpy(), -1, 1)

    def channels_last_indices(self, x, options, has_batch):
        if options["mode"] != "max" or set(options) - {"mode", "kernel", "stride"}:
            raise NotSupported
        lifted = last(x)[:, None] if x.ndim == 3 else last(x)
        kernel, stride = options["kernel"], options.get("stride") or options["kernel"]
        _, indices = self.tensorflow.nn.max_pool_with_argmax(
            lifted,
            [1, kernel] if x.ndim == 3 else kernel,
            [1, stride] if x.ndim == 3 else stride,
            "VALID",
            include_batch_in_index=has_batch,
        )
        return indices.numpy()

    def indices(self, x, options):
        if x.shape[1] != 1 or "kernel" not in options:
            raise NotSupported
        return self.channels_last_indices(x, options, has_batch=False)

    def backward(self, x, dy, options):
        tensor = self.tensorflow.constant(last(x))
        with self.tensorflow.GradientTape() as tape:
            tape.watch(tensor)
            output = self.pool(tensor, options)
        dy = self.tensorflow.constant(last(dy))
        return np.moveaxis(tape.gradient(output, tensor, dy).numpy(), -1, 1)


def last(x):
    """Return the tensor with its channels last."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))
