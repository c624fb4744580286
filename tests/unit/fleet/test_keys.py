"""Names of keys and channels, letter for letter as DESIGN §4 lists them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.keys import Keys, is_name


def test_every_key_and_channel_is_named_as_in_the_design() -> None:
    """Foreign programs rely on these strings."""
    keys = Keys()
    assert keys.power("north") == "heron:default:power:north"
    assert keys.power_log("north") == "heron:default:power-log:north"
    assert keys.site_info("north") == "heron:default:site-info:north"
    assert keys.site("north") == "heron:default:site:north"
    assert keys.sites == "heron:default:sites"
    assert keys.plan == "heron:default:plan"
    assert keys.planner_lease == "heron:default:planner-lease"
    assert keys.router("r1") == "heron:default:router:r1"
    assert keys.api_key("ab12") == "heron:default:key:ab12"
    assert keys.power_channel("north") == "heron:default:events:power:north"
    assert keys.power_channel_pattern == "heron:default:events:power:*"
    assert keys.site_channel == "heron:default:events:site"
    assert keys.plan_channel == "heron:default:events:plan"


def test_fleets_on_one_redis_do_not_meet() -> None:
    """The fleet's name is in every key."""
    assert Keys(fleet="a").site("north") == "heron:a:site:north"
    assert Keys(fleet="b").sites == "heron:b:sites"


@pytest.mark.parametrize("name", ["a", "7", "north", "North-2.old_one", "n" * 64])
def test_names_may_hold_letters_digits_and_a_few_marks(name: str) -> None:
    """Up to 64 of them."""
    assert is_name(name)
    assert Keys(fleet=name).fleet == name


@pytest.mark.parametrize(
    "name", ["", "-a", ".a", "_a", "a:b", "a b", "a/b", "a\n", "é", "a*", "{a}", "n" * 65]
)
def test_names_that_would_break_a_key_are_refused_with_what_is_allowed(name: str) -> None:
    """The message quotes the name and the pattern."""
    assert not is_name(name)
    with pytest.raises(ValueError, match="allowed is"):
        Keys(fleet=name)


@given(text=st.text())
def test_a_name_never_holds_what_keys_and_patterns_are_made_of(text: str) -> None:
    """No colon, glob, brace, white space or slash, whatever the text."""
    if is_name(text):
        assert text.isascii()
        assert not set(text) & set(":*?[]{}/\\ \t\r\n")
