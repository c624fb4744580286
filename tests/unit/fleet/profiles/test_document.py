"""The file of `heron profile run`: what is read, and how what cannot be is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.measured import document_of, row_of

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profiles.document import MAX_ROWS, ProfileDocumentError, parse_document

ROW = row_of(LLAMA_70B_H100_TP4, 8, 512, 1980).model_dump()


def written(**changes: Any) -> dict[str, Any]:
    """As the command writes it."""
    return document_of([row_of(LLAMA_70B_H100_TP4, 8, 512, 1980)]).model_dump(mode="json") | changes


def parse(value: Any) -> Any:
    return parse_document(json.dumps(value).encode(), "f.json")


def test_what_was_written_is_read_and_its_digest_is_that_of_what_was_measured() -> None:
    """Not of who measured it, nor of the file's name."""
    document = parse(written(provenance={"host": "a"}))
    assert document.rows[0].running_requests == 8
    assert document.digest == parse(written(provenance={"host": "b"})).digest
    assert document.digest != parse(written(rows=[ROW | {"watts": 1.0}])).digest


def test_a_file_of_an_earlier_heron_is_read_and_knows_less() -> None:
    """It has no `engine`."""
    value = written()
    del value["engine"]
    assert parse(value).engine.kv_tokens is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "has no heron_profile_version.*heron profile run --out"),
        ({"rows": []}, "has no heron_profile_version"),
        (written(heron_profile_version=9), "heron_profile_version = 9: this heron reads 1"),
        (written(rows=7), "rows = 7: .*tuple"),
        (written(rows=[ROW] * (MAX_ROWS + 1)), "2001 rows, at most 2000"),
        (written(rows=[ROW, ROW | {"watts": -1.0}]), "row 2, watts = -1.0: .*greater than or equal to 0"),
        (written(rows=[ROW | {"running_requests": 0}]), "row 1, running_requests = 0"),
        (written(rows=[ROW | {"running_requests": "8"}]), "row 1, running_requests = '8': .*integer"),
        (written(rows=[ROW | {"clock_mhz": 5}]), "row 1, clock_mhz = 5: .*100"),
        (written(rows=[ROW | {"itl_seconds_p50": float("nan")}]), "row 1, itl_seconds_p50 = nan: .*finite"),
        (written(rows=[ROW | {"output_tokens_per_second": 0.0}]), "row 1, output_tokens_per_second = 0.0"),
        (written(rows=[ROW | {"surprise": 1}]), "row 1, surprise: Extra inputs"),
        (written(rows=["x" * 10_000]), r"row 1 = 'xxx.{0,80}: "),
        (written(engine={"tensor_parallel_degree": 65}), "engine.tensor_parallel_degree = 65"),
        (written(engine={"gpu_model": "\x1b[2J"}), r"engine.gpu_model = '\\x1b\[2J': .*pattern"),
        (written(settings={"model": "m"}), "settings.output_tokens: Field required"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place_and_what_is_allowed(value: Any, message: str) -> None:
    """Rows are counted from 1."""
    with pytest.raises(ProfileDocumentError, match=message) as caught:
        parse(value)
    assert all(line.startswith("f.json: ") for line in str(caught.value).splitlines())
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b'{"heron_profile_version": 1e999}', b"NaN"],
    ids=["empty", "cut", "no text", "deep", "a number of 10,000 digits", "infinite", "NaN"],
)
def test_what_is_no_json_or_a_trap_is_refused(data: bytes) -> None:
    """Never a crash, never a long answer."""
    with pytest.raises(ProfileDocumentError, match=r"^f.json: ") as caught:
        parse_document(data, "f.json")
    assert len(str(caught.value)) < 400


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5))
def test_any_value_in_any_place_is_read_or_refused(value: Any) -> None:
    """With our own error only."""
    for key in ROW:
        try:
            parse(written(rows=[ROW | {key: value}]))
        except ProfileDocumentError:
            continue
