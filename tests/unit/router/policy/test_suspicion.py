"""Whose fault an error is."""

from __future__ import annotations

from router.policy.breaker import WINDOW_FAILURES, Breaker
from router.policy.suspicion import Suspicion


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.fail(100.0)
    return breaker


def test_an_error_that_nobody_else_answers_counts_for_nothing():
    """It was the request's own."""
    breaker = Breaker()
    for _ in range(100):
        Suspicion(breaker, 0).drop()
    assert breaker.state == "closed"


def test_an_error_that_another_site_answers_counts_once_towards_the_share():
    """However often it is said."""
    breaker = Breaker()
    for _ in range(WINDOW_FAILURES - 1):
        suspicion = Suspicion(breaker, 0)
        suspicion.confirm(1.0)
        suspicion.confirm(1.0)
        suspicion.drop()
    assert breaker.state == "closed"
    Suspicion(breaker, 0).confirm(1.0)
    assert breaker.state == "open"


def test_a_probe_s_place_is_kept_until_its_fault_is_known():
    """Free again where it stays unknown; the breaker opens for longer where the site was at fault."""
    breaker = opened()
    suspicion = Suspicion(breaker, breaker.begin(101.0))
    assert not breaker.admits(101.0)
    suspicion.drop()
    assert (breaker.state, breaker.admits(101.0)) == ("half_open", True)
    suspicion = Suspicion(breaker, breaker.begin(101.0))
    suspicion.confirm(102.0)
    assert (breaker.state, breaker.admits(103.9), breaker.admits(104.0)) == ("open", False, True)
