"""`heron keys add | list | revoke | restore | sign`: who may use a router with `auth = "keys"`.

Rule: a key is printed once, by `add`, and stored nowhere; what is kept and shown is its SHA-256. Routers read
the records every second, so that a new key works, and a revoked one does not, about a second later.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli import exit_codes
from cli.fleet_store import add_config_argument, open_store
from cli.key_records import SHOWN_ID, KeyRecords
from fleet.api_key import KEY_BYTES, KEY_PREFIX, format_key, key_id
from fleet.config import ConfigError, read_file
from fleet.keys import is_key_id
from fleet.records import ApiKey
from fleet.store import StoreError
from fleet.wire import RecordError, describe_validation_error

LEAST_ID = 6
"""Fewer are a typing mistake, not a key."""
AUTH_VARIABLE = "HERON_ROUTER_AUTH"
SHOWN_KEYS = 20
MAX_DAYS = 36_500
DAY_SECONDS = 86_400.0
COLUMNS = ("ID", "TENANT", "NAME", "TIERS", "REQ/MIN", "TOK/MIN", "AT ONCE", "EXPIRES", "STATE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron keys`."""
    actions = parser.add_subparsers(dest="action", metavar="add|list|revoke|restore|sign", required=True)
    adding = actions.add_parser("add", help="make a key and print it, this once")
    adding.add_argument("--tenant", required=True, metavar="NAME", help="whose key it is")
    adding.add_argument("--name", metavar="TEXT", help="what you call it, for the list")
    adding.add_argument(
        "--tier",
        action="append",
        choices=("priority", "default", "flex"),
        help="a service tier that it may ask for; give it again for more (default: default)",
    )
    adding.add_argument("--requests-per-minute", type=int, metavar="N", help="quota (default: none)")
    adding.add_argument("--tokens-per-minute", type=int, metavar="N", help="quota (default: none)")
    adding.add_argument("--concurrent-requests", type=int, metavar="N", help="at once (default: no limit)")
    adding.add_argument("--expires-days", type=float, metavar="DAYS", help="valid so long (default: always)")
    listing = actions.add_parser("list", help="show all keys: what they may do, never the keys themselves")
    revoking = actions.add_parser("revoke", help="make a key open nothing any more")
    revoking.add_argument("key", metavar="ID", help="the first digits of its ID in the list, or a leaked key")
    restoring = actions.add_parser(
        "restore", help="write back what Redis has lost, from what `heron keys list --json` printed"
    )
    restoring.add_argument("file", metavar="FILE", type=Path)
    signing = actions.add_parser(
        "sign",
        help="sign the keys of a list that you have looked over, as `heron keys list --json` printed it",
    )
    signing.add_argument("file", metavar="FILE", type=Path)
    for action in (adding, listing, revoking, restoring, signing):
        action.add_argument("--json", action="store_true", help="print JSON")
        add_config_argument(action)


def run(arguments: argparse.Namespace) -> int:
    """Run `heron keys`; 1 if Redis does not answer.

    Raises:
        ConfigError: wrong arguments or configuration.
    """
    path: Path | None = arguments.config
    tables = {} if path is None else read_file(path)
    store, signing = open_store(tables, path, writes=arguments.action != "list")
    if arguments.action == "add" and _is_open(tables):
        print(
            f'warning: {path}: [router] auth is "open": that router asks nobody for a key, until it says '
            'auth = "keys"',
            file=sys.stderr,
        )
    records = KeyRecords(store, signing)
    if arguments.action == "sign" and not records.signs:
        raise ConfigError("heron keys sign: [fleet] operator_key_file names no key")
    action: dict[str, Any] = {
        "add": _add,
        "list": _list,
        "revoke": _revoke,
        "restore": _restore,
        "sign": _sign,
    }
    return asyncio.run(_with_store(records, action[arguments.action], arguments))


def _is_open(tables: Mapping[str, Any]) -> bool:
    """Whether the file has a router that asks for no key; its own environment may say otherwise."""
    router = tables.get("router")
    return router is not None and router.get("auth", "open") == "open" and AUTH_VARIABLE not in os.environ


