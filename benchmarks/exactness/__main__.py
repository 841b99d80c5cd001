"""Compare this engine and other libraries with exact results; writes docs/exactness.md and .png.

Needs PyTorch; ONNX Runtime (with onnx), JAX (with Flax) and TensorFlow are included if installed.

    python -m benchmarks.exactness
"""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import textwrap
import warnings
from fractions import Fraction
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks import report
from benchmarks.exactness.cases import ACCURACY, GOLDEN, Accuracy, Golden, tensor, ulps
from benchmarks.exactness.graphs import Jax, TensorFlow
from benchmarks.exactness.libraries import Engine, Library, NotSupported, OnnxRuntime, Torch
from pooling_engine import UnsupportedError

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = "python -m benchmarks.exactness"
VERSIONS = ("numpy", "ml_dtypes", "torch", "onnxruntime", "jax", "flax", "tensorflow-cpu")
ALLOWED = 4  # ulp, the limit that the service guarantees
GOOD, BAD = "#0072b2", "#d55e00"


def exact_answers(row: Accuracy) -> list[Fraction]:
    if isinstance(row.exact, Fraction):
        return [row.exact]
    gradient = None if row.gradient is None else tensor(row.gradient, row.dtype)[0, 0]
    return row.exact(tensor(row.values, row.dtype)[0, 0], row.options, gradient)


def measure(library: Library, row: Accuracy, exact: list[Fraction]) -> tuple[float | str, str]:
    """Return the largest error in ulp, or the reason for none, and its text in the table."""
    x = tensor(row.values, row.dtype)
    try:
        if row.gradient is None:
            answer = library.forward(x, row.options)
        else:
            answer = library.backward(x, tensor(row.gradient, row.dtype), row.options)
    except NotSupported:
        return "—", "—"
    except UnsupportedError:
        return "not implemented", "not implemented"
    except Exception as error:
        print(f"  {library.title}: {' '.join(str(error).split())[:100]}")
        return "error", "error"
    answers = np.atleast_1d(answer[row.at]).ravel()
    worst = max(ulps(a, e) for a, e in zip(answers, exact, strict=True))
    shown = "∞" if math.isinf(worst) else f"{worst:.3g}"
    if len(exact) == 1 and worst:
        shown += f" ({number(answers[0])})"
    allowed = 0 if answers.dtype.kind in "iu" else ALLOWED
    return worst, f"**{shown}**" if worst > allowed else shown


def number(value) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return str(value) if isinstance(value, int | str) else f"{float(value):.5g}"


def text(values) -> str:
    return " ".join(map(number, np.ravel(values)))


def questions(case: Golden):
    """Return the computations of a case, by the names of their results."""
    x = tensor(case.values, case.dtype)
    dy = None if case.gradient is None else tensor(case.gradient, case.dtype)
    return {
        "pool": {
            "y": lambda of: of.forward(x, case.options),
            "index": lambda of: of.indices(x, case.options),
            "dx": lambda of: of.backward(x, dy, case.options)[case.at],
        },
        "size": {"outputs": lambda of: of.forward(x, case.options).shape[2:]},
        "shapes": {
            "y": lambda of: of.forward(x, case.options).shape,
            "dx": lambda of: of.backward(x, dy, case.options).shape,
        },
        "formats": {
            "plane": lambda of: of.indices(x, case.options),
            "tensor": lambda of: of.tensor_indices(x, case.options),
        },
        "unpool": {"x": lambda of: of.unpool(x, np.array([[[1, 1]]]), 4)},
        "column_major": {"index": lambda of: of.column_major(x, case.options)},
        "channels_last": {
            "without": lambda of: of.channels_last_indices(x, case.options, has_batch=False),
            "with": lambda of: of.channels_last_indices(x, case.options, has_batch=True),
        },
    }[case.question]


def answers_of(library: Library, case: Golden) -> dict[str, str]:
    """Return the results of a library by name, without those that it does not support."""
    answers = {}
    for name, question in questions(case).items():
        if case.answers and name not in case.answers:
            continue
        try:
            answers[name] = text(question(library))
        except NotSupported:
            continue
        except UnsupportedError:
            answers[name] = "not implemented"
        except Exception:
            answers[name] = "error"
    return answers


def cell(answers: dict[str, str], contract: dict[str, str]) -> str:
    """Return the results in one cell, bold where they differ from the contract's."""
    if not answers:
        return "—"
    if set(answers.values()) == {"error"}:
        return "error" if "error" in contract.values() else "**error**"
    parts = []
    for name, answer in answers.items():
        is_other = answer not in (contract.get(name, answer), "not implemented")
        parts.append(f"**{name} {answer}**" if is_other else f"{name} {answer}")
    return "; ".join(parts)


