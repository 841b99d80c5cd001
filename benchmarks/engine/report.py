"""Markdown tables and picture of the engine benchmark, made from its JSON file.

python -m benchmarks.engine.report benchmarks/results/engine-cpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine import goals as engine_goals
from benchmarks.engine.goals import GOALS
from benchmarks.engine.suite import BYTES, DTYPES, LAYERS, LAYOUTS, MODEL_POOLS, OPERATIONS
from benchmarks.report import cell, table

Row = dict[str, Any]
TITLES = {
    "ours": "ours",
    "ours_allocating": "ours (new arrays)",
    "numpy": "NumPy backend",
    "torch": "PyTorch",
    "torch_channels_last": "PyTorch (channels last)",
    "onnxruntime": "ONNX Runtime",
    "related": "ours (related layer)",
}
README_LAYERS = ("LeNet 10x16", "VGG-16 8x64x224", "ResNet", "GoogLeNet")
README_OPERATIONS = ("forward max", "forward average", "backward max", "backward average")
RIVALS = ("torch", "torch_channels_last", "onnxruntime", "numpy")
NOTES = """\
Times are the median of the rounds, with the smallest and the largest in brackets.
Ratios are taken within a round.
"Times faster" above 1 means that ours is faster; "time / floor" is our time divided by the floor.

- **ours** writes into an array that is passed as `out=`, as the server does.
  **ours (new arrays)** allocates its result in every call.
  Indices of the maximum are allocated in both.
- **PyTorch** allocates its results.
  **Channels last** is its memory format of that name, for two and three spatial axes.
  Beside NCHW rows, its tensors were converted beforehand, and the conversion is not timed.
  NHWC rows have no other PyTorch contender; their means refer to this one.
- **ONNX Runtime** is the faster of a plain `run` and a `run` bound to preallocated arrays.
  It supports neither channels last nor adaptive windows nor gradients.
  It rounds averages of bytes to bytes; ours are float32.
- **Ours (related layer)** is the same call on normal data, with padding counted, or with 9x9
  windows.
- **All pools** of a model are called one after the other in every contender.
- **—** means that the contender has no such operation, or not for this element type.
- **Memory-bandwidth floor** is the time that the same threads need to read the input once, in
  vectors (forward), or to write the gradient once into mapped memory (backward).
- The first and the last image of every contender's result are compared with ours before timing.
  If they are not close, the time is marked "differs".
