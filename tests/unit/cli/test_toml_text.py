"""Writing TOML: whatever is written reads back equal."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.toml_text import to_toml

SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
)
KEYS = st.text(st.characters(exclude_categories=("Cs",)), max_size=10)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_document_reads_back_equal(tables: dict[str, Any]) -> None:
    """Tables, arrays of tables, inline tables, odd keys and strings survive the round trip."""
    assert tomllib.loads(to_toml(tables)) == tables


def test_none_is_left_out_and_a_path_is_text() -> None:
    """A key without a value is not written; a path is written as a string."""
    assert tomllib.loads(to_toml({"a": None, "b": Path("/x y/z")})) == {"b": "/x y/z"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes"])
def test_what_toml_has_no_form_for_is_refused(value: object) -> None:
    """Nothing is written in a form that reads back as something else."""
    with pytest.raises(TypeError, match="no TOML form"):
        to_toml({"a": value})
