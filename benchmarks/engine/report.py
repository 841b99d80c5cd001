"""The measured rows as tables, for reading: the goals first, then one table per operation.

python -m benchmarks.engine.report benchmarks/results/engine-cpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine import goals as engine_goals
from benchmarks.engine.suite import DTYPES, LAYERS, LAYOUTS, OPERATIONS

Row = dict[str, Any]
TITLES = {
    "ours": "ours",
    "ours_allocating": "ours, allocating",
    "numpy": "NumPy backend",
    "torch": "PyTorch",
    "torch_channels_last": "PyTorch channels last",
    "onnxruntime": "ONNX Runtime",
}
README_LAYERS = ("LeNet 10x16", "VGG-16 8x64x224", "ResNet", "GoogLeNet")
README_OPERATIONS = ("forward max", "forward average", "backward max", "backward average")
RIVALS = ("torch", "torch_channels_last", "onnxruntime", "numpy")
NOTES = """\
Milliseconds: the median of the rounds, the smallest and the largest in brackets. Ratios are taken
round by round; more than 1 means that ours is faster, but "over floor" is our time over the floor.

- **ours** writes into a buffer that is given with `out=`, as the server does; **allocating**, it
  makes a new array every time. The indices of the maximum are allocated in either.
- **PyTorch** allocates its results. **Channels last** is its memory format of that name, for two
  and three spatial axes; beside NCHW rows its tensors were converted beforehand, which is not in
  the time. Of NHWC rows it is the only PyTorch, on the same memory as ours; where goals and means
  of NHWC rows speak of PyTorch, they mean it.
- **ONNX Runtime** is the faster of a plain `run` and one bound to preallocated arrays. It has no
  channels last, no adaptive windows and no gradients.
- **—**: there is no such operation there, or not in this element type.
- **The floor** is the time that the same threads take to read the input once (forward), or to
  write the gradient once into memory that is there (backward).
- Every contender's result is compared with ours before it is timed; where it is not close, its
  time is marked "differs".
- **At the floor** are the means that the floor itself would reach, were it a contender: no kernel
  can be asked for more.
- Geometric means, and goals, are of ours with `out=`. Goals about every layer include the
  smallest; large tensors are inputs over 8 MiB.
"""


def markdown(path: Path) -> str:
    """The whole document, from the JSON file."""
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
        "# The engine on a processor\n",
        f"{machine['cpu']}, all on {result['threads']} threads, "
        f"load average {result['load_before']} before; Python {machine['python']}, "
        f"{versions}; {result['date']}; `{result['command']}`.\n",
        f"![Time against bytes moved]({path.stem}.png)\n",
        NOTES,
        "## Goals\n",
        goals_table(groups),
    ]
    for (dtype, layout, operation), members in groups.items():
        parts += [f"## {operation.capitalize()}, {dtype} {layout}\n", times_table(members)]
        left_out = [layer.network for layer in LAYERS if operation not in layer.operations]
        if left_out:
            parts.append(f"{' and '.join(left_out)} use the average, and are left out here.\n")
    return "\n".join(parts)


def goals_table(groups: dict[tuple[str, str, str], list[Row]]) -> str:
    """Each group against each rival: geometric mean, worst layer, and whether goals are met."""
    head = ["group", "times faster than PyTorch", "times faster than ONNX Runtime"]
    head += ["over floor, large tensors", "smallest layer"]
    head += ["means, at the floor", "means, allocating", "means, the other rivals"]
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
    """How much faster than PyTorch and ONNX Runtime one would be in the time of the floor."""
    return means(rows, (engine_goals.torch_of(rows[0]["layout"]), "onnxruntime"), "floor")


def allocating_means(rows: list[Row]) -> str:
    """How much faster we are, when we allocate our results too, than PyTorch and ONNX Runtime."""
    rivals = (engine_goals.torch_of(rows[0]["layout"]), "onnxruntime")
    return means(rows, rivals, "ours_allocating")


def other_means(rows: list[Row]) -> str:
    """How much faster we are than those that no goal is about."""
    is_last = rows[0]["layout"] == "NHWC"
    return means(rows, ("numpy",) if is_last else ("torch_channels_last", "numpy"), "ours")


def means(rows: list[Row], rivals: tuple[str, ...], ours: str) -> str:
    able = [name for name in rivals if any(name in row["times_faster"] for row in rows)]
    shown = (f"{engine_goals.mean(rows, name, ours):.2f} {TITLES[name]}" for name in able)
    return ", ".join(shown) or "—"


def times_table(rows: list[Row]) -> str:
    """Times and ratios of one group, a line for each layer."""
    shown = [name for name in TITLES if any(name in row["times_ms"] for row in rows)]
    rivals = [name for name in RIVALS if name in shown]
    head = ["layer", "MiB in", *(TITLES[name] for name in shown), "floor"]
    head += [f"× {TITLES[name]}" for name in rivals] + ["over floor"]
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


def cell(spread: dict[str, float] | None) -> str:
    return "{median:.3g} ({min:.3g}-{max:.3g})".format(**spread) if spread else "—"


def readme_table(result: dict[str, Any]) -> str:
    """A few rows for the front page: float32, channels first, milliseconds of ours."""
    head = ["layer", "operation", "ours, ms", "over PyTorch", "over ONNX Runtime", "over the floor"]
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
    """Whether the answer was another than ours."""
    return " differs" if any(each.startswith(name) for each in row["differs"]) else ""


def table(head: list[str], lines: list[list[str]], alignment: str) -> str:
    rules = ["---"] + [alignment] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rules, *lines]) + "\n"


if __name__ == "__main__":
    source = Path(sys.argv[1])
    source.with_suffix(".md").write_text(markdown(source))
