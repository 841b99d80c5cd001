"""Bearer tokens: a file of hashes, with optional rates per token."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pooling_engine import OverloadedError, PermissionDeniedError, UnauthenticatedError
from pooling_server.security.files import WatchedFiles

AUTHORIZATION = "authorization"
_FORM = "NAME SHA256-HEX [calls_per_s=N] [bytes_per_s=N] [revoked]"
_HASH = re.compile("[0-9a-fA-F]{64}")
_NAME = re.compile(r"[\w.@-]{1,64}")
_RATES = ("calls_per_s", "bytes_per_s")


@dataclass(frozen=True, slots=True)
class Token:
    """A line of the token file.

    Attributes:
        name: name of the holder, for errors and logs.
        digest: SHA-256 of the token.
        calls_per_s: calls and stream items per second; infinite without a limit.
        bytes_per_s: bytes of requests and replies per second; infinite without a limit.
        is_revoked: true if the token is known, but no longer valid.
    """

    name: str
    digest: bytes = field(repr=False)
    calls_per_s: float = math.inf
    bytes_per_s: float = math.inf
    is_revoked: bool = False


class Tokens:
    """The tokens of a file, which is read again when it changes.

    Args:
        path: file with one token per line: a name, the SHA-256 hash of the token, and its rates.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not valid; the text has its number.

    Attributes:
        file: the file, for a `FileWatch`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rates: dict[bytes, Rates] = {}  # by digest: they outlive a change of the file
        self._table: Sequence[Token] = ()
        self._read()
        self.file = WatchedFiles([path], self._read)

    def session(self, authorizations: Iterable[str | bytes]) -> Session:
        """Return the session of the client that sent these values of `authorization`.

        Raises:
            UnauthenticatedError: there is not exactly one bearer token, or it is unknown.
            PermissionDeniedError: the token is revoked.
        """
        values = tuple(authorizations)
        scheme, _, token = str(values[0] if len(values) == 1 else "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError(
                "this server needs a token; send it once, in the metadata "
                f"'{AUTHORIZATION}: Bearer TOKEN'",
                facts={"option": "--token-file"},
            )
        return Session(self, hashlib.sha256(token.strip().encode()).digest())

    def find(self, digest: bytes) -> Token:
        """Return the token with this hash; the time does not depend on the hash.

        Raises:
            UnauthenticatedError: there is none.
            PermissionDeniedError: it is revoked.
        """
        found = None
        for token in self._table:
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise UnauthenticatedError(
                "the token is not known to this server, or was removed",
                facts={"option": "--token-file"},
            )
        if found.is_revoked:
            raise PermissionDeniedError(
                f"the token of {found.name} is revoked", facts={"option": "--token-file"}
            )
        return found

    def rates(self, token: Token) -> Rates:
        """Return the rates of a token, which all its calls share."""
        rates = self._rates.get(token.digest)
        if rates is None or rates.token != token:
            rates = self._rates[token.digest] = Rates(token)
        return rates

    @property
    def table(self) -> Sequence[Token]:
        """The tokens; another object after each change of the file."""
        return self._table

    def _read(self) -> None:
        try:
            lines = self._path.read_text().splitlines()
        except OSError as error:
            raise OSError(f"token_file {self._path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"token_file {self._path} is not a text file") from None
        self._table = tuple(
            _parsed(line, f"line {number} of token_file {self._path}")
            for number, line in enumerate(lines, 1)
            if line.strip() and not line.lstrip().startswith("#")
        )


class Session:
    """The token of one RPC, checked again for each item of a stream.

    Args:
        tokens: the tokens of the server.
        digest: SHA-256 of the token.

    Raises:
        PermissionDeniedError: as `Tokens.find`.
    """

    __slots__ = ("_digest", "_rates", "_table", "_tokens", "name")

    def __init__(self, tokens: Tokens, digest: bytes) -> None:
        self._tokens, self._digest = tokens, digest
        self._find()

    def check(self) -> None:
        """Count a call or an item, unless the token is no longer valid or over its rate.

        Raises:
            PermissionDeniedError: as `Tokens.find`.
            OverloadedError: the token is over one of its rates.
        """
        if self._table is not self._tokens.table:
            self._find()
        if self._rates is not None:
            self._rates.count_call()

    def count_bytes(self, nbytes: int) -> None:
        """Count bytes that were received or sent; later calls wait for them."""
        if self._rates is not None:
            self._rates.count_bytes(nbytes)

    def _find(self) -> None:
        self._table = self._tokens.table
        token = self._tokens.find(self._digest)
        is_limited = min(token.calls_per_s, token.bytes_per_s) < math.inf
        self._rates = self._tokens.rates(token) if is_limited else None
        self.name = token.name


class Rates:
    """Calls and bytes of a token, limited by one token bucket each, which holds a second's worth.

    A bucket may be overdrawn by one call, so that a message larger than a second's worth passes.
    """

    def __init__(self, token: Token) -> None:
        self.token = token
        self._limits = {"calls_per_s": token.calls_per_s, "bytes_per_s": token.bytes_per_s}
        self._levels = {name: max(limit, 1.0) for name, limit in self._limits.items()}
        self._updated_s = time.monotonic()
        self._lock = threading.Lock()

    def count_call(self) -> None:
        """Count one call.

        Raises:
            OverloadedError: a bucket is empty; the text has the rate.
        """
        with self._lock:
            now = time.monotonic()
            elapsed_s, self._updated_s = now - self._updated_s, now
            for name, limit in self._limits.items():
                if limit < math.inf:
                    level = self._levels[name] + elapsed_s * limit
                    self._levels[name] = min(level, max(limit, 1.0))
            for name, need in (("calls_per_s", 1.0), ("bytes_per_s", 0.0)):
                if self._levels[name] < need:
                    raise self._over(name, need)
            self._levels["calls_per_s"] -= 1

    def count_bytes(self, nbytes: int) -> None:
        """Count bytes."""
        with self._lock:
            self._levels["bytes_per_s"] -= nbytes

    def _over(self, name: str, need: float) -> OverloadedError:
        limit = self._limits[name]
        retry_s = (need - self._levels[name]) / limit
        unit = name.partition("_")[0]
        return OverloadedError(
            f"the token of {self.token.name} is over its rate of {limit:g} {unit} per second; "
            f"retry in {retry_s:.3g} s",
            facts={
                "limit": name,
                "value": f"{limit:g}",
                "option": "--token-file",
                "retry_after_s": f"{retry_s:.3f}",
            },
        )


def _parsed(line: str, where: str) -> Token:
    name, *rest = line.split()
    digest, options = "".join(rest[:1]), rest[1:]
    if not _NAME.fullmatch(name) or not _HASH.fullmatch(digest):
        raise ValueError(f"{where} is not valid; it must be {_FORM}")
    rates: dict[str, float] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key in _RATES:
            rates[key] = _rate(value, f"{key} in {where}")
        elif option != "revoked":
            raise ValueError(f"{where} has the option {option!r}; it must be {_FORM}")
    return Token(name, bytes.fromhex(digest), **rates, is_revoked="revoked" in options)


def _rate(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{where} is {text!r}; it must be a number above 0")
    return value
