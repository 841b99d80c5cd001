"""Inference requests over REST, from threads with one connection each."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from pooling_loadtest.errors import MisuseError
from pooling_loadtest.recorder import OK, UNAVAILABLE, UNKNOWN, Recorder
from pooling_loadtest.sending.base import Metadata
from pooling_loadtest.sending.threads import Outcome, ThreadSender

_DEADLINE = 4
# HTTP status to gRPC status code.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 409: 10, 413: 8, 429: 8}
_CODES |= {500: 13, 501: 12, 502: 14, 503: 14, 504: 4}


def rest_sender(
    target: str,
    model: str,
    bodies: Sequence[bytes],
    threads: int,
    timeout_s: float,
    metadata: Metadata,
    recorder: Recorder,
) -> ThreadSender:
    """Return a sender of inference requests over REST.

    Args:
        target: ``HOST:PORT`` or ``http://HOST:PORT`` of the server.
        model: name of the model.
        bodies: one JSON body for each payload.
        threads: number of threads and connections.
        timeout_s: deadline of each call.
        metadata: further headers.
        recorder: records the calls.
    """
    workers = [RestWork(target, model, bodies, timeout_s, metadata) for _ in range(threads)]
    return ThreadSender(workers, len(bodies), recorder, lambda: None)


class RestWork:
    """Inference requests over one connection, one at a time."""

    def __init__(
        self,
        target: str,
        model: str,
        bodies: Sequence[bytes],
        timeout_s: float,
        metadata: Metadata,
    ) -> None:
        self._headers = dict(metadata) | {"content-type": "application/json"}
        self._connection = connect(target, timeout_s)
        self._path = f"/v2/models/{quote(model)}/infer"
        self._bodies = bodies

    def __call__(self, variant: int) -> Outcome:
        """Send a request and return its outcome."""
        connection = self._connection
        try:
            connection.request("POST", self._path, self._bodies[variant], self._headers)
            response = connection.getresponse()
            body = response.read()
        except TimeoutError:
            connection.close()
            return Outcome(_DEADLINE)
        except (OSError, http.client.HTTPException):
            connection.close()
            return Outcome(UNAVAILABLE)
        if response.status != 200:
            return Outcome(_CODES.get(response.status, UNKNOWN), body)
        return Outcome(OK, body, len(body))


def connect(target: str, timeout_s: float) -> http.client.HTTPConnection:
    """Return a connection, which is established for the first request.

    Raises:
        MisuseError: the target is not an address of a web server.
    """
    parts = urlsplit(target if "://" in target else f"http://{target}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or not port:
        text = f"target is {target!r}; over REST it must be HOST:PORT or http://HOST:PORT"
        raise MisuseError(text)
    return http.client.HTTPConnection(parts.hostname, port, timeout=timeout_s)
