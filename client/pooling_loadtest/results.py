"""Results of a load test: a folder with `run.json`, `calls.npz` and perhaps `server_metrics.json`.

`calls.npz` has the columns of `pooling_loadtest.calls`, `run.json` the fields of
`pooling_loadtest.runs`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile

from pooling_loadtest.calls import COLUMNS, MAX_NS, NEVER, TIMES, Calls
from pooling_loadtest.errors import ResultsError
from pooling_loadtest.runs import Run
from pooling_loadtest.typed import typed

_T = TypeVar("_T")

_RUN, _CALLS, _METRICS = "run.json", "calls.npz", "server_metrics.json"


class MetricsRow(TypedDict):
    """Metrics of the server at one time, by name and labels."""

    at_s: float
    samples: dict[str, float]


@dataclass
class Results:
    """A load test with its calls.

    Attributes:
        run: everything but the calls.
        calls: one row per call.
        server_metrics: [{"at_s", "samples": {"metric{labels}": value}}], perhaps empty.
    """

    run: Run
    calls: Calls
    server_metrics: list[dict[str, Any]] = field(default_factory=list)


def write(folder: Path, results: Results) -> None:
    """Write the folder of a load test; it may exist.

    Raises:
        ResultsError: the folder cannot be written; the message names it and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / _RUN, results.run.to_json())
        (folder / _METRICS).unlink(missing_ok=True)  # that of an earlier test
        if results.server_metrics:
            _write_json(folder / _METRICS, results.server_metrics)
        with (folder / _CALLS).open("wb") as file:
            np.savez(file, allow_pickle=False, **results.calls.columns())
    except OSError as error:
        raise ResultsError(f"cannot write {folder}: {error.strerror or error}") from None


def read(folder: Path) -> Results:
    """Return the results in a folder.

    Raises:
        ResultsError: the folder does not hold the results of a load test.
    """
    try:
        run = _named(_RUN, lambda: Run.from_json(_read_json(dict[str, Any], folder / _RUN)))
        calls = _named(_CALLS, lambda: _read_calls(folder / _CALLS, len(run.kinds)))
        metrics = _named(_METRICS, lambda: _read_metrics(folder / _METRICS))
        return Results(run, calls, metrics)
    except OSError as error:
        name = error.filename or folder
        raise ResultsError(
            f"cannot read {name}: {error.strerror or error}; give a folder that "
            "`pooling loadtest --output` wrote"
        ) from None
    except ResultsError as error:
        text = f"{folder} does not hold the results of a load test: {error}"
        raise ResultsError(text) from None


def _named(name: str, read_file: Callable[[], _T]) -> _T:
    """Return the content of a file; errors of its content name it in one line."""
    try:
        return read_file()
    except OSError:
        raise
    except (BadZipFile, EOFError):
        raise ResultsError(f"{name} is incomplete or damaged") from None
    except (ValueError, KeyError, RecursionError, MemoryError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ResultsError(f"{name}: {reason}") from None


def _read_calls(path: Path, kinds: int) -> Calls:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if not isinstance(arrays, NpzFile):
            raise ResultsError("it is no archive of columns")
        columns = {name: arrays[name] for name in COLUMNS}
    for name, dtype in COLUMNS.items():
        if columns[name].dtype != dtype:
            needed = np.dtype(dtype).name
            raise ResultsError(f"column {name} has type {columns[name].dtype}; must be {needed}")
    calls = Calls(columns)
    if len(calls) and int(calls.kind.max()) >= kinds:
        text = f"column kind has {calls.kind.max()}; {_RUN} describes {kinds} kinds"
        raise ResultsError(text)
    for name in TIMES:
        if np.any((columns[name] < NEVER) | (columns[name] > MAX_NS)):
            raise ResultsError(f"column {name} must be {NEVER} or a time of at most {MAX_NS} ns")
    return calls


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    samples: list[Any] = _read_json(list[MetricsRow], path)
    return samples


def _read_json(kind: Any, path: Path) -> Any:
    return typed(kind, json.loads(path.read_text("utf-8")), "content")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
