"""Content of `run.json`: everything about a load test except its calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, TypedDict

from pooling_loadtest.errors import MisuseError, ResultsError
from pooling_loadtest.slo import parse_slo
from pooling_loadtest.typed import typed

FORMAT = 1
_MAX_S = 1e8  # three years


class SegmentRow(TypedDict):
    """A time with a constant rate in calls/s."""

    start_s: float
    end_s: float
    rate: float


class ScheduleRow(TypedDict):
    """Kind of a schedule and its segments in order."""

    kind: str
    segments: list[SegmentRow]


class Verified(TypedDict):
    """Fraction of the replies to check, and the numbers of checked and of wrong ones."""

    fraction: float
    checked: int
    wrong: int


class Objective(TypedDict):
    """An objective, and whether it was met."""

    text: str
    met: bool


class WindowRow(TypedDict):
    """One window of a search for the capacity; None for a figure that is infinite."""

    rate: float
    calls: int
    p50_ms: float | None
    p99_ms: float | None
    errors_percent: float | None
    met: bool


class CapacityRow(TypedDict):
    """Result of a search for the capacity: rates in calls/s, and the windows in order."""

    rate: float
    low: float
    high: float
    settled: bool
    windows: list[WindowRow]


class Environment(TypedDict, total=False):
    """Hardware and versions of the generator."""

    python: str
    platform: str
    cpu: str
    cores: int | None
    versions: dict[str, str | None]


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
    schedule: ScheduleRow
    callers: int | None
    processes: int
    max_in_flight: int
    protocol: str
    targets: list[str]
    kinds: list[Kind]
    server_info: dict[str, Any] | None = None
    environment: Environment = field(default_factory=Environment)
    verify: Verified = field(default_factory=lambda: Verified(fraction=0.0, checked=0, wrong=0))
    distorted: bool = False
    distortions: list[str] = field(default_factory=list)
    generator_cpu: list[float] = field(default_factory=list)
    stopped: str | None = None
    slo: Objective | None = None
    capacity: CapacityRow | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        return {"format": FORMAT} | asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return the run that `run.json` describes; unknown keys are ignored.

        Raises:
            ResultsError: the format is another one, a key is missing, or a value is illegal.
        """
        if data.get("format") != FORMAT:
            raise ResultsError(f"its format is {data.get('format')!r}; must be {FORMAT}")
        run: Self = typed(cls, data, "")
        for name in ("duration_s", "elapsed_s"):
            if not 0 <= getattr(run, name) <= _MAX_S:
                text = f"{name} is {getattr(run, name):g}; it must be from 0 to {_MAX_S:g}"
                raise ResultsError(text)
        if not 0 <= run.started_unix_ns < 1 << 63:
            text = f"started_unix_ns is {run.started_unix_ns}; it must be from 0 to 2^63 - 1"
            raise ResultsError(text)
        if run.slo is not None:
            try:
                parse_slo(run.slo["text"])
            except MisuseError as error:
                raise ResultsError(str(error)) from None
        return run
