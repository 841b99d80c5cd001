"""Results of load tests that never ran: the same for the same arguments."""

from __future__ import annotations

import numpy as np

from pooling_loadtest.calls import Calls
from pooling_loadtest.results import Results
from pooling_loadtest.runs import Kind, Run

KINDS = [
    Kind(
        name="pool1",
        direction="forward",
        transport="unary",
        shape=(1, 64, 56, 56),
        dtype="float32",
        spec={"mode": "max", "kernel": 3, "stride": 2, "padding": 1},
        weight=3.0,
        sent_bytes=802_900,
        received_bytes=200_720,
    ),
    Kind(
        name="pool1 gradient",
        direction="backward",
        transport="stream",
        shape=(1, 64, 28, 28),
        dtype="float32",
        spec={"mode": "average", "kernel": 2},
        weight=1.0,
        sent_bytes=200_800,
        received_bytes=802_850,
    ),
]


def synthetic_results(
    *,
    seed: int = 0,
    calls: int = 2000,
    rate: float = 200.0,
    latency_ms: float = 4.0,
    error_fraction: float = 0.01,
    wrong: int = 0,
    loop: str = "open",
    stall_s: float = 0.0,
    distorted: bool = False,
) -> Results:
    """Return results with log-normal latencies around `latency_ms`.

    Args:
        seed: seed of everything.
        calls: number of calls.
        rate: calls/s.
        latency_ms: median latency.
        error_fraction: fraction of the calls that fail with UNAVAILABLE.
        wrong: number of wrong replies; every tenth reply is checked.
        loop: "open" or "closed".
        stall_s: duration of one pause of the server, in the middle of the run.
        distorted: the generator sends some calls late.
    """
    random = np.random.default_rng(seed)
    scheduled = np.cumsum(random.exponential(1e9 / rate, calls)).astype(np.int64)
    duration_s = float(scheduled[-1] / 1e9)
    lag = random.exponential(20e3 if not distorted else 3e6, calls).astype(np.int64)
    sent = scheduled + lag
    service = random.lognormal(np.log(latency_ms * 1e6), 0.35, calls).astype(np.int64)
    stall_end = int((duration_s / 2 + stall_s) * 1e9)
    in_stall = (sent > duration_s / 2 * 1e9) & (sent < stall_end)
    done = np.where(in_stall, stall_end, sent) + service
    is_error = random.random(calls) < error_fraction
    kind = (random.random(calls) < 0.25).astype(np.uint8)
    checked = np.where(np.arange(calls) % 10 == 0, 1, 0)
    checked[np.flatnonzero(checked)[:wrong]] = 2
    compute = (service / 1e3 * 0.5).astype(np.float32)
    columns = {
        "scheduled_ns": scheduled if loop == "open" else sent,
        "sent_ns": sent,
        "done_ns": done,
        "status": np.where(is_error, 14, 0),
        "kind": kind,
        "sent_bytes": np.array([each.sent_bytes for each in KINDS])[kind],
        "received_bytes": np.array([each.received_bytes for each in KINDS])[kind] * ~is_error,
        "queue_us": np.where(is_error, np.nan, compute * 0.2),
        "compute_us": np.where(is_error, np.nan, compute),
        "total_us": np.where(is_error, np.nan, compute * 1.4),
        "verified": checked,
        "process": np.arange(calls) % 2,
    }
    segment = {"start_s": 0.0, "end_s": duration_s, "rate": rate}
    run = Run(
        title="synthetic",
        started_unix_ns=1_767_225_600_000_000_000,
        duration_s=duration_s,
        elapsed_s=float(done.max() / 1e9),
        command=["pooling", "loadtest", "127.0.0.1:50051", "--rate", f"{rate:g}"],
        seed=seed,
        loop="open" if loop == "open" else "closed",
        schedule={"kind": "poisson", "rate": rate, "segments": [segment]},
        callers=None if loop == "open" else 8,
        processes=2,
        max_in_flight=1000,
        protocol="grpc",
        targets=["127.0.0.1:50051"],
        kinds=KINDS,
        server_info={"version": "0.1.0"},
        environment={
            "python": "3.11.2",
            "platform": "Linux",
            "cpu": "made up",
            "cores": 2,
            "versions": {"numpy": "2.3.0", "grpcio": "1.76.0"},
        },
        verify={"fraction": 0.1, "checked": int((checked > 0).sum()), "wrong": wrong},
        distorted=distorted,
        distortions=["the generator sent calls late"] if distorted else [],
    )
    return Results(run, Calls(columns))
