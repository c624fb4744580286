"""Reads the power log once after a start and teaches the forecasts from it; nothing waits for that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fleet.signing import RecordTrust
from fleet.store import Store, StoreError
from power_feed.farm import FarmFeed
from power_feed.forecast import PowerForecaster
from power_feed.history import ENTRIES, learn

logger = logging.getLogger(__name__)

TRIES = 30
TRY_SECONDS = 2.0
"""A minute in all; a store that comes later finds a forecast that has begun to learn by itself."""


async def remember(
    store: Store, feed: FarmFeed, make_forecaster: Callable[[], PowerForecaster], trust: RecordTrust
) -> None:
    """Give the farm a new forecaster once the log has taught it."""
    records = await _log(store, feed.site_ids[0])
    forecaster = make_forecaster()
    taught = await asyncio.to_thread(
        learn,
        forecaster,
        records,
        farm=feed.farm,
        source=feed.source_name,
        speed=feed.source.speed,
        trust=trust,
    )
    if taught:
        feed.take_forecaster(forecaster)
        logger.info("forecast of farm %s goes on from the log", feed.farm.farm_id, extra={"taught": taught})


async def _log(store: Store, site_id: str) -> list[bytes]:
    for _ in range(TRIES):
        try:
            return await store.power_log(site_id, ENTRIES)
        except StoreError as error:
            logger.debug("no power log: %s", error)
        await asyncio.sleep(TRY_SECONDS)
    return []
