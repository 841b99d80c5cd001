"""How exact this engine and other libraries are, asked live; writes docs/exactness.md and .png.

Needs PyTorch; ONNX Runtime (with onnx), JAX (with Flax) and TensorFlow answer where installed.

    python -m benchmarks.exactness
"""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import warnings
from fractions import Fraction
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks import report
from benchmarks.exactness.cases import ACCURACY, GOLDEN, Accuracy, Golden, tensor, ulps
from benchmarks.exactness.graphs import Jax, TensorFlow
from benchmarks.exactness.libraries import Engine, Library, NotOffered, OnnxRuntime, Torch
from pooling_engine import UnsupportedError

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = "python -m benchmarks.exactness"
VERSIONS = ("numpy", "ml_dtypes", "torch", "onnxruntime", "jax", "flax", "tensorflow-cpu")
ALLOWED = 4  # ulp, by the contract
GOOD, BAD = "#0072b2", "#d55e00"


def exact_answers(row: Accuracy) -> list[Fraction]:
    if isinstance(row.exact, Fraction):
        return [row.exact]
    gradient = None if row.gradient is None else tensor(row.gradient, row.dtype)[0, 0]
    return row.exact(tensor(row.values, row.dtype)[0, 0], row.options, gradient)


def measure(library: Library, row: Accuracy, exact: list[Fraction]) -> tuple[float | str, str]:
    """The worst error in ulp, or why there is none, and how it is written in the table."""
    x = tensor(row.values, row.dtype)
    try:
        if row.gradient is None:
            answer = library.forward(x, row.options)
        else:
            answer = library.backward(x, tensor(row.gradient, row.dtype), row.options)
    except NotOffered:
        return "—", "—"
    except UnsupportedError:
        return "not yet", "not yet"
    except Exception as error:
        print(f"  {library.title}: {' '.join(str(error).split())[:100]}")
        return "refused", "refused"
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
    """What is asked: (what the answer is called, how it is asked)."""
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
    }[case.asks]


def ask(library: Library, case: Golden) -> dict[str, str]:
    """A library's answers, by what they are called; what it does not offer is left out."""
    answers = {}
    for name, question in questions(case).items():
        if case.answers and name not in case.answers:
            continue
        try:
            answers[name] = text(question(library))
        except NotOffered:
            continue
        except UnsupportedError:
            answers[name] = "not yet"
        except Exception:
            answers[name] = "refused"
    return answers


def cell(answers: dict[str, str], contract: dict[str, str]) -> str:
    """The answers in one cell, bold where they are not the contract's."""
    if not answers:
        return "—"
    if set(answers.values()) == {"refused"}:
        return "refused" if "refused" in contract.values() else "**refused**"
    parts = []
    for name, answer in answers.items():
        is_other = answer not in (contract.get(name, answer), "not yet")
        parts.append(f"**{name} {answer}**" if is_other else f"{name} {answer}")
    return "; ".join(parts)


def table(head: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def golden_table(libraries: list[Library]) -> str:
    rows, asked, right = [], [0] * len(libraries), [0] * len(libraries)
    for case in GOLDEN:
        contract = {name: text(values) for name, values in case.answers.items()}
        cells = [cell(ask(library, case), contract) for library in libraries]
        if contract:
            for at, shown in enumerate(cells):
                asked[at] += "—" != shown != "not yet"
                right[at] += "—" != shown != "not yet" and "**" not in shown
        words = cell(contract, contract) if contract else "not offered"
        rows.append([str(case.number), case.words, words, *cells])
    counts = [f"{r} of {a}" for r, a in zip(right, asked, strict=True)]
    rows.append(["", "as the contract says, of those answered", "", *counts])
    return table(["", "case", "contract", *(library.title for library in libraries)], rows)


def accuracy_table(libraries: list[Library]) -> tuple[str, list[list[float | str]]]:
    """The table, and the errors in it."""
    rows, errors = [], []
    for row in ACCURACY:
        print(row.words, row.dtype, flush=True)
        exact = exact_answers(row)
        measured = [measure(library, row, exact) for library in libraries]
        errors.append([error for error, _ in measured])
        single = number(float(exact[0])) if len(exact) == 1 else ""
        rows.append([row.words, row.dtype, single, *(shown for _, shown in measured)])
    return table(["", "type", "exact", *(library.title for library in libraries)], rows), errors


def draw(libraries: list[Library], errors: list[list[float | str]], path: Path) -> None:
    """One row for each question about floats, one panel for each library, log(1 + error) along."""
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
        words = ["0", "10", "$10^3$", "$10^5$", "$10^7$", "∞"]
        panel.set_xticks([*(math.log10(1 + tick) for tick in ticks), infinity], words)
        panel.set_xlim(-0.5, infinity + 0.5)
        panel.tick_params(length=0, labelsize=9)
        panel.grid(axis="x", color="#e4e4e4", linewidth=0.7)
        panel.set_axisbelow(True)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [f"{row.words}, {row.dtype}" for row, _ in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.supxlabel(
        "distance to the correctly rounded result in ulp; "
        f"blue: at most {ALLOWED} (the grey band), an arrow: infinity or NaN",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)


def installed() -> list[Library]:
    """The engine, and the libraries that can be imported."""
    libraries = []
    for library in (Engine, Torch, OnnxRuntime, Jax, TensorFlow):
        try:
            libraries.append(library())
        except ImportError as error:
            print(f"{library.title} is left out: {error}")
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
    document = PAGE.format(
        command=COMMAND,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine=f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}",
        versions=", ".join([f"Python {machine['python']}", *map(version, VERSIONS)]),
        accuracy=accuracy,
        golden=golden_table(libraries),
        allowed=ALLOWED,
    )
    (DOCS / "exactness.md").write_text(document)
    print(f"wrote {DOCS / 'exactness.md'} and {DOCS / 'exactness.png'}")


PAGE = """\
# How exact

The engine and four libraries, all on the CPU and asked live: `{command}`, {date}.
{machine}; {versions}.

## Sums, norms and gradients

The error is the distance to the correctly rounded result, in units in the last place (ulp) of the
type that the library answers in; for integers, the difference. 0 is the best that any program can
do. Exact results are computed with fractions, roots with 60 digits. Where many elements are
compared the worst counts; where it is one, the answer is in brackets. Bold: more than {allowed}
ulp, the bound of the contract, or a wrong integer.

![The errors in the table below, floats only](exactness.png)

{accuracy}

"—": the library has no such operation or option. "refused": it raised an error; for the sum that is
too large, that is what the contract asks for. PyTorch has no sum pooling; its average with a
divisor of 1 stands for it.

## Corner cases

Forty cases in which implementations are known to differ: the contract's answer, and everyone's.
`y` is the output, `index` the selected position in the plane (-1: none), `dx` the gradient of the
input for an output gradient of ones, in case 2 of 1, 10, 100. k, s, p, d: kernel, stride (the
kernel unless given), padding, dilation; L: the size of the axis. Bold: not the contract's answer,
which need not be a mistake: many of these cases are settled by convention only.

{golden}

Not asked: PyTorch's gradient in case 8, where its index lies outside the plane.
"""


if __name__ == "__main__":
    main()
