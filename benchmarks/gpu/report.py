"""The measured rows as tables and a picture, from the JSON file alone: here or on another machine.

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
    "copy": "copy"
}
NOTES = """\
Milliseconds by the card's clock: the median of the rounds, the smallest and the largest in
brackets; contenders take turns. Before each sample a gigabyte is read, so that the L2 cache holds
nothing of use and the host is ahead with its launches. Ratios are taken round by round; more than
1 means that ours is faster.

- **ours** is a call of `pooling_engine` on tensors of the card, with `out=`; gradients of maxima
  include the check of every index. **GB/s** are the bytes that must be read and written, each
  once, over its time. Only a gradient of maxima waits for the card, to hear whether an index was
  forged; **kernels alone** is its time from the first launch to the end of the last kernel.
- **PyTorch** allocates its results from its cache. **Channels last** is its memory format of that
  name; beside NCHW rows its tensors were converted beforehand. Its indices are int64, ours of one
  byte.
- **The copy** moves as many bytes within the card as the operation must: "× copy" is ours as a
  share of the copy's bytes per second.
- Goals are about inputs over 64 MB, in every element type. **Small layers**, below 8 MB, are also
  timed by the host's clock, as calls that follow one another.
- Every result of PyTorch is compared with ours before it is timed; where it is not close, its time
  is marked "differs".
"""


def write(path: Path) -> None:
    """The tables beside a JSON file and, where matplotlib is installed, the picture."""
    result = json.loads(path.read_text())
    has_picture = bool(result["rows"] and importlib.util.find_spec("matplotlib"))
    path.with_suffix(".md").write_text(markdown(result, path.stem if has_picture else ""))
    if has_picture:
        from benchmarks.gpu import plot as gpu_plot

        gpu_plot.draw(result["rows"], path.with_suffix(".png"))


def markdown(result: dict[str, Any], picture: str) -> str:
    """The whole document.

    Args:
        picture: the name of the picture beside it, without what follows the dot; empty: none.
    """
    card, machine, groups = result["card"], result["machine"], grouped(result["rows"])
    parts = [
        f"# The engine on {card['name']}\n",
        f"{card['multiprocessors']} multiprocessors, {card['memory_gib']} GiB, compute capability "
        f"{card['compute_capability']}, driver {card['driver']}, CUDA {card['cuda']}; CuPy "
        f"{card['cupy']}, PyTorch {card['torch']}; {machine['cpu']}, {machine['cores']} cores, "
        f"load average {result['load_before']} before; Python {machine['python']}; "
        f"{result['date']}; {result['rounds']} rounds; `{result['command']}`.\n",
        *incomplete(result),
        *([f"![Bytes per second against bytes moved]({picture}.png)\n"] if picture else []),
        NOTES,
        "## Goals\n",
        goals_table(groups),
        f"Through shared memory, 103 MB, share of what the link allows: "
        f"{gpu_goals.through_shared_memory(result['serving'])}.\n",
    ]
    if result["serving"]:
        parts += ["## Through the server, ms\n", serving_table(result["serving"])]
    for (dtype, layout, operation), rows in groups.items():
        parts += [f"## {operation.capitalize()}, {dtype} {layout}\n", times_table(rows)]
        small = [row for row in rows if "calls_ms" in row]
        if small:
            parts += ["Calls that follow one another, small layers:\n", calls_table(small)]
    return "\n".join(parts)


def grouped(rows: list[Row]) -> Groups:
    """The rows by element type, layout and operation, in the order of the suite."""
    keys = [(d, lay, o) for d in DTYPES for lay in LAYOUTS for o in OPERATIONS]
    groups: Groups = {key: [] for key in keys}
    for row in rows:
        groups.setdefault((row["dtype"], row["layout"], row["operation"]), []).append(row)
    return {key: rows for key, rows in groups.items() if rows}


def incomplete(result: dict[str, Any]) -> list[str]:
    """What was not measured, of ours or of PyTorch's."""
    said = [f"**Not measured: {failure}**\n" for failure in result["failures"]]
    for row in result["rows"]:
        what = f"{row['layer']} {row['operation']} {row['dtype']} {row['layout']}"
        for why in dict.fromkeys(row["unable"].values()):
            said.append(f"**PyTorch could not: {what}: {why}**\n")
    if result["left_out"]:
        said.append(f"**There was no time for {result['left_out']} more rows.**\n")
    return said


def goals_table(groups: Groups) -> str:
    """Each group against the copy and PyTorch."""
    head = ["group", "of the copy's bytes per second", "times faster than PyTorch"]
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
    """Times and ratios of one group, a line for each layer."""
    shown = [name for name in CONTENDERS if any(name in row["times_ms"] for row in rows)]
    is_split = any("kernels_ms" in row for row in rows)
    head = ["layer", "MB moved", *(CONTENDERS[name] for name in shown), "GB/s"]
    head += ["kernels alone"] if is_split else []
    head += [f"× {CONTENDERS[name]}" for name in shown if name != "ours"]
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
    """Whether the answer was another than ours."""
    return " differs" if name in row["differs"] else ""


def calls_table(rows: list[Row]) -> str:
    shown = [name for name in CONTENDERS if any(name in row["calls_ms"] for row in rows)]
    head = ["layer", *(f"{CONTENDERS[name]}, ms" for name in shown), "kernels of ours"]
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
    of = {(row["transport"], row["payload"]): cell(report.spread(row["rounds"])) for row in rows}
    lines = [
        [transport, *(of.get((transport, payload), "—") for payload in payloads)]
        for transport in dict.fromkeys(row["transport"] for row in rows)
    ]
    return table(["transport", *payloads], lines, "---:")


def gigabytes_per_second(row: Row, name: str) -> float:
    """The bytes that must be moved, over the time of a contender."""
    return row["moved_bytes"] / row["times_ms"][name]["median"] / 1e6


if __name__ == "__main__":
    write(Path(sys.argv[1]))
