"""The records' contract: what every reader takes, what it refuses, and that docs/records.md says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden_records import (
    FOLDER,
    KINDS,
    MINIMAL_SITE_REPORT,
    RECORDS,
    golden_bytes,
    golden_value,
)

from fleet.records import MAX_SITE_MODELS, ApiKey, Cordon, Plan, SiteReport
from fleet.wire import MAX_PLAN_BYTES, MAX_RECORD_BYTES, Document, Record, RecordError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
every_record = pytest.mark.parametrize("record", RECORDS, ids=KINDS)


def changed(name: str, /, **fields: Any) -> bytes:
    return json.dumps({**golden_value(name), **fields}).encode()


def read_or_refuse(record: type[Document], raw: bytes) -> Document | None:
    """What a reader does with bytes from outside; any other error is a fault of ours."""
    try:
        return record.from_json(raw)
    except RecordError:
        return None


def test_there_is_one_golden_file_for_every_record() -> None:
    """No golden file is forgotten and none is left over."""
    names = {path.stem for path in FOLDER.glob("*.json")}
    assert names == {*KINDS, MINIMAL_SITE_REPORT}


@every_record
def test_a_golden_record_is_written_as_it_was_read(record: type[Document]) -> None:
    """Parsing and writing again gives the same JSON value: no field lost, renamed, added or rounded."""
    written = record.from_json(golden_bytes(record.kind)).to_json()
    assert json.loads(written) == golden_value(record.kind)


@every_record
def test_unknown_fields_are_ignored_at_every_depth(record: type[Document]) -> None:
    """A later minor version may add fields anywhere, and an old reader reads the record as before."""
    value = golden_value(record.kind) | {"colour": "green", "nested": {"deep": [1]}}
    for part in ("power", "capabilities", "solver"):
        if part in value:
            value[part]["colour"] = "green"
    for part in ("models", "forecast", "configurations"):
        for item in value.get(part, ()):
            item["colour"] = "green"
    assert record.from_json(json.dumps(value).encode()) == record.from_json(golden_bytes(record.kind))


@every_record
@pytest.mark.parametrize("version", ["2.0", "2", 2, "10.3", "0.9"])
def test_another_major_version_is_refused_and_named(record: type[Document], version: Any) -> None:
    """A reader does not guess at what it cannot know; the message says the version and what to do."""
    with pytest.raises(RecordError) as caught:
        record.from_json(changed(record.kind, schema_version=version))
    assert caught.value.reason == "schema_version"
    assert f"{record.kind}: schema_version {version}" in str(caught.value)


@every_record
def test_a_newer_major_of_another_shape_is_called_newer_not_malformed(record: type[Document]) -> None:
    """Whoever sees the metric must learn that a reader is to be upgraded."""
    with pytest.raises(RecordError) as caught:
        record.from_json(b'{"schema_version": "2.0", "all": "different"}')
    assert caught.value.reason == "schema_version"


@every_record
@pytest.mark.parametrize("version", ["1.0", "1.7", "1", 1])
def test_any_minor_of_the_known_major_is_read(record: type[Document], version: Any) -> None:
    """Also a bare major, as text or number, as foreign writers may put it."""
    assert record.from_json(changed(record.kind, schema_version=version)).kind == record.kind


@every_record
@pytest.mark.parametrize("version", [None, "", "one", "1.", "1.0.0", -1, 1.0, True, [1], "99999"])
def test_a_version_that_is_none_is_malformed(record: type[Document], version: Any) -> None:
    """What does not state a version cannot be judged by it."""
    with pytest.raises(RecordError) as caught:
        record.from_json(changed(record.kind, schema_version=version))
    assert caught.value.reason == "malformed"


@every_record
def test_each_required_field_is_required(record: type[Document]) -> None:
    """Taking one required field away makes a record malformed, and the message names the field."""
    required = [name for name, field in record.model_fields.items() if field.is_required()]
    for name in [*required, "schema_version"]:
        value = golden_value(record.kind)
        del value[name]
        with pytest.raises(RecordError, match=name) as caught:
            record.from_json(json.dumps(value).encode())
        assert caught.value.reason == "malformed"


def test_a_site_report_requires_exactly_what_the_design_says() -> None:
    """DESIGN §4: seven fields of the report and each model's name; everything else may be missing."""
    full = golden_value("SiteReport")
    required = {
        "schema_version",
        "agent_id",
        "sequence",
        "site_id",
        "observed_at_unix_seconds",
        "ingress_url",
        "state",
    }
    for name in full:
        raw = json.dumps({key: value for key, value in full.items() if key != name}).encode()
        assert (read_or_refuse(SiteReport, raw) is None) == (name in required), name
    for name in full["models"][0]:
        model = {key: value for key, value in full["models"][0].items() if key != name}
        assert (read_or_refuse(SiteReport, changed("SiteReport", models=[model])) is None) == (
            name == "model"
        ), name


