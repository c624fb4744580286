"""The text fields of a `multipart/form-data` body (RFC 7578), found in place. Pure.

An upload of megabytes is searched for its boundaries and never copied: only the small fields are cut out.
"""

from __future__ import annotations

import re

MAX_PARTS = 256
MAX_PART_HEAD_BYTES = 8 * 1024
MAX_FIELD_BYTES = 64 * 1024
"""Of a text field that is read; longer ones (a prompt, say) pass unread."""
MAX_LOOKALIKES = 1024
"""Lines in a file that only begin like the boundary."""
MAX_PADDING_BYTES = 256
_BOUNDARY = re.compile(rb'(?:^|;)\s*boundary\s*=\s*(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb';\s*name\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_FILE_NAME = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)


class FormError(ValueError):
    """Not such a form; the text is for the client's developer."""


def read_fields(content_type: bytes, body: bytes) -> tuple[dict[str, str], int]:
    """The text fields by name (of two of one name the last one counts), and how many bytes are no file's.

    Raises:
        FormError: the boundary is missing, or the body is not cut by it as it should be.
    """
    found = _BOUNDARY.search(content_type.partition(b";")[2])
    if found is None:
        raise FormError("content-type has no boundary")
    delimiter = b"--" + (found[1] or found[2])
    if body.startswith(delimiter):
        place = len(delimiter)
    else:
        start = body.find(b"\r\n" + delimiter)
        if start < 0:
            raise FormError("the boundary that content-type names is not in the body")
        place = start + 2 + len(delimiter)
    between = b"\r\n" + delimiter
    fields: dict[str, str] = {}
    text_bytes = 0
    for _ in range(MAX_PARTS):
        if body.startswith(b"--", place):
            return fields, text_bytes
        place = _skip_line_end(body, place)
        head_end = body.find(b"\r\n\r\n", place, place + MAX_PART_HEAD_BYTES)
        # a part may have no headers at all: then the blank line comes at once
        content = place + 2 if body.startswith(b"\r\n", place) else head_end + 4
        if content == 3:
            raise FormError(f"a part whose headers do not end within {MAX_PART_HEAD_BYTES} bytes")
        end = _find(body, between, content - 2)
        if end < 0:
            raise FormError("the last part is not ended by the boundary")
        name, is_file = _name_of(body[place:content])
        if not is_file:
            text_bytes += max(0, end - content)
            if name is not None and end - content <= MAX_FIELD_BYTES:
                fields[name] = body[content : max(content, end)].decode("utf-8", "replace")
        place = end + len(between)
    raise FormError(f"more than {MAX_PARTS} parts")


def _find(body: bytes, between: bytes, start: int) -> int:
    """The next boundary: what only begins like it, as any bytes of a file may, is none."""
    for _ in range(MAX_LOOKALIKES):
        end = body.find(between, start)
        if end < 0:
            return -1
        start = end + len(between)
        if body.startswith(b"--", start) or _line_end(body, start) >= 0:
            return end
    return -1


def _line_end(body: bytes, place: int) -> int:
    """Where a boundary's line ends, spaces skipped; -1: it is no such line."""
    end = body.find(b"\r\n", place, place + MAX_PADDING_BYTES)
    return -1 if end < 0 or body[place:end].strip(b" \t") else end


def _skip_line_end(body: bytes, place: int) -> int:
    """Behind the rest of a boundary's line: spaces and CRLF."""
    end = _line_end(body, place)
    if end < 0:
        raise FormError("a boundary that is not followed by a line's end")
    return end + 2


def _name_of(head: bytes) -> tuple[str | None, bool]:
    """A part's field name, and whether it is a file."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            found = _NAME.search(value)
            if found is None:
                return None, _FILE_NAME.search(value) is not None
            text = found[1] if found[1] is not None else found[2]
            return text.decode("utf-8", "replace"), _FILE_NAME.search(value) is not None
    return None, False
