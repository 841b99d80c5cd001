"""Writes the results of a load test, and its report."""

from __future__ import annotations

from pathlib import Path

from pooling_loadtest import report, results
from pooling_loadtest.errors import MisuseError


def check_folder(folder: Path) -> None:
    """Create the folder for the results, before the test takes its time.

    Raises:
        MisuseError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisuseError(f"output is {folder}: {error.strerror or error}") from None


def write_all(folder: Path, found: results.Results) -> Path:
    """Write the results and the report; return the path of the report.

    Raises:
        ResultsError: the folder cannot be written.
    """
    results.write(folder, found)
    return report.write(folder, found)
