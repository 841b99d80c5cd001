"""Log of a serving process, written to stderr by a thread.

Writing to a pipe or a terminal blocks while its reader does not read. Handlers of calls, and gRPC's
polling thread, must not wait for that.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import queue
import sys
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener
from typing import TextIO

_MOST_RECORDS = 10_000  # waiting to be written; further ones are dropped
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _TextFormatter(logging.Formatter):
    """Lines of text, with the id of the request at the end."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        request_id = getattr(record, "request_id", "")
        return super().format(record) + (f" [request {request_id}]" if request_id else "")


class _JsonFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            "request_id": getattr(record, "request_id", None),
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None})


class _DroppingHandler(QueueHandler):
    """Handler that drops records while the queue is full."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


class _Log:
    """The queue of records and the thread that writes them."""

    def __init__(self, level: str, format_: str) -> None:
        records: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_RECORDS)
        writer = logging.StreamHandler()
        writer.setFormatter(_JsonFormatter() if format_ == "json" else _TextFormatter())
        self._listener = QueueListener(records, writer)
        self._listener.start()
        handler = _DroppingHandler(records)
        handler.setFormatter(logging.Formatter("%(message)s"))  # the writer adds the rest
        logging.basicConfig(level=level, handlers=[handler])

    def close(self) -> None:
        self._listener.stop()


_log: _Log | None = None


def configure_log(level: str, format_: str) -> None:
    """Write the log to stderr from now on.

    Args:
        level: lowest level to write, for example "warning".
        format_: "text" or "json".
    """
    global _log
    _log = _Log(level.upper(), format_)


def open_standard_descriptors() -> None:
    """Open /dev/null in place of standard descriptors that the parent process has closed.

    Otherwise the next socket or pipe would get such a number, and receive what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def announce(line: str) -> None:
    """Print a line to stdout, if it can be written."""
    with suppress(OSError):  # a reader that has gone, or a full disk
        print(line, flush=True)


def flush_output() -> None:
    """Write the rest of the log and of the output; a reader may block this without end."""
    _flush_stream(sys.stdout)
    if _log is not None:
        _log.close()
    _flush_stream(sys.stderr)


def _flush_stream(stream: TextIO | None) -> None:
    if stream is not None:  # None if the process was started with the descriptor closed
        with suppress(OSError):  # a reader that has gone, or a full disk
            stream.flush()
