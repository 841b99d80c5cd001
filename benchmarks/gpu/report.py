"""Markdown tables and picture of the GPU benchmark, made from its JSON file on any machine.

python -m benchmarks.gpu.report benchmarks/results/gpu-h100.json
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.engine.report import TITLES
from benchmarks.engine.suite import LAYOUTS, OPERATIONS
from benchmarks.gpu import goals as gpu_goals
from benchmarks.gpu.goals import GOALS
from benchmarks.gpu.suite import DTYPES
from benchmarks.report import cell, table

Row = dict[str, Any]
Groups = dict[tuple[str, str, str], list[Row]]
CONTENDERS = {name: TITLES[name] for name in ("ours", "torch", "torch_channels_last")} | {
    "copy": "device copy"
}
NOTES = """\
Times are milliseconds by the GPU's clock: the median of the rounds, with the smallest and the
largest in brackets.
Contenders take turns.
A gigabyte is read before each sample: this clears the L2 cache and hides the host's launches.
Ratios are taken within a round; above 1 means that ours is faster.

- **ours** is a call of `pooling_engine` on tensors of the GPU, that writes into existing arrays.
  Gradients of maxima include the check of every index.
  **GB/s** are the bytes that must be read and written, each once, divided by its time.
  Only a gradient of maxima waits for the GPU, which reports invalid indices.
  **Kernels only** is its time from the first launch to the end of the last kernel.
- **PyTorch** allocates its results from its cache.
  **Channels last** is its memory format of that name.
  Beside NCHW rows its tensors were converted beforehand.
  Its indices are int64; ours have one byte.
- **Device copy** moves as many bytes within the GPU as the operation must.
  "Relative to device copy" is our share of its bytes per second.
- Goals apply to inputs over 64 MB, in every element type.
  **Small layers**, below 8 MB, are also timed by the host's clock, as consecutive calls.
- Results of PyTorch are compared with ours before timing.
  If they are not close, the time is marked "differs".
