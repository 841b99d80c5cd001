"""Errors of load tests and of their results."""


class MisuseError(ValueError):
    """An option, a scenario or a schedule is invalid; the message names it and what is legal."""


class TargetError(Exception):
    """The server cannot be tested; the message names it and the reason."""


class ResultsError(ValueError):
    """A folder does not hold the results of a load test, or cannot be written."""
