"""What a service signs with and whom it believes, from its configuration (docs/records.md#signed-records)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fleet.config import ConfigError, FleetConfig, PublicKeys
from fleet.signing import BELIEVES_ALL, SIGNS_NOTHING, RecordSigner, RecordTrust
from fleet.version import extra_hint
from fleet.wire import Writer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_KEY_FILE_BYTES = 64 << 10
NEEDS_EXTRA = f"signed records need the package cryptography: {extra_hint('signing')}"
MAKE_ONE = "openssl genpkey -algorithm ed25519 -out FILE makes one"


class Signing(NamedTuple):
    """Of one process."""

    signer: RecordSigner
    trust: RecordTrust


UNSIGNED = Signing(SIGNS_NOTHING, BELIEVES_ALL)
"""Where `[fleet.trusted_keys]` names nobody."""


def signing_of(
    fleet: FleetConfig,
    writer: Writer,
    table: str,
    key_file: Path | None,
    *,
    site_id: str = "",
    key: str = "signing_key_file",
) -> Signing:
    """`table` and `key` say in messages where `key_file` is configured; `site_id`: a site agent's own.

    Raises:
        ConfigError: the key cannot be used, is not among those that are trusted, or a package is missing.
    """
    trust, where = trust_of(fleet), f"[{table}] {key}"
    if key_file is None:
        if trust.asks(writer):
            raise ConfigError(
                f"{where}: is missing, and [fleet.trusted_keys] names keys of {writer}: "
                "nobody would believe what it writes"
            )
        return Signing(SIGNS_NOTHING, trust)
    try:
        private = _private_key(key_file)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{where}: {key_file}: {said}") from None
    public = public_text(private.public_key())
    trusted = fleet.trusted_keys
    named = trusted.sites.get(site_id, ()) if writer == "site" else getattr(trusted, writer)
    if trust.asks(writer) and public not in named:
        of = f"sites.{site_id}" if writer == "site" else writer
        raise ConfigError(
            f"{where}: {key_file}: [fleet.trusted_keys] {of} does not name its public "
            f"half, {public}: nobody would believe what it writes"
        )
    return Signing(RecordSigner(fleet.name, private), trust)


def trust_of(fleet: FleetConfig) -> RecordTrust:
    """Whom `[fleet.trusted_keys]` believes.

    Raises:
        ConfigError: a package is missing.
    """
    trusted = fleet.trusted_keys
    if not (trusted.power_feed or trusted.router or trusted.operator or trusted.sites):
        return BELIEVES_ALL
    return RecordTrust(
        fleet.name,
        keys={
            "power_feed": _public_keys(trusted.power_feed),
            "router": _public_keys(trusted.router),
            "operator": _public_keys(trusted.operator),
        },
        site_keys={site_id: _public_keys(keys) for site_id, keys in trusted.sites.items()},
        max_clock_skew_seconds=fleet.max_clock_skew_seconds,
    )


def check_signing(
    source: str, table: str, fleet: FleetConfig, writer: Writer, key_file: Path | None, *, site_id: str = ""
) -> None:
    """Try it once, so that what is wrong is told before anything starts.

    Raises:
        ConfigError: as `signing_of`, with the configuration's file.
    """
    try:
        signing_of(fleet, writer, table, key_file, site_id=site_id)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def public_text(key: Ed25519PublicKey) -> str:
    """A public key as `[fleet.trusted_keys]` names it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def _private_key(path: Path) -> Ed25519PrivateKey:
    """Raises OSError or ValueError (with what is wrong)."""
    with path.open("rb") as file:
        pem = file.read(MAX_KEY_FILE_BYTES)
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ValueError(NEEDS_EXTRA) from None
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("it has a passphrase: write it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"not a private key in PEM; {MAKE_ONE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"not an Ed25519 key; {MAKE_ONE}")  # noqa: TRY004 -- of a file, not a type
    return key


def _public_keys(texts: PublicKeys) -> tuple[Ed25519PublicKey, ...]:
    if not texts:
        return ()
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise ConfigError(f"[fleet.trusted_keys]: {NEEDS_EXTRA}") from None
    return tuple(Ed25519PublicKey.from_public_bytes(base64.b64decode(text)[-32:]) for text in texts)