- Geometric means and goals use ours with `out=`.
"""


def write(path: Path) -> None:
    """Write the tables and the picture beside a result file."""
    from benchmarks.engine import plot  # needs Matplotlib

    path.with_suffix(".md").write_text(markdown(path))
    plot.draw(json.loads(path.read_text())["rows"], path.with_suffix(".png"))


def markdown(path: Path) -> str:
    """Return the whole document."""
    result = json.loads(path.read_text())
    rows, machine = result["rows"], result["machine"]
    groups = {
        (dtype, layout, operation): [
            row
            for row in rows
            if (row["dtype"], row["layout"], row["operation"]) == (dtype, layout, operation)
        ]
        for dtype in (*DTYPES, BYTES)
        for layout in LAYOUTS
        for operation in (*OPERATIONS, MODEL_POOLS)
    }
    groups = {group: rows for group, rows in groups.items() if rows}
    versions = ", ".join(
        f"{title} {machine['versions'][name]}"
        for name, title in (
            ("numpy", "NumPy"),
            ("numba", "Numba"),
            ("torch", "PyTorch"),
            ("onnxruntime", "ONNX Runtime"),
        )
    )
    parts = [
        "# The engine on a CPU\n",
        f"- Machine: {machine['cpu']}, {result['threads']} threads for every contender, "
        f"load average {result['load_before']} before the run\n"
        f"- Versions: Python {machine['python']}, {versions}\n"
        f"- Run: {result['date']}, `{result['command']}`\n",
        f"![Time against bytes moved, above the memory-bandwidth floor]({path.stem}.png)\n",
        NOTES,
        "## Goals\n",
        goals_table(rows),
        "The layer is the one with the worst figure.\n",
        "## Means\n",
        means_table(groups),
    ]
    for (dtype, layout, operation), members in groups.items():
        parts += [f"## {operation.capitalize()}, {dtype} {layout}\n", times_table(members)]
        left_out = [layer.network for layer in LAYERS if operation not in layer.operations]
        if left_out and operation in OPERATIONS and dtype in DTYPES:
            parts.append(f"{' and '.join(left_out)} use average pooling and have no row here.\n")
    return "\n".join(parts)


def goals_table(rows: list[Row]) -> str:
    """Return one line per goal, with its verdict."""
    head = ["goal", "measured", "limit", "verdict"]
    return table(head, [list(engine_goals.judge(each, rows)) for each in GOALS], ":---")


def means_table(groups: dict[tuple[str, str, str], list[Row]]) -> str:
    """Return one line per group: geometric means and slowest layers, without goals."""
    head = ["operation", "times faster than PyTorch", "times faster than ONNX Runtime"]
    head += ["times faster than the NumPy backend", "largest time / memory-bandwidth floor"]
    lines = []
    for (dtype, layout, operation), rows in groups.items():
        if operation == MODEL_POOLS:
            continue
        slowest = max(rows, key=lambda row: row["over_floor"]["median"])
        floor = f"{slowest['over_floor']['median']:.2f} ({slowest['layer']})"
        rivals = engine_goals.torch_of(layout), "onnxruntime", "numpy"
        shown = [mean_and_worst(rows, rival) for rival in rivals]
        lines.append([f"{operation}, {dtype} {layout}", *shown, floor])
    return table(head, lines, ":---")


def mean_and_worst(rows: list[Row], rival: str) -> str:
    """Return the geometric mean of the speed-ups and the slowest layer."""
    able = [row for row in rows if rival in row["times_faster"]]
    if not able:
        return "—"
    return f"mean {engine_goals.mean(able, rival):.2f}; {engine_goals.worst(able, rival, 0)}"


def times_table(rows: list[Row]) -> str:
    """Return the times and ratios of one group, one line per layer."""
    shown = [name for name in TITLES if any(name in row["times_ms"] for row in rows)]
    rivals = [name for name in RIVALS if name in shown]
    head = ["layer", "input, MiB", *(f"{TITLES[name]}, ms" for name in shown)]
    head += ["memory-bandwidth floor, ms"]
    head += [f"times faster than {TITLES[name]}" for name in rivals] + ["time / floor"]
    lines = [
        [
            row["layer"],
            f"{row['input_bytes'] / 2**20:.3g}",
            *(cell(row["times_ms"].get(name)) + remark(row, name) for name in shown),
            cell(row["times_ms"]["floor"]),
            *(cell(row["times_faster"].get(name)) for name in rivals),
            cell(row["over_floor"]),
        ]
        for row in rows
    ]
    return table(head, lines, "---:")


def readme_table(result: dict[str, Any]) -> str:
    """Return some rows for benchmarks/README.md: float32, channels first."""
    head = ["layer", "operation", "ours, ms", "times faster than PyTorch"]
    head += ["times faster than ONNX Runtime", "time / memory-bandwidth floor"]
    lines = []
    for row in result["rows"]:
        is_shown = row["layer"].startswith(README_LAYERS) and row["operation"] in README_OPERATIONS
        if is_shown and (row["dtype"], row["layout"]) == ("float32", "NCHW"):
            faster = row["times_faster"]
            lines.append(
                [
                    row["layer"],
                    row["operation"],
                    cell(row["times_ms"]["ours"]),
                    cell(faster.get("torch")),
                    cell(faster.get("onnxruntime")),
                    cell(row["over_floor"]),
                ]
            )
    return table(head, lines, "---:")


def remark(row: Row, name: str) -> str:
    """Return " differs" if the result differs from ours."""
    return " differs" if any(each.startswith(name) for each in row["differs"]) else ""


if __name__ == "__main__":
    write(Path(sys.argv[1]))