"""


def write(path: Path) -> None:
    """Write the tables beside a result file and, if Matplotlib is installed, the picture."""
    result = json.loads(path.read_text())
    has_picture = bool(result["rows"] and importlib.util.find_spec("matplotlib"))
    path.with_suffix(".md").write_text(markdown(result, path.stem if has_picture else ""))
    if has_picture:
        from benchmarks.gpu import plot as gpu_plot

        gpu_plot.draw(result["rows"], path.with_suffix(".png"))


def markdown(result: dict[str, Any], picture: str) -> str:
    """Return the whole document.

    Args:
        picture: file name of the picture without its suffix; empty for none.
    """
    device, machine, groups = result["device"], result["machine"], grouped(result["rows"])
    parts = [
        f"# The engine on {device['name']}\n",
        f"- GPU: {device['multiprocessors']} multiprocessors, {device['memory_gib']} GiB, "
        f"compute capability {device['compute_capability']}\n"
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, load average "
        f"{result['load_before']} before the run\n"
        f"- Versions: driver {device['driver']}, CUDA {device['cuda']}, CuPy {device['cupy']}, "
        f"PyTorch {device['torch']}, Python {machine['python']}\n"
        f"- Run: {result['date']}, {result['rounds']} rounds, `{result['command']}`\n",
        *incomplete(result),
        *([f"![Bytes per second against bytes moved]({picture}.png)\n"] if picture else []),
        NOTES,
        "## Goals\n",
        goals_table(groups),
        f"103 MB through shared memory, share of the host-GPU bandwidth: "
        f"{gpu_goals.through_shared_memory(result['serving'])}.\n",
    ]
    if result["serving"]:
        parts += ["## Through the server, ms\n", serving_table(result["serving"])]
    for (dtype, layout, operation), rows in groups.items():
        parts += [f"## {operation.capitalize()}, {dtype} {layout}\n", times_table(rows)]
        small = [row for row in rows if "calls_ms" in row]
        if small:
            parts += ["Consecutive calls of small layers:\n", calls_table(small)]
    return "\n".join(parts)


def grouped(rows: list[Row]) -> Groups:
    """Return the rows by element type, layout and operation, in the order of the suite."""
    keys = [(d, lay, o) for d in DTYPES for lay in LAYOUTS for o in OPERATIONS]
    groups: Groups = {key: [] for key in keys}
    for row in rows:
        groups.setdefault((row["dtype"], row["layout"], row["operation"]), []).append(row)
    return {key: rows for key, rows in groups.items() if rows}


def incomplete(result: dict[str, Any]) -> list[str]:
    """Return a line for everything that was not measured."""
    notes = [f"**Not measured: {failure}**\n" for failure in result["failures"]]
    for row in result["rows"]:
        what = f"{row['layer']} {row['operation']} {row['dtype']} {row['layout']}"
        for why in dict.fromkeys(row["unable"].values()):
            notes.append(f"**PyTorch failed: {what}: {why}**\n")
    if result["left_out"]:
        notes.append(f"**No time was left for {result['left_out']} more rows.**\n")
    return notes


def goals_table(groups: Groups) -> str:
    """Return one line per group: verdicts relative to the copy and to PyTorch."""
    head = ["operation", "share of the copy's bytes per second", "times faster than PyTorch"]
    head.append("small layers: times faster than PyTorch")
    lines = [
        [
            f"{operation}, {dtype} {layout}",
            gpu_goals.against_copy(rows, GOALS[operation]),
            gpu_goals.against_torch(rows, GOALS[operation]),
            gpu_goals.of_small(rows),
        ]
        for (dtype, layout, operation), rows in groups.items()
    ]
    return table(head, lines, ":---")


def times_table(rows: list[Row]) -> str:
    """Return the times and ratios of one group, one line per layer."""
    shown = [name for name in CONTENDERS if any(name in row["times_ms"] for row in rows)]
    is_split = any("kernels_ms" in row for row in rows)
    head = ["layer", "MB moved", *(f"{CONTENDERS[name]}, ms" for name in shown), "GB/s"]
    head += ["kernels only, ms"] if is_split else []
    head += [f"relative to {CONTENDERS[name]}" for name in shown if name != "ours"]
    lines = [
        [
            row["layer"],
            f"{row['moved_bytes'] / 1e6:.4g}",
            *(cell(row["times_ms"].get(name)) + remark(row, name) for name in shown),
            f"{gigabytes_per_second(row, 'ours'):.4g}",
            *([cell(row.get("kernels_ms"))] if is_split else []),
            *(cell(row["times_faster"].get(name)) for name in shown if name != "ours"),
        ]
        for row in rows
    ]
    return table(head, lines, "---:")


def remark(row: Row, name: str) -> str:
    """Return " differs" if the result differs from ours."""
    return " differs" if name in row["differs"] else ""


def calls_table(rows: list[Row]) -> str:
    shown = [name for name in CONTENDERS if any(name in row["calls_ms"] for row in rows)]
    head = ["layer", *(f"{CONTENDERS[name]}, ms" for name in shown), "our kernels"]
    lines = [
        [row["layer"], *(cell(row["calls_ms"].get(name)) for name in shown), kernels(row)]
        for row in rows
    ]
    return table(head, lines, "---:")


def kernels(row: Row) -> str:
    return ", ".join(f"`{name.partition('<')[0]}`" for name in row["kernels"])


def serving_table(rows: list[Row]) -> str:
    """Return one line per transport and one column per payload."""
    payloads = list(dict.fromkeys(row["payload"] for row in rows))
    cells = {(row["transport"], row["payload"]): cell(report.spread(row["rounds"])) for row in rows}
    lines = [
        [transport, *(cells.get((transport, payload), "—") for payload in payloads)]
        for transport in dict.fromkeys(row["transport"] for row in rows)
    ]
    return table(["transport", *payloads], lines, "---:")


def gigabytes_per_second(row: Row, name: str) -> float:
    """Return the bytes that must move, divided by the time of a contender."""
    return row["moved_bytes"] / row["times_ms"][name]["median"] / 1e6


if __name__ == "__main__":
    write(Path(sys.argv[1]))
