"""TLS contexts made of PEM files, and what is wrong with such files: for our ports, and for calls of them.

A pair of certificate and key is tried before it is used: two contexts shake hands in memory. So what no other
side would take (a key that is not the certificate's, one made for another purpose) is found here, and what is
in the certificate is read off by OpenSSL.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fleet.config import ConfigError

MAX_PEM_BYTES = 4 << 20
"""Of one file; a bundle of every public CA is a quarter of a megabyte."""
SOON_SECONDS = 7 * 86_400.0
"""Before its end a certificate is warned of; whatever renews it should have done so long ago."""
MAX_FLIGHTS = 10
"""Of a handshake; it takes three."""
ALPN = ("http/1.1",)
_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME: an expired certificate is read too."""


class TlsError(ConfigError):
    """Which file cannot be used, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What an operator is told of one."""

    path: Path
    subject: str
    names: tuple[str, ...]
    """Hosts and addresses that it is for."""
    begins_at_unix_seconds: float
    expires_at_unix_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """A context that is ready for use."""

    context: ssl.SSLContext
    certificate: Certificate | None
    """Shown to the other side; None: none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFiles:
    """Of a port: what it shows, and whose certificates its callers need."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """None: callers need none."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that there are."""
        return tuple(path for path in (self.certificate, self.key, self.client_ca) if path is not None)

    def load(self) -> Tls:
        """For the server's side.

        Raises:
            TlsError: a file cannot be used.
        """
        context = self._context()
        if self.client_ca is not None:
            _trust(context, self.client_ca, "tls_client_ca_file")
            context.verify_mode = ssl.CERT_REQUIRED
        return Tls(context=context, certificate=self._tried())

    def _context(self) -> ssl.SSLContext:
        context = _plain(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_NO_RENEGOTIATION  # a client could ask for the costly part again and again
        _show(context, self.certificate, self.key, "tls_certificate_file", "tls_key_file")
        return context

    def _tried(self, host: str | None = None) -> Certificate:
        caller = _of_itself(ssl.PROTOCOL_TLS_CLIENT, self.certificate)
        caller.check_hostname = host is not None
        try:
            seen, _ = _shake_hands(caller, self._context(), host)
        except ssl.SSLError as error:
            raise TlsError(f"tls_certificate_file = {str(self.certificate)!r}: {_why(error)}") from None
        return _certificate(self.certificate, seen.getpeercert())

    def name_fault(self, host: str) -> str | None:
        """Why a caller who asks for this host would refuse the certificate; None: it would not.

        Raises:
            TlsError: a file cannot be used.
        """
        certificate = self._tried()
        try:
            self._tried(host)
        except TlsError:
            return f"is for {', '.join(certificate.names) or 'no host'}, not for {host}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerFiles:
    """Of who calls our ports: whom it trusts, and what it shows where it is asked."""

    ca: Path | None = None
    """None: those that the system trusts."""
    certificate: Path | None = None
    key: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that there are."""
        return tuple(path for path in (self.ca, self.certificate, self.key) if path is not None)

    def load(self) -> Tls:
        """For the client's side; the host's name is always checked.

        Raises:
            TlsError: a file cannot be used.
        """
        context = _plain(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is None:
            context.load_default_certs()
        else:
            _trust(context, self.ca, "tls_ca_file")
        if self.certificate is None or self.key is None:
            return Tls(context=context, certificate=None)
        self._show_in(context)
        return Tls(context=context, certificate=self._tried(self.certificate))

    def _show_in(self, context: ssl.SSLContext) -> None:
        assert self.certificate is not None
        assert self.key is not None
        _show(context, self.certificate, self.key, "tls_client_certificate_file", "tls_client_key_file")

    def _tried(self, path: Path) -> Certificate:
        """As the other side would see it."""
        caller, port = _plain(ssl.PROTOCOL_TLS_CLIENT), _of_itself(ssl.PROTOCOL_TLS_SERVER, path)
        caller.check_hostname = False
        caller.verify_mode = ssl.CERT_NONE
        self._show_in(caller)
        self._show_in(port)
        port.verify_mode = ssl.CERT_REQUIRED
        try:
            _, seen = _shake_hands(caller, port, None)
        except ssl.SSLError as error:
            raise TlsError(f"tls_client_certificate_file = {str(path)!r}: {_why(error)}") from None
        return _certificate(path, seen.getpeercert())


def checked(where: str, load: Callable[[], Tls]) -> Tls:
    """What `load` makes.

    Raises:
        TlsError: its error, with the place in the configuration before it.
    """
    try:
        return load()
    except TlsError as error:
        raise TlsError(f"{where} {error}") from None


def time_fault(certificate: Certificate, unix_now: float) -> str | None:
    """What is wrong with a certificate's time; None: nothing, not even soon."""
    begins, ends = certificate.begins_at_unix_seconds, certificate.expires_at_unix_seconds
    if unix_now >= ends:
        return f"EXPIRED on {_date(ends)}: whoever checks it refuses the connection"
    if unix_now < begins:
        return f"is not valid before {_date(begins)}: whoever checks it refuses the connection"
    if ends - unix_now < SOON_SECONDS:
        return f"expires on {_date(ends)}"
    return None


def _date(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _plain(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = (
        False  # as browsers and other clients: names stand in subjectAltName
    )
    context.set_alpn_protocols(list(ALPN))
    return context


def _of_itself(protocol: int, path: Path) -> ssl.SSLContext:
    """One that trusts just what this file holds, whatever the date."""
    context = _plain(protocol)
    context.load_verify_locations(str(path))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context


def _read(path: Path, key: str) -> bytes:
    what = f"{key} = {str(path)!r}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise TlsError(f"{what}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_PEM_BYTES:
        raise TlsError(f"{what}: is larger than {MAX_PEM_BYTES} bytes")
    return data


def _show(context: ssl.SSLContext, path: Path, key_path: Path, key_name: str, key_key_name: str) -> None:
    what, key_what = f"{key_name} = {str(path)!r}", f"{key_key_name} = {str(key_path)!r}"
    if _CERTIFICATE not in _read(path, key_name):
        raise TlsError(f"{what}: no certificate in PEM form is in it ({_CERTIFICATE.decode()})")
    if _KEY not in _read(key_path, key_key_name):
        raise TlsError(f"{key_what}: no private key in PEM form is in it (-----BEGIN {_KEY.decode()})")

    def passphrase() -> str:
        raise TlsError(
            f"{key_what}: is encrypted, and nobody is there to type its passphrase: write it without one"
            " (openssl pkey -in KEY -out NEW), readable by this service's user alone"
        )

    try:
        context.load_cert_chain(str(path), str(key_path), passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            said = f"is not the key of {path}: give the two files that were made together"
            raise TlsError(f"{key_what}: {said}") from None
        raise TlsError(f"{what}, {key_what}: cannot be used: {_why(error)}") from None
    except OSError as error:  # gone since it was read
        raise TlsError(f"{what}, {key_what}: cannot be read: {error.strerror}") from None


def _trust(context: ssl.SSLContext, path: Path, key: str) -> None:
    data = _read(path, key)
    if _CERTIFICATE not in data:
        said = f"no certificate in PEM form is in it ({_CERTIFICATE.decode()})"
        raise TlsError(f"{key} = {str(path)!r}: {said}")
    try:
        context.load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except ssl.SSLError as error:
        raise TlsError(f"{key} = {str(path)!r}: cannot be used: {_why(error)}") from None


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's own words, without where in its sources they stand."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def _shake_hands(
    caller: ssl.SSLContext, port: ssl.SSLContext, host: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a connection in memory.

    Raises:
        ssl.SSLError: one refuses the other.
    """
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = caller.wrap_bio(back, there, server_hostname=host), port.wrap_bio(there, back, server_side=True)
    for _ in range(MAX_FLIGHTS):
        waiting = 0
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            return ends
    raise AssertionError("a handshake in memory goes on for ever")


def _certificate(path: Path, fields: object) -> Certificate:
    assert isinstance(fields, dict), "the other side's certificate was asked for"
    subject = {name: value for part in fields.get("subject", ()) for name, value in part}
    names = tuple(value for kind, value in fields.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    return Certificate(
        path=path,
        subject=subject.get("commonName", ""),
        names=names,
        begins_at_unix_seconds=float(ssl.cert_time_to_seconds(fields["notBefore"])),
        expires_at_unix_seconds=float(ssl.cert_time_to_seconds(fields["notAfter"])),
    )
