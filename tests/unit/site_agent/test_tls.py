"""TLS of a site: what its configuration takes, and what the doctor says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from support.authority import Authority

from fleet.config import ConfigError, FleetConfig
from power_feed.site_config import known_of_sites
from site_agent import config, tls_check
from site_agent.config import SiteConfig
from site_agent.promises import Finding

SITE = '[[sites]]\nsite_id = "north"\nfarm_id = "farm"\nstate_dir = "state"\nport = 8101\n'
PAIR = 'tls_certificate_file = "site.pem"\ntls_key_file = "site.key"\n'
FLEET = FleetConfig(site_token=SecretStr("x"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.sign("site", hosts=("127.0.0.1", "10.0.0.7", "north.example.org"))
    return made


def load(tmp_path: Path, more: str) -> SiteConfig:
    path = tmp_path / "fleet.toml"
    path.write_text('[fleet]\nsite_token = "x"\n' + SITE + more)
    return config.load(path, None, {})[1]


def found(site: SiteConfig, fleet: FleetConfig = FLEET) -> list[Finding]:
    return tls_check.examine(fleet, site)


def test_a_site_with_tls_is_asked_over_tls(authority: Authority, tmp_path: Path) -> None:
    """Its files lie beside the configuration; routers and the feed are told the scheme."""
    site = load(tmp_path, PAIR + 'tls_client_ca_file = "ca.pem"\n')
    assert site.ingress_at(8101) == "https://127.0.0.1:8101"
    assert site.port_files is not None
    assert site.port_files.paths == (tmp_path / "site.pem", tmp_path / "site.key", authority.ca)
    entry = {"site_id": "north", "port": 8101, "tls_certificate_file": "site.pem"}
    assert known_of_sites({"sites": [entry]})["north"]["ingress_url"] == "https://127.0.0.1:8101"
    assert load(tmp_path, "").ingress_at(8101) == "http://127.0.0.1:8101"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('tls_certificate_file = "site.pem"', "belong together: give both, or neither"),
        ('tls_client_ca_file = "ca.pem"', "tls_client_ca_file needs tls_certificate_file and tls_key_file"),
        (PAIR + 'ingress_url = "http://10.0.0.7:8101"', "ingress_url must begin with https://"),
        (PAIR.replace("site.key", "none.key"), r"\[sites\] tls_key_file = '.*none.key': cannot be read"),
        (
            PAIR + 'tls_client_ca_file = "site.key"',
            r"\[sites\] tls_client_ca_file = .*: no certificate in PEM",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    authority: Authority, tmp_path: Path, more: str, said: str
) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, more)


def test_the_doctor_looks_at_the_certificate(authority: Authority, tmp_path: Path) -> None:
    """Whether it is for the host that routers ask for, and for how long."""
    [good] = found(load(tmp_path, PAIR))
    assert (good.status, good.message) == (
        "pass",
        f"{tmp_path / 'site.pem'} is for 127.0.0.1, for 89 days yet",
    )
    [named] = found(load(tmp_path, PAIR + 'ingress_url = "https://north.example.org"\n'))
    assert named.status == "pass"
    [other] = found(load(tmp_path, PAIR + 'host = "10.0.0.8"\n'))
    assert other.status == "fail"
    assert "is for 127.0.0.1, 10.0.0.7, north.example.org, not for 10.0.0.8" in other.message


@pytest.mark.parametrize(
    ("days", "begins_in_days", "status", "said"),
    [(3, -400, "warn", "expires on"), (-1, -400, "fail", "EXPIRED on"), (9, 1, "fail", "not valid before")],
)
def test_the_doctor_looks_at_the_time(
    authority: Authority, tmp_path: Path, days: float, begins_in_days: float, status: str, said: str
) -> None:
    """Soon over, over, and not begun."""
    authority.sign("site", days=days, begins_in_days=begins_in_days)
    [one] = found(load(tmp_path, PAIR))
    assert one.status == status
    assert said in one.message
    assert one.action == tls_check.RENEW


def test_the_doctor_says_what_crosses_the_network(authority: Authority, tmp_path: Path) -> None:
    """Without TLS beyond this machine, unless something in front has it."""
    assert [one.status for one in found(load(tmp_path, ""))] == ["pass"]
    [plain] = found(load(tmp_path, 'host = "10.0.0.7"\n'))
    assert plain.status == "warn"
    assert "the site token and what clients ask cross the network as they are" in plain.message
    [behind] = found(load(tmp_path, 'host = "10.0.0.7"\ningress_url = "https://north.example.org"\n'))
    assert behind.status == "pass"


def test_the_doctor_warns_of_keys_and_of_certificates_that_are_missing(
    authority: Authority, tmp_path: Path
) -> None:
    """A key that everybody may read; callers who must show what [fleet] does not name."""
    (tmp_path / "site.key").chmod(0o644)
    site = load(tmp_path, PAIR + 'tls_client_ca_file = "ca.pem"\n')
    _, key, client = found(site)
    assert (key.status, key.action) == ("warn", f"chmod o-rwx {tmp_path / 'site.key'}")
    assert (client.status, client.action) == (
        "warn",
        "[fleet] tls_client_certificate_file and tls_client_key_file",
    )
