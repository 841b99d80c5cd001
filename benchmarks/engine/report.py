"""Markdown tables and picture of the engine benchmark, made from its JSON file.

python -m benchmarks.engine.report benchmarks/results/engine-cpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine import goals as engine_goals
from benchmarks.engine.suite import DTYPES, LAYERS, LAYOUTS, OPERATIONS
from benchmarks.report import cell, table

Row = dict[str, Any]
TITLES = {
    "ours": "ours",
    "ours_allocating": "ours (new arrays)",
    "numpy": "NumPy backend",
    "torch": "PyTorch",
    "torch_channels_last": "PyTorch (channels last)",
    "onnxruntime": "ONNX Runtime",
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
  NHWC rows have no other PyTorch contender; their goals and means refer to this one.
- **ONNX Runtime** is the faster of a plain `run` and a `run` bound to preallocated arrays.
  It supports neither channels last nor adaptive windows nor gradients.
- **—** means that the contender has no such operation, or not for this element type.
- **Memory-bandwidth floor** is the time that the same threads need to read the input once
  (forward), or to write the gradient once into mapped memory (backward).
- Results of every contender are compared with ours before timing.
  If they are not close, the time is marked "differs".
- **Mean speed-up at the floor** is what a kernel with the time of the floor would reach.
- Geometric means and goals use ours with `out=`.
  Goals for every layer include the smallest; large tensors are inputs over 8 MiB.
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
        for dtype in DTYPES
        for layout in LAYOUTS
        for operation in OPERATIONS
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
        goals_table(groups),
    ]
    for (dtype, layout, operation), members in groups.items():
        parts += [f"## {operation.capitalize()}, {dtype} {layout}\n", times_table(members)]
        left_out = [layer.network for layer in LAYERS if operation not in layer.operations]
        if left_out:
            parts.append(f"{' and '.join(left_out)} use average pooling and have no row here.\n")
    return "\n".join(parts)


def goals_table(groups: dict[tuple[str, str, str], list[Row]]) -> str:
    """Return one line per group: geometric means, worst layers, and verdicts on the goals."""
    head = ["operation", "times faster than PyTorch", "times faster than ONNX Runtime"]
    head += ["time / memory-bandwidth floor, large tensors", "times faster, smallest layer"]
    head += ["mean speed-up at the floor", "mean speed-up with new arrays"]
    head += ["mean speed-up over other contenders"]
    lines = [
        [
            f"{operation}, {dtype} {layout}",
            engine_goals.against_torch(rows, engine_goals.GOALS[operation]),
            engine_goals.against_onnxruntime(rows, engine_goals.GOALS[operation]),
            engine_goals.against_floor(rows, engine_goals.GOALS[operation]),
            engine_goals.smallest(rows),
            floor_means(rows),
            allocating_means(rows),
            other_means(rows),
        ]
        for (dtype, layout, operation), rows in groups.items()
    ]
    return table(head, lines, ":---")


def floor_means(rows: list[Row]) -> str:
    """Return the speed-ups that a kernel with the time of the floor would reach."""
    return means(rows, (engine_goals.torch_of(rows[0]["layout"]), "onnxruntime"), "floor")


def allocating_means(rows: list[Row]) -> str:
    """Return our speed-ups with newly allocated results."""
    rivals = (engine_goals.torch_of(rows[0]["layout"]), "onnxruntime")
    return means(rows, rivals, "ours_allocating")


def other_means(rows: list[Row]) -> str:
    """Return our speed-ups over contenders without a goal."""
    is_last = rows[0]["layout"] == "NHWC"
    return means(rows, ("numpy",) if is_last else ("torch_channels_last", "numpy"), "ours")


def means(rows: list[Row], rivals: tuple[str, ...], ours: str) -> str:
    able = [name for name in rivals if any(name in row["times_faster"] for row in rows)]
    shown = (f"{engine_goals.mean(rows, name, ours):.2f} {TITLES[name]}" for name in able)
    return ", ".join(shown) or "—"


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
