"""Write the test vectors: ``python -m tests.vectors.generate``. The oracle computes the replies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pooling_wire.v1 import pooling_pb2 as pb
from tests.support import cases, oracle
from tests.support.requests import adaptive, backward, forward, sliding, spec, tensor
from tests.vectors import tables
from tests.vectors.messages import (
    Record,
    request_record,
    spec_message,
    tensor_message,
    tensor_record,
)
from tests.vectors.tables import Case

FOLDER = Path(__file__).parent
SELECTING = ("max", "min")


def forward_vector(case: Case) -> Record:
    """Return the vector of a forward call; MAX and MIN with indices."""
    pooled = cases.expected_forward(case.options, case.x)
    selects = case.options["mode"] in SELECTING
    message = pb.ForwardRequest(
        spec=_spec(case), return_indices=selects, input=tensor_message(_sent(case, case.x))
    )
    reply = {"output": tensor_record(_sent(case, _output(case, pooled.output)))}
    if selects:
        reply["indices"] = tensor_record(_sent(case, _indices(case, pooled.taps)))
    return _vector("Forward", case.name, message, reply)


def backward_vector(case: Case) -> Record:
    """Return the vector of a backward call; every divisor divides its gradient."""
    pooled = cases.expected_forward(case.options, case.x)
    multiple = tables.MULTIPLE_OF_DIVISORS[case.x.dtype.itemsize]
    dy = tables.small(pooled.output.shape, case.x.dtype.name, seed=1) * case.x.dtype.type(multiple)
    message = pb.BackwardRequest(
        spec=_spec(case),
        input_shape=_sent(case, case.x).shape,
        output_gradient=tensor_message(_sent(case, dy)),
    )
    residual: dict[str, np.ndarray] = {}
    if case.tied:
        residual = {"x": case.x}
        message.input.CopyFrom(tensor_message(_sent(case, case.x)))
    elif case.options["mode"] in SELECTING:
        residual = {"taps": pooled.taps}
        indices = _sent(case, _indices(case, pooled.taps))
        message.indices.CopyFrom(tensor_message(indices))
    dx = cases.expected_backward(case.options, dy, case.x.shape, **residual)
    gradient = _sent(case, oracle.to_type(dx + 0.0, case.x.dtype))
    return _vector("Backward", case.name, message, {"inputGradient": tensor_record(gradient)})


def forward_all_vectors() -> list[Record]:
    """Return requests of several layers, each with the results of all, and an invalid one."""
    vectors = []
    for name, cases_ in tables.forward_all_cases():
        layers = [forward_vector(case) for case in cases_]
        request, reply = layers[0]["request"], layers[0]["reply"]
        further = [layer["request"] for layer in layers[1:]]
        for layer in further:
            del layer["input"]
        more = [layer["reply"] for layer in layers[1:]]
        vectors.append(
            {
                "name": name,
                "method": "Forward",
                "request": {**request, "more": further},
                "reply": {**reply, "more": more},
            }
        )
    invalid = forward(spec=spec(), input=tensor())
    invalid.more.add(spec=spec(windows=sliding(kernel=0)))
    return [
        *vectors,
        _error(
            "a second layer with kernel 0", invalid, "more[0].spec.sliding_windows.axes[1].kernel"
        ),
    ]


def error_vectors() -> list[Record]:
    """Return invalid requests, each with the code, the reason and the field of its error."""
    axes = "spec.sliding_windows.axes"
    x, dy = tensor(), tensor((1, 1, 2, 2))
    rows = (
        ("kernel 0", forward(spec=spec(windows=sliding(kernel=0))), f"{axes}[1].kernel"),
        ("stride 0", forward(spec=spec(windows=sliding(stride=0))), f"{axes}[1].stride"),
        (
            "padding as large as the kernel",
            forward(spec=spec(windows=sliding(padding_before=2))),
            f"{axes}[1].padding_before",
        ),
        ("a missing mode", forward(spec=spec(pb.MODE_UNSPECIFIED)), "spec.mode"),
        ("an option of another mode", forward(spec=spec(norm_p=2)), "spec.norm_p"),
        (
            "an adaptive size of 0",
            forward(spec=spec(windows=adaptive(2, 0))),
            "spec.adaptive_windows.output_sizes[1]",
        ),
        ("a missing element type", forward(input=tensor(element_type=0)), "input.element_type"),
        ("truncated data", forward(input=tensor(data=x.data[:-1])), "input.data"),
        ("an axis of size 0", forward(input=tensor((1, 1, 0, 4))), "input"),
        (
            "indices of an average",
            forward(spec=spec(pb.MODE_AVERAGE), return_indices=True),
            "return_indices",
        ),
        (
            "NaN rejected",
            forward(
                spec=spec(nan_policy=pb.NAN_POLICY_ERROR),
                input=tensor(data=np.full(16, np.nan, np.float32).tobytes()),
            ),
            "input",
        ),
        (
            "an index outside of its window",
            backward(indices=tensor((1, 1, 2, 2), "uint8", data=bytes([0, 1, 2, 4]))),
            "indices",
        ),
        (
            "a gradient of another shape",
            backward(output_gradient=tensor((1, 1, 2, 3))),
            "output_gradient",
        ),
        ("no indices", backward(indices=None, output_gradient=dy), "indices"),
    )
    return [_error(*row) for row in rows]


def stream_vectors() -> list[Record]:
    """Return one stream in each direction: two calls, and an invalid one between them."""
    layers = tables.type_cases()[:2]
    invalid = error_vectors()
    return [
        _stream("ForwardStream", [forward_vector(case) for case in layers], invalid[0]),
        _stream("BackwardStream", [backward_vector(case) for case in layers], invalid[-1]),
    ]


def large_vectors() -> list[Record]:
    """Return messages over 4 MiB, the default limit of gRPC, as short data repeated often."""
    pattern = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.uint8)
    times = 5 << 17
    sizes = (1, 1, times, 8)
    message = forward(
        spec=spec(windows=sliding()),
        input=tensor(sizes, "uint8", data=pattern.tobytes()),
    )
    identity = forward(
        spec=spec(windows=sliding()),
        input=tensor(sizes, "uint8", data=pattern.tobytes()),
    )
    for axis in identity.spec.sliding_windows.axes:
        axis.kernel = 1
    half = {"elementType": "ELEMENT_TYPE_UINT8", "shape": [1, 1, times // 2, 4]}
    whole = {"elementType": "ELEMENT_TYPE_UINT8", "shape": list(sizes)}
    repeat = {"repeat": {"input": times}}
    return [
        _vector("Forward", "a request over 4 MiB", message,
                {"output": half | {"hex": "03040906", "times": times // 2}}) | repeat,
        _vector("Forward", "a reply over 4 MiB", identity,
                {"output": whole | {"hex": pattern.tobytes().hex(), "times": times}}) | repeat,
    ]  # fmt: skip


def files() -> Iterator[tuple[str, list[Record]]]:
    """Yield the name of each file and its vectors."""
    layers, types, values = tables.layer_cases(), tables.type_cases(), tables.value_cases()
    floats = [case for case in types if case.x.dtype.kind not in "iu"]
    yield "forward_layers", [forward_vector(case) for case in layers]
    yield "forward_types", [forward_vector(case) for case in types]
    yield "forward_values", [forward_vector(case) for case in values]
    yield "forward_all", forward_all_vectors()
    yield "backward_layers", [backward_vector(case) for case in layers]
    yield "backward_types", [backward_vector(case) for case in floats]
    yield "backward_values", [backward_vector(case) for case in values]
    yield "errors", error_vectors()
    yield "streams", stream_vectors()
    yield "large", large_vectors()


def text_of(vectors: list[Record]) -> str:
    """Return the text of a file: one vector per line."""
    lines = ",\n".join(json.dumps(vector, separators=(", ", ": ")) for vector in vectors)
    return f'{{"vectors": [\n{lines}\n]}}\n'


def _vector(method: str, name: str, message: object, reply: Record) -> Record:
    return {"name": name, "method": method, "request": request_record(message), "reply": reply}


def _error(name: str, message: object, field: str) -> Record:
    return {
        "name": name,
        "method": type(message).__name__.removesuffix("Request"),
        "request": request_record(message),
        "error": {"code": "INVALID_ARGUMENT", "reason": _reason(field), "field": field},
    }


def _stream(method: str, valid: list[Record], invalid: Record) -> Record:
    vectors = [valid[0], invalid, valid[1]]
    outcome = [
        {name: vector[name] for name in ("reply", "error") if name in vector} for vector in vectors
    ]
    return {
        "name": "an invalid item between two valid ones",
        "method": method,
        "requests": [
            {"id": str(number), "request": vector["request"]}
            for number, vector in enumerate(vectors, 7)
        ],
        "replies": [{"id": number} | result for number, result in enumerate(outcome, 7)],
    }


def _reason(field: str) -> str:
    return (
        "INVALID_SPEC"
        if field.startswith(("spec", "more")) or field == "return_indices"
        else "INVALID_TENSOR"
    )


def _spec(case: Case) -> pb.PoolSpec:
    return spec_message(case.options, case.x.ndim - 2)


def _sent(case: Case, array: np.ndarray) -> np.ndarray:
    """Return a channels-first array in the layout of the case."""
    is_last = case.options.get("layout") == "channels_last"
    return np.moveaxis(array, 1, -1) if is_last else array


def _output(case: Case, output: np.ndarray) -> np.ndarray:
    dtype = output.dtype if case.x.dtype.kind in "iu" else case.x.dtype
    is_selected = case.options["mode"] in SELECTING
    return output if is_selected else oracle.to_type(output + 0, dtype)


def _indices(case: Case, taps: np.ndarray) -> np.ndarray:
    return cases.window_indices(taps, cases.windows_of(case.options, case.x.shape[2:]))


if __name__ == "__main__":
    for name, vectors in files():
        (FOLDER / f"{name}.json").write_text(text_of(vectors))
