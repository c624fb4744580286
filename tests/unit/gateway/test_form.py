"""Fields of multipart forms, found in place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.form import MAX_FIELD_BYTES, MAX_PARTS, FormError, read_fields

TYPE = b"multipart/form-data; boundary=B"


def part(name: bytes, value: bytes, extra: bytes = b"") -> bytes:
    return b'--B\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name, extra, value)


def test_fields_are_read_and_files_are_not():
    """A file may be called like a field, and hold anything."""
    file = b"\r\n--Bx\r\n" + bytes(range(256)) + b"\r\n\r\n--"
    body = part(b"model", file, b'; filename="a"') + part(b"model", b"tiny") + part(b"x", b"") + b"--B--"
    assert read_fields(TYPE, body) == ({"model": "tiny", "x": ""}, 4)


def test_of_two_of_one_name_the_last_one_counts():
    """As in JSON, and as vLLM's own parser has it."""
    assert read_fields(TYPE, part(b"model", b"a") + part(b"model", b"b") + b"--B--\r\n")[0] == {"model": "b"}


@pytest.mark.parametrize(
    "content_type",
    [
        b'multipart/form-data; boundary="B"',
        b"multipart/form-data;BOUNDARY=B",
        b"multipart/form-data; charset=utf-8; boundary=B; x=y",
    ],
)
def test_boundaries_are_written_in_several_ways(content_type: bytes):
    """Quoted, in capitals, among others."""
    assert read_fields(content_type, part(b"model", b"m") + b"--B--")[0] == {"model": "m"}


def test_a_part_without_headers_is_nothing():
    """RFC 2046 allows it."""
    assert read_fields(TYPE, b"--B\r\n\r\nx\r\n--B  \r\n\r\n\r\n" + part(b"a", b"b") + b"--B--")[0] == {
        "a": "b"
    }


def test_long_fields_pass_unread():
    """They are counted as text, and not cut out."""
    body = part(b"prompt", b"x" * (MAX_FIELD_BYTES + 1)) + b"--B--"
    assert read_fields(TYPE, body) == ({}, MAX_FIELD_BYTES + 1)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"multipart/form-data", part(b"a", b"b") + b"--B--"),
        (TYPE, b""),
        (TYPE, b"--C\r\n"),
        (TYPE, b"--B"),
        (TYPE, b"--B\r\nno end of the head"),
        (TYPE, part(b"a", b"b")),
        (TYPE, part(b"a", b"b") + b"--Bx"),
        (TYPE, part(b"a", b"b") * (MAX_PARTS + 1) + b"--B--"),
        (TYPE, b"--B\r\n" + b"x: y\r\n" * 5000 + b"\r\n\r\n--B--"),
    ],
)
def test_what_is_no_form_is_refused(content_type: bytes, body: bytes):
    """With a reason."""
    with pytest.raises(FormError):
        read_fields(content_type, body)


@given(st.binary(max_size=200))
def test_no_body_breaks_it(noise: bytes):
    """Whatever comes, it is read or refused."""
    for body in (noise, b"--B\r\n" + noise, part(b"a", noise) + noise):
        try:
            read_fields(TYPE, body)
        except FormError:
            continue
