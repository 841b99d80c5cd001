"""Writes the report of a load test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pooling_loadtest.errors import ResultsError
from pooling_loadtest.report.figures import figures
from pooling_loadtest.report.page import page
from pooling_loadtest.results import Results, read


def write(folder: Path, results: Results | None = None) -> Path:
    """Write `report.html` and `summary.json` beside the results in a folder.

    Args:
        folder: the folder of the results.
        results: the results, if they need not be read again.

    Returns:
        The path of the HTML file, which needs no other file and no network.

    Raises:
        ResultsError: the folder holds no results, cannot be written, or a package is missing.
    """
    results = results or read(folder)
    found = figures(results)
    path = folder / "report.html"
    try:
        (folder / "summary.json").write_text(_json(found) + "\n")
        path.write_text(page(results, found, libraries))
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def libraries() -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed.

    Raises:
        ResultsError: vl-convert-python, which carries them, is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise ResultsError(
            "the report needs vl-convert-python: pip install 'pooling-service[load]', then "
            "`pooling loadtest report`"
        ) from None
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version="6.4"))


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, default=list)
