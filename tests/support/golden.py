"""Forty golden corner cases: the right answer, and how other libraries answer.

Data only. `docs/exactness.md` lists the same cases in the same order, with the answers of every
library. `others` quotes its verdict: "same", or the difference. Text after a full stop is about
systems that the document does not cover.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  NumPy learns bfloat16
import numpy as np

INF, NAN = np.inf, np.nan
FLOATS = ("float32", "float64")


class Golden(NamedTuple):
    """One case; fields that are None are not part of it.

    Attributes:
        number: the row in `docs/exactness.md`.
        others: the answers of other libraries.
        options: of the spec.
        x: the input: one plane as nested lists, or a whole tensor as an array.
        y: the output.
        cells: the selected positions in the plane.
        dy: the gradient of the output.
        dx: the gradient of the input.
        at: the position that `dx`, then one number, refers to; default: the whole tensor.
        outputs: the spatial sizes of the output, or "error".
        positions: the selected positions in the whole tensor.
        foreign: the same positions in formats outside the contract, by name.
        dtypes: the element types in which it holds.
    """

    number: int
    others: str
    options: dict
    x: Any
    y: Any = None
    cells: Any = None
    dy: Any = None
    dx: Any = None
    at: Any = ...
    outputs: Any = None
    positions: Any = None
    foreign: Any = None
    dtypes: tuple = FLOATS


def tensor(values, dtype="float64"):
    """A field of a case as a tensor: an array is a whole one, anything else one plane."""
    array = np.asarray(values, dtype)
    return array if isinstance(values, np.ndarray) else array[None, None]


def full(value, *shape):
    """A tensor of one value, in no memory."""
    return np.broadcast_to(value, shape)


def peak(size):
    """A square plane of zeros with a one just after its middle."""
    x = np.zeros((1, 1, size, size))
    x[0, 0, size // 2, size // 2] = 1
    return x


MAX, AVERAGE, LP = {"mode": "max"}, {"mode": "average"}, {"mode": "lp"}
EXCLUDE = AVERAGE | {"count_include_pad": False}
CEIL = {"ceil_mode": True}
PADDED = {"kernel": 3, "stride": 1, "padding": 1}
NO_TAP = {"kernel": 2, "stride": 2, "padding": 1, "dilation": 2}
WIDE = CEIL | {"kernel": 4, "stride": 3, "padding": 2}
SQUARE_WINDOW = CEIL | {"kernel": 3, "stride": 2, "padding": 1}
DILATED = CEIL | {"kernel": 3, "stride": 3, "padding": 1, "dilation": 2}
SAME = {"kernel": 3, "stride": 2, "padding": "same_upper"}
UNEVEN = CEIL | {"kernel": 3, "stride": 2, "padding": [(0, 2)]}
LAST = MAX | {"kernel": 2, "layout": "channels_last"}

SQUARE = [[4 / 9, 2 / 3, 1 / 3], [2 / 3, 1, 1 / 2], [1 / 3, 1 / 2, 1 / 4]]
MIDDLES = [10, 11, 14, 15, 26, 27, 30, 31]

ALL = "PyTorch, ONNX Runtime, JAX, TensorFlow: same"
TWO = "PyTorch, ONNX Runtime: same"

GOLDEN = (
    Golden(1, ALL, MAX | {"kernel": 3}, [2, 2, 2], [2], [0], [1], [1, 0, 0]),
    Golden(2, ALL, MAX | {"kernel": 3, "stride": 1}, [1, 3, 3, 1, 3], [3, 3, 3], [1, 1, 2],
           [1, 10, 100], [0, 11, 100, 0, 0]),
    Golden(3, ALL, MAX | PADDED, [-5, -6], [-5, -5], [0, 0]),
    Golden(4, "PyTorch, JAX: same; "
           "ONNX Runtime, TensorFlow: y -3.4028e+38 -3.4028e+38 -3.4028e+38 -3.4028e+38",
           MAX | PADDED, [-INF] * 4, [-INF] * 4, [0, 0, 1, 2]),
    Golden(5, "PyTorch: index 3, dx 0 0 0 1 0; ONNX Runtime: y 5, index 4; JAX: dx 0 0 0 0 1; "
           "TensorFlow: y 5, index 4, dx 0 0 0 0 1",
           MAX | {"kernel": 5}, [1, NAN, 3, NAN, 5], [NAN], [1], [1], [0, 1, 0, 0, 0]),
    Golden(6, "PyTorch: same; ONNX Runtime: y 3, index 2; JAX: dx 0 0 1; "
           "TensorFlow: y 3, index 2, dx 0 0 1",
           MAX | {"kernel": 3}, [2, NAN, 3], [NAN], [1], [1], [0, 1, 0]),
    Golden(7, "PyTorch, ONNX Runtime, TensorFlow: same; JAX: y 0",
           MAX | {"kernel": 2}, [-0.0, 0.0], [-0.0], [0]),
    Golden(8, "PyTorch: index 1; ONNX Runtime: y -3.4028e+38; JAX: same",
           MAX | NO_TAP, [7], [-INF], [-1], [1], [0]),
    Golden(9, "PyTorch: index 2; ONNX Runtime: error; JAX: same",
           MAX | NO_TAP, [[7]], [[-(2**31)]], [[-1]], dtypes=("int32",)),
    Golden(9, "PyTorch: index 2; ONNX Runtime: index -2; JAX: same",
           MAX | NO_TAP, [[7]], [[0]], [[-1]], dtypes=("uint8",)),
    Golden(10, TWO, MAX | NO_TAP | CEIL, [1, 2], [2, 2], [1, 1]),
    Golden(11, "PyTorch: same; ONNX Runtime: error",
           MAX | NO_TAP | CEIL, [[-1, -2], [-3, -4]], [[-4] * 2] * 2, [[3] * 2] * 2,
           dtypes=("int64",)),
    Golden(12, TWO + ". Caffe: outputs 3",
           MAX | CEIL | {"kernel": 1, "stride": 2}, [0] * 4, outputs=[2]),
    Golden(13, TWO, MAX | CEIL | {"kernel": 3, "padding": 1}, [[0] * 2] * 2, outputs=[1, 1]),
    Golden(14, TWO, MAX | CEIL | {"kernel": 4, "padding": 2}, [0] * 9, outputs=[3]),
    Golden(15, "ONNX Runtime: outputs 4; JAX: same",
           MAX | SAME | {"stride": 1, "dilation": 2}, [0] * 6, outputs=[6]),
    Golden(16, "PyTorch: same; ONNX Runtime: outputs 0",
           MAX | CEIL | {"kernel": 3, "stride": 2}, [0], outputs="error"),
    Golden(17, TWO + ". onnx.reference: same", AVERAGE | WIDE, [1] * 5, [0.5, 1, 1 / 3]),
    Golden(18, TWO, EXCLUDE | WIDE, [1] * 5, [1, 1, 1]),
    Golden(19, TWO, AVERAGE | SQUARE_WINDOW, [[1] * 4] * 4, SQUARE),
    Golden(20, TWO + ". onnx.reference: y 0.5 2", AVERAGE | CEIL | {"kernel": 3}, [0, 1, 2, 3],
           [1, 3]),
    Golden(21, "ONNX Runtime: same", AVERAGE | DILATED, [1] * 7, [2 / 3, 1, 1 / 2]),
    Golden(22, "ONNX Runtime, JAX, TensorFlow: same", EXCLUDE | SAME, [1] * 4, [1, 1]),
    Golden(22, "ONNX Runtime, JAX: same", AVERAGE | SAME, [1] * 4, [1, 2 / 3]),
    Golden(23, "ONNX Runtime: same", AVERAGE | UNEVEN, [1] * 4, [1, 2 / 3]),
    Golden(24, "PyTorch: y 1; ONNX Runtime: same",
           LP | {"norm_p": 1, "kernel": 2}, [-3, 4], [7], None, [1], [-1, 1]),
    Golden(25, "PyTorch: y nan; ONNX Runtime: same",
           LP | {"norm_p": 3, "kernel": 2}, [-5, 4], [189 ** (1 / 3)]),
    Golden(26, "PyTorch: y 3 3; ONNX Runtime: same. onnx.reference: y 2 3",
           LP | CEIL | {"norm_p": 1, "kernel": 3}, [1] * 4, [3, 1]),
    Golden(27, TWO, LP | {"kernel": 2}, [0, 0], [0], None, [1], [0, 0]),
    Golden(28, TWO, LP | {"kernel": 2}, [-3, 4], [5], None, [1], [-0.6, 0.8]),
    Golden(29, "PyTorch, ONNX Runtime: y inf", LP | {"kernel": 2}, [1e30, 1e30], [2**0.5 * 1e30]),
    Golden(30, "JAX: same", {"mode": "min", "kernel": 2}, [[-128, 5], [6, 7]], [[-128]], [[0]],
           dtypes=("int8",)),
    Golden(31, "PyTorch, JAX: dx 0.0625; TensorFlow: same", AVERAGE | {"kernel": 65, "stride": 1},
           full(1, 1, 1, 128, 128), None, None, full(1, 1, 1, 64, 64), 0.96875,
           at=(0, 0, 64, 64), dtypes=("bfloat16",)),
    Golden(32, "PyTorch, JAX, TensorFlow: dx 256", MAX | {"kernel": 33, "stride": 1},
           peak(64), None, None, full(1, 1, 1, 32, 32), 1024,
           at=(0, 0, 32, 32), dtypes=("bfloat16",)),
    Golden(33, "PyTorch, ONNX Runtime, TensorFlow: y 0.11534; JAX: same",
           AVERAGE | {"kernel": 4096}, full(0.1, 1, 1, 4096, 4096), [[np.float32(0.1)]],
           dtypes=("float32",)),
    Golden(34, "PyTorch: same", AVERAGE | {"adaptive_output": 3}, range(5), [0.5, 2, 3.5]),
    Golden(34, "PyTorch: same", MAX | {"adaptive_output": 3}, range(5), [1, 3, 4], [1, 3, 4]),
    Golden(35, "PyTorch, ONNX Runtime: x 0 2 0 0",  # unpooling is the backward pass
           MAX | {"kernel": 3, "stride": 1}, [0, 9, 0, 0], [9, 9], [1, 1], [1, 2], [0, 3, 0, 0]),
    Golden(36, ALL, MAX | {"kernel": 2}, full(0, 0, 3, 4), full(0, 0, 3, 2), full(0, 0, 3, 2),
           full(0, 0, 3, 2), full(0, 0, 3, 4)),
    Golden(37, TWO, MAX | {"kernel": 2}, np.arange(16).reshape(2, 2, 4),
           np.arange(1, 16, 2).reshape(2, 2, 2), np.array([[[1, 3]] * 2] * 2),
           positions=np.arange(1, 16, 2).reshape(2, 2, 2)),
    Golden(38, "ONNX Runtime: index 5 13 7 15 21 29 23 31",
           MAX | {"kernel": 2}, np.arange(32).reshape(2, 1, 4, 4),
           cells=np.array([[[[5, 7], [13, 15]]]] * 2),
           foreign={"index": [5, 13, 7, 15, 21, 29, 23, 31]}),
    Golden(39, "TensorFlow: without 10 11 14 15 26 27 30 31 10 11 14 15 26 27 30 31; "
           "with 10 11 14 15 26 27 30 31 42 43 46 47 58 59 62 63",
           LAST, np.arange(64).reshape(2, 4, 4, 2),
           cells=np.array([[[[5] * 2, [7] * 2], [[13] * 2, [15] * 2]]] * 2),
           foreign={"without": MIDDLES * 2, "with": MIDDLES + [32 + at for at in MIDDLES]}),
    Golden(40, ALL, MAX | {"kernel": 1, "stride": 3}, range(6), [0, 3], [0, 3], [1, 1],
           [1, 0, 0, 1, 0, 0]),
)  # fmt: skip
