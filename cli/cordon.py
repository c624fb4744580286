"""`heron cordon`: an operator takes a site out of service, and puts it back (`--lift`).

A cordoned site gets no new work from any router of the fleet; what runs there goes on, and may be resumed
elsewhere. Routers read it every second. Nothing is asked of the site.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli import exit_codes
from cli.duration import seconds_of
from cli.fleet_store import add_config_argument, open_store
from fleet.config import ConfigError, read_file
from fleet.keys import is_name
from fleet.records import Cordon
from fleet.signing import RecordTrust, signing_time
from fleet.signing_keys import Signing
from fleet.store import Store, StoreError
from fleet.wire import RecordError, describe_validation_error

MOST_DAYS = 365
SHOWN_SITES = 20
WORTH_SAYING_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron cordon`."""
    parser.add_argument(
        "site", metavar="SITE", nargs="?", help="its site_id; left out: show which are cordoned"
    )
    parser.add_argument("--lift", action="store_true", help="put it back into service")
    parser.add_argument("--reason", metavar="TEXT", default="", help="what others are told")
    parser.add_argument(
        "--for", dest="duration", metavar="TIME", help="over by itself after 30m, 2h, 1d (default: never)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run `heron cordon`; 1 if Redis does not answer.

    Raises:
        ConfigError: wrong arguments or configuration.
    """
    if arguments.lift and (arguments.site is None or arguments.duration or arguments.reason):
        raise ConfigError("heron cordon: --lift takes the SITE alone")
    if arguments.site is None and (arguments.duration or arguments.reason):
        raise ConfigError("heron cordon: which SITE?")
    path: Path | None = arguments.config
    tables = {} if path is None else read_file(path)
    store, signing = open_store(tables, path, writes=arguments.site is not None)
    return asyncio.run(_with_store(store, signing, arguments))


async def _with_store(store: Store, signing: Signing, arguments: argparse.Namespace) -> int:
    try:
        if arguments.site is None:
            return await _list(store, signing.trust, arguments)
        return await (_lift if arguments.lift else _cordon)(store, signing, arguments)
    except StoreError as error:
        print(f"heron cordon: {error}: is [fleet] redis_url right, and does Redis run?", file=sys.stderr)
        return exit_codes.BAD_RUN
    finally:
        await store.aclose()


async def _cordon(store: Store, signing: Signing, arguments: argparse.Namespace) -> int:
    site_id, duration = arguments.site, arguments.duration
    seconds = None if duration is None else seconds_of("heron cordon: --for", duration, most_days=MOST_DAYS)
    known = await store.site_ids()
    if site_id not in known:
        shown = ", ".join(known[:SHOWN_SITES]) or "none"
        raise ConfigError(f"heron cordon: there is no site {site_id[:64]!r} in this fleet; known: {shown}")
    now = float(int(time.time()))
    try:
        record = Cordon(
            reason=arguments.reason,
            since_unix_seconds=now,
            until_unix_seconds=None if seconds is None else now + seconds,
        )
    except ValidationError as error:
        raise ConfigError(f"heron cordon: {describe_validation_error(error)}") from None
    [found] = await store.cordons([site_id])
    await store.write_cordon(site_id, _signed(record, found, site_id, signing), seconds)
    if arguments.json:
        print(json.dumps({"site_id": site_id, "reason": record.reason, "seconds": seconds}))
    else:
        until = f"until heron cordon {site_id} --lift" if seconds is None else f"for {arguments.duration}"
        print(f"{site_id} is cordoned {until}; routers know it within 5 s. What runs there goes on.")
    return exit_codes.DONE


async def _lift(store: Store, signing: Signing, arguments: argparse.Namespace) -> int:
    if not is_name(arguments.site):
        raise ConfigError(f"heron cordon: {arguments.site[:64]!r} is no site's name")
    [found] = await store.cordons([arguments.site])
    before, now = _read(found, arguments.site, signing.trust), float(int(time.time()))
    was = before is not None and _holds(before)
    since = now if before is None else before.since_unix_seconds
    lifted = Cordon(since_unix_seconds=since, lifted_at_unix_seconds=now)
    raw = _signed(lifted, found, arguments.site, signing)
    await store.write_cordon(arguments.site, raw, None)  # in any case: routers may know of one
    if arguments.json:
        print(json.dumps({"site_id": arguments.site, "was_cordoned": was}))
    elif was:
        print(f"{arguments.site} is cordoned no more; routers know it within 5 s.")
    else:
        print(f"{arguments.site} was not cordoned.")
    return exit_codes.DONE


async def _list(store: Store, trust: RecordTrust, arguments: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    known = await store.site_ids()
    for site_id, raw in zip(known, await store.cordons(known), strict=True):
        if raw is None:
            continue
        try:
            record = trust.read(Cordon, raw, unix_now=None, subject=site_id)
        except RecordError as error:
            rows.append({"site_id": site_id, "error": str(error)})
            continue
        if _holds(record):
            times = {name: getattr(record, name) for name in ("since_unix_seconds", "until_unix_seconds")}
            rows.append({"site_id": site_id, **times, "reason": record.reason})
    if arguments.json:
        print(json.dumps(rows, indent=2))
    for row in () if arguments.json else rows:
        if "error" in row:
            print(f"{row['site_id']}  unreadable, so it does not count: {row['error']}")
            continue
        until = row["until_unix_seconds"]
        end = "" if until is None else f"until {_when(until)}  "
        print(f"{row['site_id']}  since {_when(row['since_unix_seconds'])}  {end}{row['reason']}".rstrip())
    if not rows and not arguments.json:
        print("No site is cordoned.", file=sys.stderr)
    return exit_codes.DONE


def _signed(record: Cordon, before: bytes | None, site_id: str, signing: Signing) -> bytes:
    """In place of what is there, which a clock that was ahead may have signed."""
    unix_now = time.time()
    signed_at = signing_time(_read(before, site_id, signing.trust), unix_now)
    if signing.signer.signs and signed_at - unix_now > WORTH_SAYING_SECONDS:
        print(
            f"warning: the last word on {site_id} was signed {signed_at - unix_now:.0f} s from now, by a "
            "clock that was ahead: routers may use the new one only then",
            file=sys.stderr,
        )
    return signing.signer.to_json(record, unix_now=signed_at, subject=site_id)


def _holds(record: Cordon) -> bool:
    until = record.until_unix_seconds
    return record.lifted_at_unix_seconds is None and (until is None or until > time.time())


def _when(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _read(raw: bytes | None, site_id: str, trust: RecordTrust) -> Cordon | None:
    """None also where it is unreadable or not believed, and so does not count."""
    try:
        return None if raw is None else trust.read(Cordon, raw, unix_now=None, subject=site_id)
    except RecordError:
        return None
