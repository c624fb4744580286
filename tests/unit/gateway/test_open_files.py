"""The limit of open files."""

import resource

import pytest

from gateway.open_files import MOST, raise_open_files_limit, wanted_limit

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 20_000, 20_000),
        (1024, 1_000_000_000, MOST),
        (1024, UNLIMITED, MOST),
        (UNLIMITED, UNLIMITED, UNLIMITED),
        (MOST + 1, UNLIMITED, MOST + 1),
        (4096, 4096, 4096),
    ],
)
def test_the_soft_limit_goes_up_to_the_hard_one_and_never_down(soft: int, hard: int, wanted: int):
    """Bounded where the hard limit is none."""
    assert wanted_limit(soft, hard) == wanted


def test_a_process_raises_its_own_limit():
    """What it returns is what the kernel then says."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        limit = raise_open_files_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, before[1])
        assert limit == wanted_limit(256, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
