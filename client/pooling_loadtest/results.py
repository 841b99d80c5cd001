"""Results of a load test: a folder with `run.json`, `calls.npz` and perhaps `server_metrics.json`.

`calls.npz` has one row per call, in columns of equal length:

=============== ======= ===========================================================================
column          type    content
=============== ======= ===========================================================================
scheduled_ns    int64   when the call was due, in nanoseconds from the common start
sent_ns         int64   when it was sent; -1 if the run ended before
done_ns         int64   when its reply or error arrived; -1 if neither did
status          uint8   gRPC status code (HTTP statuses are mapped to one); 255 without a reply
kind            uint8   index into `Run.kinds`
sent_bytes      int64   size of the request message
received_bytes  int64   size of the reply message; 0 for an error
queue_us        float32 server: time until a compute slot was free; NaN if it was not reported
compute_us      float32 server: time of the computation; NaN as above
total_us        float32 server: time from the request to the reply; NaN as above
verified        int8    0 not checked, 1 right, 2 wrong
process         uint8   number of the generator process
=============== ======= ===========================================================================

In the closed loop, `scheduled_ns` equals `sent_ns`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

FORMAT = 1
NEVER = -1  # in columns of times
NO_STATUS = 255
NOT_CHECKED, RIGHT, WRONG = 0, 1, 2

COLUMNS: dict[str, Any] = {
    "scheduled_ns": np.int64,
    "sent_ns": np.int64,
    "done_ns": np.int64,
    "status": np.uint8,
    "kind": np.uint8,
    "sent_bytes": np.int64,
    "received_bytes": np.int64,
    "queue_us": np.float32,
    "compute_us": np.float32,
    "total_us": np.float32,
    "verified": np.int8,
    "process": np.uint8,
}
_EMPTY = {
    "scheduled_ns": NEVER,
    "sent_ns": NEVER,
    "done_ns": NEVER,
    "status": NO_STATUS,
} | dict.fromkeys(("queue_us", "compute_us", "total_us"), np.nan)

_OBJECTS = {"schedule", "environment", "verify"}
_RUN, _CALLS, _METRICS = "run.json", "calls.npz", "server_metrics.json"


class ResultsError(ValueError):
    """A folder does not hold the results of a load test, or cannot be written."""


@dataclass(frozen=True)
class Kind:
    """One kind of call of a load test.

    Attributes:
        name: name of the kind in the report.
        direction: "forward" or "backward".
        transport: "unary", "stream", "many", "shared_memory", "oip-grpc" or "oip-rest".
        shape: shape of the input of the layer, in both directions.
        dtype: its element type.
        spec: options of the pooling layer; those of the model for OIP.
        weight: share of the calls, relative to the other kinds.
        sent_bytes: bytes of a request.
        received_bytes: bytes of a reply; 0 if unknown before the first.
    """

    name: str
    direction: str
    transport: str
    shape: Sequence[int]
    dtype: str
    spec: dict[str, Any]
    weight: float
    sent_bytes: int
    received_bytes: int


@dataclass
class Run:
    """Everything about a load test but its calls; the content of `run.json`.

    Attributes:
        title: one line for the top of a report.
        started_unix_ns: time of the common start.
        duration_s: planned duration.
        elapsed_s: duration until the last reply, or until the test was stopped.
        command: the command line.
        seed: seed of the schedule and of the tensors.
        loop: "open": calls are sent when they are due; "closed": each caller sends its next call
            after the reply to its last one.
        schedule: kind of schedule, its parameters, and "segments" of {start_s, end_s, rate}.
        callers: number of callers of the closed loop, else None.
        processes: number of generator processes.
        max_in_flight: maximum number of calls in flight, all processes together.
        protocol: "grpc", "oip-grpc" or "oip-rest".
        targets: addresses of the server.
        kinds: kinds of calls.
        server_info: version, backends and limits of the server, if it reports them.
        environment: versions and hardware of the generator.
        verify: "fraction" of the replies to check, number "checked" and "wrong".
        distorted: the generator was too slow, so the latencies include its own delays.
        distortions: reasons for `distorted`, as sentences.
        generator_cpu: processor time of each generator process over elapsed time.
        stopped: None after a complete run; "interrupted" or a sentence.
        slo: None, or {"text", "met"}.
        capacity: None, or {"rate", "low", "high", "windows"}.
    """

    title: str
    started_unix_ns: int
    duration_s: float
    elapsed_s: float
    command: list[str]
    seed: int
    loop: Literal["open", "closed"]
    schedule: dict[str, Any]
    callers: int | None
    processes: int
    max_in_flight: int
    protocol: str
    targets: list[str]
    kinds: list[Kind]
    server_info: dict[str, Any] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    verify: dict[str, Any] = field(
        default_factory=lambda: {"fraction": 0.0, "checked": 0, "wrong": 0}
    )
    distorted: bool = False
    distortions: list[str] = field(default_factory=list)
    generator_cpu: list[float] = field(default_factory=list)
    stopped: str | None = None
    slo: dict[str, Any] | None = None
    capacity: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        return {"format": FORMAT} | asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return the run that `run.json` describes; unknown keys are ignored.

        Raises:
            ResultsError: the format is another one, or a key is missing.
        """
        if data.get("format") != FORMAT:
            raise ResultsError(f"its format is {data.get('format')!r}; must be {FORMAT}")
        known = {each.name for each in fields(cls)}
        for name in _OBJECTS & set(data):
            _of_type(dict, data[name], name)
        try:
            values = {name: value for name, value in data.items() if name in known}
            values["kinds"] = [Kind(**kind) for kind in values["kinds"]]
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ResultsError(f"keys do not match: {error}") from None


