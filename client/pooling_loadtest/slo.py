"""Service level objectives, such as 'p99<50ms,errors<1%'."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pooling_loadtest.calls import Calls, percentiles
from pooling_loadtest.errors import MisuseError

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_TERM = re.compile(
    r"\s*(p\d{1,2}(?:\.\d+)?|mean|max|errors|rate)\s*([<>])\s*(\d+(?:\.\d+)?)\s*(us|ms|s|%|/s)?\s*"
)
_LEGAL = "terms such as p99<50ms, mean<5ms, max<1s, errors<1% or rate>100, separated by commas"


@dataclass(frozen=True)
class Term:
    """One condition: a figure, "<" or ">", and a limit in ms, percent or calls/s."""

    figure: str
    sign: str
    limit: float

    def is_met(self, calls: Calls, duration_s: float) -> bool:
        """Return whether the calls meet the condition."""
        value = figure_of(self.figure, calls, duration_s)
        return bool(value < self.limit if self.sign == "<" else value > self.limit)


@dataclass(frozen=True)
class Slo:
    """Conditions that must all be met.

    Attributes:
        text: the conditions as they were written.
        terms: the conditions.
    """

    text: str
    terms: tuple[Term, ...]

    def is_met(self, calls: Calls, duration_s: float) -> bool:
        """Return whether the calls meet all conditions."""
        return all(term.is_met(calls, duration_s) for term in self.terms)


def parse_slo(text: str) -> Slo:
    """Return the conditions in a text.

    Raises:
        MisuseError: the text has another form.
    """
    terms = []
    for part in text.split(","):
        found = _TERM.fullmatch(part)
        if found is None:
            raise MisuseError(f"slo has {part.strip()!r}; it must consist of {_LEGAL}")
        figure, sign, number, unit = found.groups()
        terms.append(Term(figure, sign, float(number) * _factor(part, figure, sign, unit)))
    return Slo(text, tuple(terms))


def figure_of(figure: str, calls: Calls, duration_s: float) -> float:
    """Return a figure of calls: latencies in ms, errors in percent, rate in calls/s.

    A call without a reply counts as infinitely late, so that a server that fails fast does not
    seem fast.
    """
    if not len(calls):
        return float("nan")
    if figure == "errors":
        return 100 * (1 - float(np.count_nonzero(calls.is_ok)) / len(calls))
    if figure == "rate":
        return float(np.count_nonzero(calls.is_ok)) / duration_s
    latency_ms = np.where(calls.is_ok, calls.latency_ns / 1e6, np.inf)
    if figure == "mean":
        return float(latency_ms.mean())
    at = 100.0 if figure == "max" else float(figure[1:])
    with np.errstate(invalid="ignore"):  # between a number and infinity
        value = float(percentiles(latency_ms, [at])[0])
    return float("inf") if np.isnan(value) else value


def _factor(part: str, figure: str, sign: str, unit: str | None) -> float:
    """Return the factor to the unit of the figure."""
    if figure == "errors":
        is_legal, factor = unit == "%" and sign == "<", 1.0
    elif figure == "rate":
        is_legal, factor = unit in (None, "/s") and sign == ">", 1.0
    else:
        is_legal, factor = unit in _UNITS_MS and sign == "<", _UNITS_MS.get(unit or "", 1.0)
    if not is_legal:
        raise MisuseError(f"slo has {part.strip()!r}; it must consist of {_LEGAL}")
    return factor