def table(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def golden_table(libraries: list[Library]) -> str:
    rows, supported, right = [], [0] * len(libraries), [0] * len(libraries)
    for case in GOLDEN:
        contract = {name: text(values) for name, values in case.answers.items()}
        cells = [cell(answers_of(library, case), contract) for library in libraries]
        if contract:
            for at, shown in enumerate(cells):
                supported[at] += shown not in ("—", "not implemented")
                right[at] += shown not in ("—", "not implemented") and "**" not in shown
        expected = cell(contract, contract) if contract else "not supported"
        rows.append([str(case.number), case.title, expected, *cells])
    counts = [f"{r} of {a}" for r, a in zip(right, supported, strict=True)]
    rows.append(["", "agrees with the contract, of the supported cases", "", *counts])
    return table(["no.", "case", "contract", *(library.title for library in libraries)], rows)


def accuracy_table(libraries: list[Library]) -> tuple[str, list[list[float | str]]]:
    """Return the table, and the errors in it."""
    rows, errors = [], []
    for row in ACCURACY:
        print(row.title, row.dtype, flush=True)
        exact = exact_answers(row)
        measured = [measure(library, row, exact) for library in libraries]
        errors.append([error for error, _ in measured])
        single = number(float(exact[0])) if len(exact) == 1 else ""
        rows.append([row.title, row.dtype, single, *(shown for _, shown in measured)])
    return table(
        ["computation", "type", "exact", *(library.title for library in libraries)], rows
    ), errors


def draw(libraries: list[Library], errors: list[list[float | str]], path: Path) -> None:
    """Draw log(1 + error) of the float rows, one panel per library."""
    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [(row, e) for row, e in zip(ACCURACY, errors, strict=True) if "int" not in row.dtype]
    figure, panels = pyplot.subplots(
        1, len(libraries), sharey=True, figsize=(12, 0.27 * len(rows) + 1.3), layout="constrained"
    )
    infinity = 9.0
    for at, (panel, library) in enumerate(zip(panels, libraries, strict=True)):
        panel.axvspan(-0.5, math.log10(1 + ALLOWED), color="#eeeeee", zorder=0)
        for y, (_, measured) in enumerate(rows):
            error = measured[at]
            if isinstance(error, str):
                panel.text(-0.12, y, error, va="center", fontsize=8, color="#999999")
                continue
            x = min(infinity, math.log10(1 + error))
            colour = BAD if error > ALLOWED else GOOD
            panel.plot([0, x], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
            panel.plot(x, y, "o" if math.isfinite(error) else ">", color=colour, markersize=6)
        panel.set_title(library.title, fontsize=11, fontweight="normal" if at else "bold")
        ticks = (0, 10, 1000, 10**5, 10**7)
        labels = ["0", "10", "$10^3$", "$10^5$", "$10^7$", "∞"]
        panel.set_xticks([*(math.log10(1 + tick) for tick in ticks), infinity], labels)
        panel.set_xlim(-0.5, infinity + 0.5)
        panel.tick_params(length=0, labelsize=9)
        panel.grid(axis="x", color="#e4e4e4", linewidth=0.7)
        panel.set_axisbelow(True)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [f"{row.title}, {row.dtype}" for row, _ in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.supxlabel(
        "distance to the correctly rounded result in ulp; "
        f"blue: at most {ALLOWED} (grey band); arrow: infinity or NaN",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)


def installed() -> list[Library]:
    """Return the engine and the libraries that can be imported."""
    libraries = []
    for library in (Engine, Torch, OnnxRuntime, Jax, TensorFlow):
        try:
            libraries.append(library())
        except ImportError as error:
            print(f"without {library.title}: {error}")
    return libraries


def version(distribution: str) -> str:
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{distribution} not installed"


def main() -> None:
    warnings.simplefilter("ignore")
    libraries = installed()
    accuracy, errors = accuracy_table(libraries)
    draw(libraries, errors, DOCS / "exactness.png")
    machine = report.machine()
    versions = ", ".join([f"Python {machine['python']}", *map(version, VERSIONS)])
    versions = textwrap.fill(versions, 105)
    document = PAGE.format(
        command=COMMAND,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        versions=textwrap.indent(versions, "  ").strip(),
        accuracy=accuracy,
        golden=golden_table(libraries),
        allowed=ALLOWED,
    )
    (DOCS / "exactness.md").write_text(document)
    print(f"wrote {DOCS / 'exactness.md'} and {DOCS / 'exactness.png'}")


PAGE = """\
# Exactness

This page compares the engine and four libraries with exact results, all on the CPU.
It is generated by `{command}`.

- Date: {date}
- Machine: {machine}
- Versions: {versions}

## Sums, norms and gradients

The error is the distance to the correctly rounded result.
Its unit is the unit in the last place (ulp) of the result's type.
For integers it is the difference.
An error of 0 is the best that any program can reach.
Exact results are computed with fractions, and roots with 60 digits.

- If many elements are compared, the table shows the largest error.
- If one element is compared, the result follows in brackets.
- Bold: more than {allowed} ulp, the limit that this service guarantees, or a wrong integer.
- "—": the library has no such operation or option.
- "error": the library raised an error.
  For the sum that is too large, an error is the correct answer.

PyTorch has no sum pooling; its average with a divisor of 1 is used instead.

![The errors in the table below, floats only](exactness.png)

{accuracy}

## Corner cases

Forty cases in which implementations are known to differ.

| notation | meaning |
| --- | --- |
| `y` | the output |
| `index` | the selected position in the plane, -1 for none |
| `dx` | the gradient of the input for an output gradient of ones (case 2: 1, 10, 100) |
| k, s, p, d | kernel, stride (the kernel size unless given), padding, dilation |
| L | the size of the axis |
| contract | the guaranteed result; the comments of `pooling.proto` state the rules |
| bold | differs from the contract |

A difference is not necessarily a mistake: many of these cases are settled by convention only.

{golden}

PyTorch's gradient in case 8 is not computed, because its index lies outside the plane.
"""


if __name__ == "__main__":
    main()