async def _with_store(records: KeyRecords, action: Any, arguments: argparse.Namespace) -> int:
    try:
        done: Coroutine[Any, Any, int] = action(records, arguments, time.time())
        return await done
    except StoreError as error:
        print(f"heron keys: {error}: is [fleet] redis_url right, and does Redis run?", file=sys.stderr)
        return exit_codes.BAD_RUN
    finally:
        await records.store.aclose()


async def _add(records: KeyRecords, arguments: argparse.Namespace, unix_now: float) -> int:
    record = _record(arguments, unix_now)
    key = format_key(secrets.token_bytes(KEY_BYTES))
    sha256_hex = key_id(key.encode())
    await records.write(sha256_hex, record)
    if arguments.json:
        print(json.dumps({"key": key, **_row(sha256_hex, record, unix_now)}))
        return exit_codes.DONE
    print(key)
    print(
        f"This is the only time that this key is shown. Tenant {record.tenant}, ID {sha256_hex[:SHOWN_ID]};"
        " routers know it within 2 s.",
        file=sys.stderr,
    )
    return exit_codes.DONE


def _record(arguments: argparse.Namespace, unix_now: float) -> ApiKey:
    days: float | None = arguments.expires_days
    if days is not None and not 0 < days <= MAX_DAYS:
        raise ConfigError(f"heron keys add: --expires-days {days:g}: must be more than 0, at most {MAX_DAYS}")
    try:
        return ApiKey(
            tenant=arguments.tenant,
            name=arguments.name,
            tiers=tuple(dict.fromkeys(arguments.tier or ("default",))),
            requests_per_minute=arguments.requests_per_minute,
            tokens_per_minute=arguments.tokens_per_minute,
            concurrent_requests=arguments.concurrent_requests,
            created_at_unix_seconds=float(int(unix_now)),
            expires_at_unix_seconds=None if days is None else float(int(unix_now + days * DAY_SECONDS)),
        )
    except ValidationError as error:
        raise ConfigError(f"heron keys add: {describe_validation_error(error)}") from None


async def _list(records: KeyRecords, arguments: argparse.Namespace, unix_now: float) -> int:
    rows = []
    for sha256_hex, fields in await records.all():
        try:
            rows.append(_row(sha256_hex, records.parsed(sha256_hex, fields), unix_now))
        except RecordError as error:
            rows.append({"id": sha256_hex, "state": "unreadable", "error": str(error)})
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print(_as_text(rows))
    else:
        print("There are no keys. Make one: heron keys add --tenant NAME", file=sys.stderr)
    return exit_codes.DONE


async def _revoke(records: KeyRecords, arguments: argparse.Namespace, unix_now: float) -> int:
    sha256_hex = await _find(records, arguments.key)
    if not await records.revoke(sha256_hex, unix_now):
        raise ConfigError(f"heron keys revoke: the record of {sha256_hex[:SHOWN_ID]} went away just now")
    if arguments.json:
        print(json.dumps({"id": sha256_hex, "state": "revoked"}))
    else:
        print(f"{sha256_hex[:SHOWN_ID]} is revoked; routers know it within 2 s.")
    return exit_codes.DONE


async def _restore(records: KeyRecords, arguments: argparse.Namespace, _unix_now: float) -> int:
    """Only keys that Redis has no record of: one that was revoked since the backup stays revoked."""
    kept = _read_list("restore", arguments.file)
    there = await records.believed(kept)
    missing = {sha256_hex: record for sha256_hex, record in kept.items() if sha256_hex not in there}
    for sha256_hex, record in missing.items():
        await records.write(sha256_hex, record)
    if arguments.json:
        print(json.dumps({"restored": sorted(missing), "there_already": len(there)}))
    else:
        print(f"{len(missing)} keys are restored, {len(there)} were there already.")
    return exit_codes.DONE