def test_what_a_minimal_report_does_not_say_is_unknown_and_never_zero() -> None:
    """A missing number that read as 0 would be a site without room, power or instances."""
    report = SiteReport.from_json(golden_bytes(MINIMAL_SITE_REPORT))
    assert report.drain_seconds_left is None
    assert set(report.power.model_dump().values()) == {None}
    (model,) = report.models
    rest = model.model_dump(exclude={"model", "instances"})
    assert set(rest.values()) == {None}
    assert len(rest) == 15
    assert model.instances == ()
    assert SiteReport.from_json(report.to_json()) == report


@pytest.mark.parametrize("null", ["power", "models", "drain_seconds_left"])
def test_null_and_missing_mean_the_same_in_a_report(null: str) -> None:
    """Some languages write every field; `null` is theirs for missing."""
    raw = json.dumps({**golden_value(MINIMAL_SITE_REPORT), null: None}).encode()
    value = golden_value(MINIMAL_SITE_REPORT)
    value.pop(null, None)
    assert SiteReport.from_json(raw) == SiteReport.from_json(json.dumps(value).encode())


def test_a_model_listed_twice_is_refused() -> None:
    """Two figures for one model cannot both hold."""
    with pytest.raises(RecordError, match="listed twice"):
        SiteReport.from_json(changed("SiteReport", models=[{"model": "m"}, {"model": "m"}]))


def test_a_report_of_too_many_models_is_refused() -> None:
    """A reader keeps something of each: one site must not make it keep thousands."""
    models = [{"model": str(number)} for number in range(MAX_SITE_MODELS + 1)]
    assert read_or_refuse(SiteReport, changed("SiteReport", models=models[1:])) is not None
    with pytest.raises(RecordError, match="models"):
        SiteReport.from_json(changed("SiteReport", models=models))


def test_headroom_watts_may_be_negative_and_nothing_else_may() -> None:
    """A draw above the cap is a fact to be reported; a negative cap, draw or count is nonsense."""
    raw = changed("SiteReport", power={"headroom_watts": -250.0})
    assert SiteReport.from_json(raw).power.headroom_watts == -250.0
    for power in ({"cap_watts": -1}, {"draw_watts": -0.5}):
        assert read_or_refuse(SiteReport, changed("SiteReport", power=power)) is None


NUMBERS = [
    (record, name)
    for record in RECORDS
    for name, value in golden_value(record.kind).items()
    if type(value) in (int, float)
]


@pytest.mark.parametrize(("record", "name"), NUMBERS, ids=lambda part: getattr(part, "kind", part))
@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "-1", "1e300", "1e400", "9" * 400, '"7"', "true", "{}", "[]"]
)
def test_a_number_that_is_none_or_out_of_bounds_is_refused(
    record: type[Document], name: str, text: str
) -> None:
    """Not a number, infinite, negative, absurdly large, or of another type: malformed, with the field."""
    raw = changed(record.kind, **{name: "PUT-HERE"}).replace(b'"PUT-HERE"', text.encode())
    with pytest.raises(RecordError) as caught:
        record.from_json(raw)
    assert caught.value.reason == "malformed"
    assert name in str(caught.value) or "JSON" in str(caught.value)


@every_record
def test_a_sequence_beyond_what_json_holds_exactly_is_refused(record: type[Document]) -> None:
    """2⁵³ − 1 is the largest integer that every JSON implementation keeps."""
    if not issubclass(record, Record):
        assert record in (ApiKey, Cordon)
        return
    largest = record.from_json(changed(record.kind, sequence=2**53 - 1))
    assert isinstance(largest, Record)
    assert largest.sequence == 2**53 - 1
    assert read_or_refuse(record, changed(record.kind, sequence=2**53)) is None
    assert read_or_refuse(record, changed(record.kind, sequence=1.5)) is None


@every_record
def test_a_record_that_is_too_large_is_refused_before_it_is_parsed(record: type[Document]) -> None:
    """The bytes are not even JSON: only their number is looked at."""
    with pytest.raises(RecordError) as caught:
        record.from_json(b"x" * (record.max_bytes + 1))
    assert caught.value.reason == "too_large"
    assert str(record.max_bytes) in str(caught.value)


def test_only_a_plan_may_be_larger_than_the_other_records() -> None:
    """A quarter of a MiB for a record, a MiB for a plan of many sites."""
    assert {record.max_bytes for record in RECORDS if record is not Plan} == {MAX_RECORD_BYTES}
    assert (Plan.max_bytes, MAX_RECORD_BYTES, MAX_PLAN_BYTES) == (1 << 20, 1 << 18, 1 << 20)


