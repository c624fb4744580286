"""Ed25519 keys as operators make them: private ones in PEM files, public ones as `[fleet.trusted_keys]` names
them.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleet.config import FleetConfig, TrustedKeys
from fleet.signing import RecordSigner
from fleet.signing_keys import Signing, public_text, trust_of


class SigningKeys:
    """One key for each name, made when it is first asked for."""

    def __init__(self) -> None:
        self._keys: dict[str, Ed25519PrivateKey] = {}

    def key(self, name: str) -> Ed25519PrivateKey:
        """The private key."""
        return self._keys.setdefault(name, Ed25519PrivateKey.generate())

    def public(self, name: str) -> str:
        """As `[fleet.trusted_keys]` names it."""
        return public_text(self.key(name).public_key())

    def write(self, directory: Path, name: str) -> Path:
        """`NAME.pem`."""
        path = directory / f"{name}.pem"
        path.write_bytes(self.key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return path

    def trusted(self, *sites: str) -> TrustedKeys:
        """Every kind of writer by the key of its name, and these sites by theirs."""
        return TrustedKeys(
            power_feed=(self.public("power_feed"),),
            router=(self.public("router"),),
            operator=(self.public("operator"),),
            sites={site_id: (self.public(site_id),) for site_id in sites},
        )

    def signing(self, name: str, *sites: str, fleet: str = "default") -> Signing:
        """Of the process that signs with this key, in a fleet of these sites."""
        config = FleetConfig(name=fleet, trusted_keys=self.trusted(*sites))
        return Signing(RecordSigner(fleet, self.key(name)), trust_of(config))