async def _sign(records: KeyRecords, arguments: argparse.Namespace, _unix_now: float) -> int:
    """What the file says, not what stands in Redis, which may be anybody's; but one that was revoked since
    stays revoked."""
    kept = _read_list("sign", arguments.file)
    for sha256_hex, record in kept.items():
        now = (await records.believed([sha256_hex])).get(sha256_hex)
        is_revoked = now is not None and now.revoked_at_unix_seconds is not None
        await records.write(sha256_hex, now if now is not None and is_revoked else record)
    others = sorted(set(await records.store.api_key_ids()) - kept.keys())
    if arguments.json:
        print(json.dumps({"signed": sorted(kept), "not_in_the_file": others}))
        return exit_codes.DONE
    print(f"{len(kept)} keys are signed.")
    if others:
        shown = ", ".join(sha256_hex[:SHOWN_ID] for sha256_hex in others[:SHOWN_KEYS])
        more = f" and {len(others) - SHOWN_KEYS} more" if len(others) > SHOWN_KEYS else ""
        print(f"not in {arguments.file}, so not signed: {shown}{more}", file=sys.stderr)
    return exit_codes.DONE


def _read_list(action: str, path: Path) -> dict[str, ApiKey]:
    """All of it, or nothing.

    Raises:
        ConfigError: it cannot be read, or is not what `heron keys list --json` prints.
    """
    try:
        rows = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"heron keys {action}: {path}: {error}") from None
    if not isinstance(rows, list):
        raise ConfigError(f"heron keys {action}: {path}: not a list, as `heron keys list --json` prints it")
    records: dict[str, ApiKey] = {}
    for number, row in enumerate(rows, 1):
        where = f"heron keys {action}: {path}: key {number}"
        if not isinstance(row, dict) or not re.fullmatch("[0-9a-f]{64}", str(row.get("id"))):
            raise ConfigError(f"{where} has no id of 64 hexadecimal digits")
        if "error" in row:
            continue  # it could not be read when the list was made: nothing is known of it
        fields = {name: value for name, value in row.items() if name not in ("id", "state")}
        try:
            records[row["id"]] = ApiKey.model_validate(fields, strict=False)
        except ValidationError as error:
            raise ConfigError(f"{where}: {describe_validation_error(error)}") from None
    return records


async def _find(records: KeyRecords, shown: str) -> str:
    """The one key that is meant.

    Raises:
        ConfigError: none is, or several are.
    """
    wanted = key_id(shown.encode()) if shown.startswith(KEY_PREFIX) else shown.lower().rstrip("…")
    if len(wanted) < LEAST_ID:
        raise ConfigError(f"heron keys revoke: {shown!r}: give at least {LEAST_ID} digits of the ID")
    if records.signs and is_key_id(wanted):
        return wanted  # a signed word needs nothing that stands in Redis
    found = [sha256_hex for sha256_hex in await records.store.api_key_ids() if sha256_hex.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    what = "no such key" if not found else f"{len(found)} keys begin so, give more digits"
    raise ConfigError(f"heron keys revoke: {wanted[:SHOWN_ID]}: {what}; `heron keys list` shows them")


def _row(sha256_hex: str, record: ApiKey, unix_now: float) -> dict[str, Any]:
    expires = record.expires_at_unix_seconds
    state = "valid"
    if record.revoked_at_unix_seconds is not None:
        state = "revoked"
    elif expires is not None and unix_now >= expires:
        state = "expired"
    fields = record.model_dump(exclude={"schema_version", "signature"}, mode="json")
    return {"id": sha256_hex, "state": state, **fields}


def _as_text(rows: Sequence[dict[str, Any]]) -> str:
    """A table; what is not set is a dash."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "error" in row:
        return (row["id"][:SHOWN_ID], *("–" for _ in COLUMNS[2:]), f"unreadable: {row['error']}")
    expires = row["expires_at_unix_seconds"]
    shown = (
        row["tenant"],
        row["name"],
        ",".join(row["tiers"]) or "none",
        row["requests_per_minute"],
        row["tokens_per_minute"],
        row["concurrent_requests"],
        None if expires is None else datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        row["state"],
    )
    return (row["id"][:SHOWN_ID], *("–" if value is None else str(value) for value in shown))
