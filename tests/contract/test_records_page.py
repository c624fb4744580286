"""docs/records.md says what the code does: every field, whether it is required, every example, every key."""

from __future__ import annotations

import itertools
import re
import time
import types
from pathlib import Path
from typing import Any

import pytest
from support.golden_records import FOLDER, RECORDS, golden_bytes

import fleet.profile_record
import fleet.records
from fleet.keys import Keys
from fleet.records import SiteReport
from fleet.wire import Document, Record, WirePart

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PAGE = (REPOSITORY / "docs" / "records.md").read_text()
PARTS = sorted(
    {
        part
        for part in (*vars(fleet.records).values(), *vars(fleet.profile_record).values())
        if isinstance(part, type) and issubclass(part, WirePart) and part not in (WirePart, Document, Record)
    },
    key=lambda part: part.__name__,
)


def section(name: str) -> str:
    """What stands under the heading `name`, up to the next heading."""
    found = re.search(rf"^#{{3,4}} {name}\n(.*?)(?=^#{{2,4}} |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/records.md has no heading {name}"
    return found.group(1)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_the_page_lists_every_field_and_whether_it_is_required(part: type[WirePart]) -> None:
    """A field that is added, renamed or made optional without its row here fails."""
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (yes|no) \| .+ \|$", section(part.__name__), re.MULTILINE)
    listed = {name: required == "yes" for name, required in rows}
    assert len(listed) == len(rows)
    expected = {
        name: field.is_required() or name == "schema_version" for name, field in part.model_fields.items()
    }
    assert listed == expected


def test_every_record_has_its_section() -> None:
    """The parts found by reflection include all the records themselves."""
    assert set(RECORDS) <= set(PARTS)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_the_page_holds_each_golden_record_as_it_is(name: str) -> None:
    """What people copy is what the tests read."""
    assert f"```json\n{golden_bytes(name).decode()}```\n" in PAGE


def test_the_page_names_every_key_and_channel() -> None:
    """Each is listed without the prefix that all share."""
    keys = Keys()
    names = [
        keys.power("<site>"),
        keys.power_log("<site>"),
        keys.site_info("<site>"),
        keys.site("<site>"),
        keys.cordon("<site>"),
        keys.sites,
        keys.plan,
        keys.planner_lease,
        keys.router("<id>"),
        keys.api_key("<sha256>"),
        keys.power_channel("<site>"),
        keys.site_channel,
        keys.plan_channel,
    ]
    assert [name for name in names if f"| `{name.removeprefix(keys.prefix)}` |" not in PAGE] == []


def test_the_page_names_every_header_between_router_and_site() -> None:
    """What the router and the agent write or read is on the page, and nothing else is."""
    sources = [REPOSITORY / "site_agent" / "ingress.py", REPOSITORY / "site_agent" / "forwarding.py"]
    sources += sorted((REPOSITORY / "router" / "live").glob("*.py"))
    written = re.compile(r'["n](x-heron-[a-z-]*[a-z])[":]')  # as a literal, or after a line's end in one
    used = {name for path in sources for name in written.findall(path.read_text())}
    used.discard("x-heron-site")  # from the router to the client
    assert set(re.findall(r"x-heron-[a-z-]*[a-z]", PAGE)) == used


class StoppedError(Exception):
    """Ends the example's endless loop."""


class RecordingRedis:
    """Takes the calls of the example."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def set(self, *words: Any, **options: Any) -> None:
        self.calls.append(("set", *words, options))

    def zadd(self, *words: Any) -> None:
        self.calls.append(("zadd", *words))

    def publish(self, *words: Any) -> None:
        self.calls.append(("publish", *words))


def test_the_site_in_15_lines_announces_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example runs as it stands on the page: right keys, a report that parses, a growing sequence."""
    example = PAGE.split("```python\n")[1].split("```")[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    server, turns = RecordingRedis(), itertools.count(1)

    def sleep(seconds: float) -> None:
        assert seconds == 1
        if next(turns) == 2:
            raise StoppedError

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setitem(__import__("sys").modules, "redis", types.SimpleNamespace(Redis=lambda: server))
    with pytest.raises(StoppedError):
        exec(compile(example, "docs/records.md", "exec"), {})  # noqa: S102  # our own page

    keys = Keys()
    (_, name, raw, options), (_, index, scores), (_, channel, message) = server.calls[:3]
    report = SiteReport.from_json(raw.encode())
    assert (name, index, channel) == (keys.site("my-site"), keys.sites, keys.site_channel)
    assert options == {"ex": 60}
    assert scores == {"my-site": report.observed_at_unix_seconds}
    assert (message, report.site_id, report.state) == (raw, "my-site", "serving")
    assert SiteReport.from_json(server.calls[3][2].encode()).sequence == report.sequence + 1