class Calls:
    """Columns with one row per call.

    Args:
        columns: arrays of equal length, by the names of `COLUMNS`; missing ones are filled.
    """

    scheduled_ns: NDArray[np.int64]
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    status: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    sent_bytes: NDArray[np.int64]
    received_bytes: NDArray[np.int64]
    queue_us: NDArray[np.float32]
    compute_us: NDArray[np.float32]
    total_us: NDArray[np.float32]
    verified: NDArray[np.int8]
    process: NDArray[np.uint8]

    def __init__(self, columns: dict[str, NDArray[Any]]) -> None:
        size = len(columns["scheduled_ns"])
        for name, dtype in COLUMNS.items():
            column = columns.get(name)
            if column is None:
                column = np.full(size, _EMPTY.get(name, 0), dtype)
            if column.shape != (size,):
                raise ResultsError(f"column {name} has shape {column.shape}; must be ({size},)")
            setattr(self, name, column.astype(dtype, copy=False))

    @classmethod
    def empty(cls, size: int) -> Self:
        """Return columns for `size` calls, none of which happened."""
        calls = cls.reserved(size)
        calls.clear(slice(None))
        return calls

    @classmethod
    def reserved(cls, size: int) -> Self:
        """Return columns whose rows must be cleared before use, and take no memory until then."""
        return cls({name: np.zeros(size, dtype) for name, dtype in COLUMNS.items()})

    def clear(self, rows: slice | int) -> None:
        """Mark rows as calls that did not happen."""
        for name, value in _EMPTY.items():
            getattr(self, name)[rows] = value

    @classmethod
    def joined(cls, parts: Sequence[Calls]) -> Self:
        """Return the calls of several processes, in the order of their scheduled times."""
        order = np.argsort(np.concatenate([part.scheduled_ns for part in parts]), kind="stable")
        columns = {}
        for name in COLUMNS:
            columns[name] = np.concatenate([getattr(part, name) for part in parts])[order]
        return cls(columns)

    def __len__(self) -> int:
        return len(self.scheduled_ns)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Calls:
        """Return some of the calls: a slice, a mask or an array of row numbers."""
        return Calls({name: column[rows] for name, column in self.columns().items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def is_done(self) -> NDArray[np.bool_]:
        """Mask of the calls with a reply or an error."""
        return np.asarray(self.done_ns != NEVER)

    @property
    def is_ok(self) -> NDArray[np.bool_]:
        """Mask of the calls with a reply."""
        return np.asarray(self.is_done & (self.status == 0))

    @property
    def latency_ns(self) -> NDArray[np.int64]:
        """Time from the scheduled moment to the reply or error of each call; -1 without one.

        The open loop counts from the scheduled moment, so a call that was sent late is late. In
        the closed loop, that moment is the one of sending.
        """
        return np.where(self.is_done, self.done_ns - self.scheduled_ns, NEVER)

    @property
    def lag_ns(self) -> NDArray[np.int64]:
        """Delay of each call in the generator: sent minus scheduled; -1 if it was not sent."""
        return np.where(self.sent_ns != NEVER, self.sent_ns - self.scheduled_ns, NEVER)


@dataclass
class Results:
    """A load test with its calls.

    Attributes:
        run: everything but the calls.
        calls: one row per call.
        server_metrics: [{"at_s", "samples": {"metric{labels}": value}}], perhaps empty.
    """

    run: Run
    calls: Calls
    server_metrics: list[dict[str, Any]] = field(default_factory=list)


def percentiles(values: ArrayLike, at: ArrayLike) -> NDArray[np.float64]:
    """Return percentiles as NumPy defines them, by linear interpolation; NaN for no values.

    Args:
        values: the values, such as latencies.
        at: percentages from 0 to 100.
    """
    values, at = np.asarray(values), np.asarray(at, np.float64)
    if not values.size:
        return np.full(at.shape, np.nan)
    return np.asarray(np.percentile(values, at), np.float64)


def write(folder: Path, results: Results) -> None:
    """Write the folder of a load test; it may exist.

    Raises:
        ResultsError: the folder cannot be written; the message names it and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / _RUN, results.run.to_json())
        (folder / _METRICS).unlink(missing_ok=True)  # that of an earlier test
        if results.server_metrics:
            _write_json(folder / _METRICS, results.server_metrics)
        with (folder / _CALLS).open("wb") as file:
            np.savez(file, allow_pickle=False, **results.calls.columns())
    except OSError as error:
        raise ResultsError(f"cannot write {folder}: {error.strerror or error}") from None


def read(folder: Path) -> Results:
    """Return the results in a folder.

    Raises:
        ResultsError: the folder does not hold the results of a load test.
    """
    try:
        run = Run.from_json(_of_type(dict, json.loads((folder / _RUN).read_text()), _RUN))
        with (folder / _CALLS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            calls = Calls({name: arrays[name] for name in COLUMNS})
        return Results(run, calls, _read_metrics(folder / _METRICS))
    except BadZipFile:
        text = f"{folder} does not hold the results of a load test: {_CALLS} is incomplete"
        raise ResultsError(text) from None
    except OSError as error:
        name = error.filename or folder
        raise ResultsError(
            f"cannot read {name}: {error.strerror or error}; give a folder that "
            "`pooling loadtest --output` wrote"
        ) from None
    except (ValueError, KeyError, EOFError) as error:
        text = f"{folder} does not hold the results of a load test: {error}"
        raise ResultsError(text) from None


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    samples: list[dict[str, Any]] = _of_type(list, json.loads(path.read_text()), path.name)
    for number, sample in enumerate(samples):
        if not isinstance(sample, dict) or not {"at_s", "samples"} <= set(sample):
            raise ResultsError(f"{path.name}[{number}] has no at_s or samples")
    return samples


def _of_type(type_: type, value: Any, name: str) -> Any:
    if not isinstance(value, type_):
        needed = "an object" if type_ is dict else "a list"
        raise ResultsError(f"{name} is of type {type(value).__name__}; it must be {needed}")
    return value


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
