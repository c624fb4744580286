"""What a service signs with: the file, and whether anybody would believe it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from pydantic import ValidationError
from support.signing_keys import SigningKeys

from fleet.config import ConfigError, FleetConfig
from fleet.signing import BELIEVES_ALL, SIGNS_NOTHING
from fleet.signing_keys import check_signing, signing_of, trust_of

KEYS = SigningKeys()


def fleet(**trusted: Any) -> FleetConfig:
    return FleetConfig.model_validate({"trusted_keys": trusted})


def test_without_keys_all_is_as_it_was() -> None:
    """Nothing is signed, and everybody believed."""
    assert signing_of(FleetConfig(), "router", "router", None) == (SIGNS_NOTHING, BELIEVES_ALL)


def test_a_service_that_nobody_would_believe_does_not_start(tmp_path: Path) -> None:
    """Better at its start than found out by routers."""
    named = fleet(power_feed=[KEYS.public("power_feed")], sites={"north": [KEYS.public("north")]})
    with pytest.raises(
        ConfigError, match=r"^f\.toml: \[power_feed\] signing_key_file: is missing.*power_feed"
    ):
        check_signing("f.toml", "power_feed", named, "power_feed", None)
    other = KEYS.write(tmp_path, "other")
    with pytest.raises(ConfigError, match=r"other\.pem: .*power_feed does not name its public half, MCow"):
        signing_of(named, "power_feed", "power_feed", other)
    with pytest.raises(ConfigError, match=r"sites\.coast does not name"):
        signing_of(named, "site", "sites.coast", KEYS.write(tmp_path, "north"), site_id="coast")
    assert signing_of(named, "site", "sites", KEYS.write(tmp_path, "north"), site_id="north").signer.signs
    assert not signing_of(named, "router", "router", None).signer.signs
    assert signing_of(named, "router", "router", other).signer.signs, "first the writers, then the readers"


def pem_of(key: Any, *, password: bytes | None = None) -> bytes:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return pem


def test_files_that_hold_no_such_key(tmp_path: Path) -> None:
    """Each error says which file, and what to do."""
    files = {
        "no private key in PEM; openssl genpkey -algorithm ed25519": b"hello",
        "not a private key in PEM": b"",
        "not an Ed25519 key": pem_of(generate_private_key(65537, 2048)),
        "it has a passphrase": pem_of(KEYS.key("a"), password=b"secret"),
    }
    for number, (said, content) in enumerate(files.items()):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(content)
        with pytest.raises(ConfigError) as error:
            signing_of(FleetConfig(), "router", "router", path)
        assert f"[router] signing_key_file: {path}: " in str(error.value)
        assert said.removeprefix("no ") in str(error.value)
    with pytest.raises(ConfigError, match=r"missing\.pem: No such file"):
        signing_of(FleetConfig(), "router", "router", tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match="Is a directory"):
        signing_of(FleetConfig(), "router", "router", tmp_path)


@pytest.mark.parametrize("kind", ["empty", "words", "short", "long", "another"])
def test_what_is_no_public_key_is_told(kind: str) -> None:
    """With the command that prints one."""
    good = KEYS.public("a")
    text = {
        "empty": "",
        "words": "hello",
        "short": good[:16],
        "long": good[:-4] + "AAAAAAA=",
        "another": "A" * 60,
    }[kind]
    with pytest.raises(ValidationError, match=r"openssl pkey -in KEY\.pem -pubout"):
        fleet(router=[text])
    with pytest.raises(ValidationError, match="at least 1 item"):
        fleet(sites={"north": []})


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who asks for signatures is told what to install; nobody else needs it."""
    path = KEYS.write(tmp_path, "a")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    assert signing_of(FleetConfig(), "router", "router", None).trust is BELIEVES_ALL
    with pytest.raises(ConfigError, match=r"trusted_keys.*pip install '\.\[signing\]'"):
        trust_of(fleet(router=[KEYS.public("a")]))
    with pytest.raises(ConfigError, match=r"signing_key_file.*pip install '\.\[signing\]'"):
        signing_of(FleetConfig(), "router", "router", path)
