"""TLS: the certificate and key of the server, and the authority that signs those of clients."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NoReturn

import grpc

from pooling_server.security.files import WatchedFiles


class Certificates:
    """Certificate, key and client authority, which new connections use as soon as they are read.

    Args:
        certificate: PEM file with the certificate of the server and its intermediate certificates.
        key: PEM file with its private key, not encrypted.
        client_ca: PEM file with the authorities of client certificates; None if clients need none.

    Raises:
        OSError: a file cannot be read, or is not valid; the text names it.

    Attributes:
        files: the files, for a `FileWatch`.
        context: OpenSSL's context with the newest files.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self.context: ssl.SSLContext
        self._read()
        paths = [certificate, key, *([client_ca] if client_ca else [])]
        self.files = WatchedFiles(paths, self._read)

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of one listening address, which use the newest files.

        Each address needs its own credentials: their callback must return None if nothing has
        changed since its last call.
        """
        given = self._configuration

        def newest() -> Any:
            nonlocal given
            if given is self._configuration:
                return None
            given = self._configuration
            return given

        return grpc.dynamic_ssl_server_credentials(
            given, newest, require_client_authentication=self._client_ca is not None
        )

    def _read(self) -> None:
        certificate = _content(self._certificate, "tls_certificate")
        key = _content(self._key, "tls_key")
        authority = _content(self._client_ca, "tls_client_ca") if self._client_ca else None
        self.context = self._context()
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=authority
        )

    def _context(self) -> ssl.SSLContext:
        """Return a context with the files; gRPC would reject connections without a reason."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except ssl.SSLError as error:
            _reject(
                f"tls_certificate {self._certificate} and tls_key {self._key} are not a certificate"
                " and its unencrypted key in PEM form",
                error,
            )
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except ssl.SSLError as error:
                _reject(f"tls_client_ca {self._client_ca} has no certificate in PEM form", error)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _content(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"{option} {path} cannot be read: {error.strerror}") from None


def _no_password() -> str:
    """Return an empty password: OpenSSL would ask for one on the terminal."""
    return ""


def _reject(text: str, error: ssl.SSLError) -> NoReturn:
    raise OSError(f"{text} ({(error.reason or 'invalid').replace('_', ' ').lower()})") from None
