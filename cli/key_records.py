"""The records of API keys as an operator's commands read and write them: signed where the operator has a key.

Rule: what is not believed is never signed as it is: somebody else may have written it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping

from fleet.records import ApiKey
from fleet.signing import signing_time
from fleet.signing_keys import Signing
from fleet.store import Store
from fleet.wire import RecordError

KEYS_AT_ONCE = 500
"""In one round trip."""
SHOWN_ID = 12
"""Digits of a key's id in the list: enough to tell thousands apart."""
NOBODY = "revoked"
"""Tenant of a key that is revoked and whose record cannot be read."""
WORTH_SAYING_SECONDS = 1.0


class KeyRecords:
    """Of one fleet's store."""

    def __init__(self, store: Store, signing: Signing) -> None:
        self.store = store
        self._signing = signing

    @property
    def signs(self) -> bool:
        """Whether the operator has a key."""
        return self._signing.signer.signs

    def parsed(self, sha256_hex: str, fields: Mapping[bytes, bytes]) -> ApiKey:
        """A record that routers believe.

        Raises:
            RecordError: they do not.
        """
        return self._signing.trust.read_key(fields, sha256_hex, unix_now=None)

    async def all(self) -> list[tuple[str, dict[bytes, bytes]]]:
        """Id and hash of each."""
        return await self._read(await self.store.api_key_ids())

    async def believed(self, ids: Collection[str]) -> dict[str, ApiKey]:
        """Those of these keys of which there is a record that routers believe."""
        found = {}
        for sha256_hex, fields in await self._read(sorted(ids)):
            try:
                found[sha256_hex] = self.parsed(sha256_hex, fields)
            except RecordError:
                continue  # `list` tells of it
        return found

    async def write(self, sha256_hex: str, record: ApiKey) -> None:
        """In place of whatever was there."""
        before = (await self.believed([sha256_hex])).get(sha256_hex)
        unix_now = time.time()
        signed_at = signing_time(before, unix_now)
        if self.signs and signed_at - unix_now > WORTH_SAYING_SECONDS:
            print(
                f"warning: the record of {sha256_hex[:SHOWN_ID]} was signed {signed_at - unix_now:.0f} s "
                "from now, by a clock that was ahead: routers may use the new one only then",
                file=sys.stderr,
            )
        fields = self._signing.signer.to_hash(record, sha256_hex, unix_now=signed_at)
        await self.store.write_api_key(sha256_hex, fields)

    async def revoke(self, sha256_hex: str, unix_now: float) -> bool:
        """False: there is no record to revoke. Who signs needs none."""
        revoked_at = float(int(unix_now))
        if not self.signs:
            fields = {"revoked_at_unix_seconds": str(revoked_at)}
            return await self.store.update_api_key(sha256_hex, fields)
        record = (await self.believed([sha256_hex])).get(sha256_hex, ApiKey(tenant=NOBODY))
        await self.write(sha256_hex, record.model_copy(update={"revoked_at_unix_seconds": revoked_at}))
        return True

    async def _read(self, ids: list[str]) -> list[tuple[str, dict[bytes, bytes]]]:
        records = []
        for start in range(0, len(ids), KEYS_AT_ONCE):
            records += await self.store.api_keys(ids[start : start + KEYS_AT_ONCE])
        return list(zip(ids, records, strict=True))
