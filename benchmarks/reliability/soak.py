"""Mixed calls for a long time: memory and descriptors of the server and of the client.

    python -m benchmarks.reliability.soak --calls 1000000

Writes soak.json and soak.png. Growth counts from the end of the warm-up, a fifth of the calls.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.reliability.load import MIXED, Load
from benchmarks.reliability.serving import Row, Server, row, serving

CALLS, SAMPLES, WARM_UP = 1_000_000, 200, 0.2
MOST_MB = 1.0  # growth per 100,000 calls
CURVES = ("server_mb", "client_mb", "server_descriptors", "client_descriptors")
Sample = dict[str, float]


def soak(calls: int, callers: int = 4, limit_s: float = float("inf")) -> list[Sample]:
    """Make mixed calls over TCP and a Unix socket; return samples of both processes.

    Args:
        calls: number of calls.
        callers: threads for each address.
        limit_s: seconds after which the calls end early.

    Raises:
        RuntimeError: a call failed, or its result was wrong.
    """
    samples: list[Sample] = []
    begin, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        listen = ("--listen", "127.0.0.1:0", "--listen", f"unix:{folder}/socket")
        with serving(*listen, "--max-in-flight", "64") as server:
            loads = [Load(address, callers, MIXED) for address in server.addresses]
            with loads[0], loads[1]:
                while done < calls and time.monotonic() - begin < limit_s:
                    due = len(samples) * calls / SAMPLES
                    while (done := sum(load.right for load in loads)) < due:
                        if bad := sum(load.wrong + load.failed.total() for load in loads):
                            raise RuntimeError(f"{bad} calls failed or were wrong")
                        time.sleep(0.005)
                    samples.append(_sample(server, done))
    return samples


def _sample(server: Server, done: int) -> Sample:
    own = Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]
    return {
        "calls": done,
        "server_mb": server.memory_bytes() / 1e6,
        "client_mb": int(own) * 1024 / 1e6,
        "server_descriptors": server.descriptors(),
        "client_descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


def growth(samples: list[Sample], curve: str) -> float:
    """Return the growth of a curve per 100,000 calls after the warm-up.

    It is the median slope of all pairs of samples (Theil and Sen), which single peaks leave alone.
    """
    late = samples[int(len(samples) * WARM_UP) :]
    calls = np.array([sample["calls"] for sample in late])
    values = np.array([sample[curve] for sample in late])
    first, second = np.triu_indices(len(late), 1)
    slopes = (values[second] - values[first]) / np.maximum(calls[second] - calls[first], 1)
    return float(np.median(slopes)) * 1e5


def soaked(calls: int, limit_s: float = float("inf")) -> tuple[list[Sample], list[Row]]:
    """Return the samples of a soak and its row."""
    samples = soak(calls, limit_s=limit_s)
    grown = {curve: round(growth(samples, curve), 3) for curve in CURVES}
    is_met = max(grown["server_mb"], grown["client_mb"]) < MOST_MB and (
        max(grown["server_descriptors"], grown["client_descriptors"]) < 1
    )
    done = int(samples[-1]["calls"])
    text = (
        f"{done:,} calls, none failed or wrong; per 100,000 calls the server grows by "
        f"{grown['server_mb']:.2f} MB and the client by {grown['client_mb']:.2f} MB, "
        f"descriptors by "
        f"{grown['server_descriptors']:.1f} and {grown['client_descriptors']:.1f}"
    )
    fault = f"soak: {done:,} mixed calls"
    required = "less than 1 MB per 100,000 calls after warm-up; descriptors flat"
    return samples, [row("soak", fault, required, is_met, text, calls=done, growth=grown)]


def draw(samples: list[Sample], path: Path) -> None:
    """Draw memory and descriptors over the calls."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    calls = [sample["calls"] for sample in samples]
    titles = ("Memory (anonymous, MB)", "Open descriptors")
    for axis, title, suffix in zip(axes, titles, ("mb", "descriptors"), strict=True):
        for name, color in (("server", "#1f5fa8"), ("client", "#c05a1e")):
            axis.plot(calls, [s[f"{name}_{suffix}"] for s in samples], color=color, label=name)
        axis.axvspan(0, calls[-1] * WARM_UP, color="#eeeeee", label="warm-up")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right", ncols=3, fontsize=8)
    axes[1].set_xlabel("calls")
    axes[1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write(samples: list[Sample], rows: list[Row], calls: int, folder: Path) -> None:
    """Write soak.json and soak.png."""
    curves: Any = {key: [round(sample[key], 2) for sample in samples] for key in samples[0]}
    command = f"python -m benchmarks.reliability.soak --calls {calls}"
    report.write("soak", command, rows, folder, curves=curves)
    draw(samples, folder / "soak.png")


def main() -> None:
    """Soak, print the growth, and write the result and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    arguments = parser.parse_args()
    samples, rows = soaked(arguments.calls, arguments.seconds)
    write(samples, rows, arguments.calls, arguments.output)
    print(rows[0]["measured"])


if __name__ == "__main__":
    main()