@every_record
@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"7", b'"text"', b"{}", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 40_000],
    ids=["empty", "null", "list", "number", "text", "object", "cut", "utf16", "deep-list", "deep-object"],
)
def test_what_is_no_record_is_malformed(record: type[Document], raw: bytes) -> None:
    """Also what is nested so deeply that a careless parser would overflow its stack."""
    with pytest.raises(RecordError) as caught:
        record.from_json(raw)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("name", ["", "-north", "a:b", "a b", "a/b", "é", "n" * 65, "north\n", "*", None, 7])
def test_a_site_id_that_would_break_keys_or_labels_is_refused(name: Any) -> None:
    """Ids become parts of keys, URLs and metric labels."""
    assert read_or_refuse(SiteReport, changed("SiteReport", site_id=name)) is None


def test_an_error_says_the_field_and_stays_short() -> None:
    """The text may hold part of what a hostile writer sent: it is bounded."""
    with pytest.raises(RecordError) as caught:
        SiteReport.from_json(changed("SiteReport", state="x" * 10_000, sequence="y" * 10_000))
    assert "SiteReport: sequence" in str(caught.value)
    assert "and 1 more" in str(caught.value)
    assert len(str(caught.value)) < 500


@every_record
@given(raw=st.binary(max_size=2000))
def test_arbitrary_bytes_are_a_record_error_and_nothing_else(record: type[Document], raw: bytes) -> None:
    """No bytes make a reader raise anything but RecordError."""
    assert read_or_refuse(record, raw) is None


@every_record
@given(value=json_values)
def test_arbitrary_json_is_a_record_error_and_nothing_else(record: type[Document], value: Any) -> None:
    """NaN and Infinity are in it, as Python and JavaScript libraries write them."""
    assert read_or_refuse(record, json.dumps(value).encode()) is None


@every_record
@given(data=st.data())
def test_a_record_with_any_value_in_any_field_is_read_or_refused(
    record: type[Document], data: st.DataObject
) -> None:
    """Whatever is taken can be written and read again, and holds no NaN."""
    name = data.draw(st.sampled_from(sorted(golden_value(record.kind))))
    raw = changed(record.kind, **{name: data.draw(json_values)})
    taken = read_or_refuse(record, raw)
    if taken is not None:
        assert record.from_json(taken.to_json()) == taken
        json.loads(taken.to_json(), parse_constant=pytest.fail)


def test_an_api_key_survives_its_hash() -> None:
    """A Redis hash holds text only: numbers come back as numbers, tiers as a list."""
    key = ApiKey.from_json(golden_bytes("ApiKey"))
    fields = key.to_hash()
    assert fields == {
        "schema_version": "1.1",
        "tenant": "acme",
        "name": "batch jobs",
        "tiers": "priority,default",
        "requests_per_minute": "600",
        "tokens_per_minute": "2000000",
        "concurrent_requests": "64",
        "created_at_unix_seconds": "1732320000.0",
        "expires_at_unix_seconds": "1763856000.0",
    }
    assert ApiKey.from_hash({name.encode(): value.encode() for name, value in fields.items()}) == key


def test_a_key_without_any_tier_survives_its_hash() -> None:
    """It may do nothing; that is not the same as a hash that cannot be read."""
    key = ApiKey(schema_version="1.0", tenant="acme", tiers=())
    fields = {name.encode(): value.encode() for name, value in key.to_hash().items()}
    assert ApiKey.from_hash(fields).tiers == ()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"tenant": b"acme"},
        {b"schema_version": b"2.0", b"tenant": b"acme"},
        {b"schema_version": b"1.0", b"tenant": b"\xff"},
        {b"schema_version": b"1.0", b"tenant": b"acme", b"tiers": b"gold"},
        {b"schema_version": b"1.0", b"tenant": b"acme", b"requests_per_minute": b"-1"},
        {b"schema_version": b"1.0", b"tenant": b"acme", b"expires_at_unix_seconds": b"nan"},
        {b"schema_version": b"1.0", b"tenant": b"a" * (MAX_RECORD_BYTES + 1)},
    ],
    ids=["no-key", "no-version", "newer", "not-utf8", "tier", "negative", "nan", "too-large"],
)
def test_a_hash_that_may_not_be_used_is_a_record_error(fields: dict[bytes, bytes]) -> None:
    """A key that cannot be judged opens nothing."""
    with pytest.raises(RecordError, match="ApiKey: "):
        ApiKey.from_hash(fields)


@given(
    fields=st.dictionaries(
        st.sampled_from([name.encode() for name in ApiKey.model_fields]) | st.binary(max_size=8),
        st.binary(max_size=40) | st.integers().map(lambda number: str(number).encode()),
    )
)
def test_an_arbitrary_hash_is_a_key_or_a_record_error(fields: dict[bytes, bytes]) -> None:
    """Anyone who may write to Redis may write any bytes there."""
    try:
        key = ApiKey.from_hash(fields)
    except RecordError:
        return
    assert key.tenant == fields[b"tenant"].decode()
