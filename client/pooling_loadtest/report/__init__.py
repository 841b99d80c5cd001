"""Report of a load test: one HTML file that needs no network, and `summary.json`."""

from pooling_loadtest.report.writing import write

__all__ = ["write"]
