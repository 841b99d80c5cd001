"""Errors that end a load test before it starts."""


class MisuseError(ValueError):
    """An option, a scenario or a schedule is invalid; the message names it and what is legal."""


class TargetError(Exception):
    """The server cannot be tested; the message names it and the reason."""
