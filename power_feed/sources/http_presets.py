"""Ready-made settings of `kind = "http"` for open data of grid operators.

What they publish is the production of a region, so a farm gets its share of it: a stand-in for telemetry, for
trials and for comparing, never for a cap that must hold at one farm. From the operators' documentation as of
2026-11; the tests use hand-made documents of these shapes, no recorded ones.

    elia       opendata.elia.be, ods086 "Wind power production estimation and forecast on Belgian grid (near
               real-time)": a quarter of an hour, offshore, `realtime` and `loadfactor` (percent of
               `monitoredcapacity`); `decrementalbidid` is there while Elia has it held back
    energinet  api.energidataservice.dk, ElectricityProdex5MinRealtime: five minutes, MWh/h, `Minutes5UTC`
               without an offset, begin of the interval
    elexon     data.elexon.co.uk, FUELINST: five minutes, MW, fuel type WIND of Great Britain
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HTTP_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "elia": {
        "url": "https://opendata.elia.be/api/explore/v2.1/catalog/datasets/ods086/records"
        "?where=realtime%20is%20not%20null&order_by=datetime%20desc&limit=1&timezone=UTC"
        "&refine=offshoreonshore%3A%22Offshore%22",
        "json_path": "results[0].loadfactor",
        "unit": "percent",
        "time_path": "results[0].datetime",
        "time_shift_seconds": 900.0,
        "period_seconds": 900.0,
        "poll_seconds": 60.0,
        "measures": "produced",
        "curtailment": {"json_path": "results[0].decrementalbidid", "curtailed_if": "not_empty"},
    },
    "energinet": {
        "url": "https://api.energidataservice.dk/dataset/ElectricityProdex5MinRealtime"
        "?limit=1&sort=Minutes5UTC%20DESC&timezone=UTC&filter=%7B%22PriceArea%22%3A%5B%22DK1%22%5D%7D",
        "json_path": "records[0].sum([OnshoreWindPower, OffshoreWindPower])",
        "unit": "MW",
        "time_path": "records[0].Minutes5UTC",
        "time_zone": "UTC",
        "time_shift_seconds": 300.0,
        "period_seconds": 300.0,
        "poll_seconds": 60.0,
        "measures": "produced",
    },
    "elexon": {
        "url": "https://data.elexon.co.uk/bmrs/api/v1/datasets/FUELINST?fuelType=WIND&format=json",
        "json_path": "sort_by(data[?fuelType=='WIND'], &startTime)[-1].generation",
        "unit": "MW",
        "time_path": "sort_by(data[?fuelType=='WIND'], &startTime)[-1].startTime",
        "time_shift_seconds": 300.0,
        "period_seconds": 300.0,
        "poll_seconds": 60.0,
        "measures": "produced",
    },
}
