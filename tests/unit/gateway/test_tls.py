"""Files for TLS, good and bad: what is taken, and what an operator is told."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import Authority, Pair

from gateway.tls import CallerFiles, PortFiles, TlsError, time_fault


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def port(pair: Pair, client_ca: Path | None = None) -> PortFiles:
    return PortFiles(certificate=pair[0], key=pair[1], client_ca=client_ca)


def caller(ca: Path | None, pair: Pair) -> CallerFiles:
    return CallerFiles(ca=ca, certificate=pair[0], key=pair[1])


def refusal(files: PortFiles | CallerFiles) -> str:
    with pytest.raises(TlsError) as caught:
        files.load()
    return str(caught.value)


@pytest.mark.parametrize("is_rsa", [False, True], ids=["EC", "RSA"])
def test_a_good_pair_is_taken_and_read(authority: Authority, is_rsa: bool) -> None:
    """Both sides; its hosts and its end are known."""
    pair = authority.sign("port", hosts=("north.example.org", "10.0.0.1"), days=3, is_rsa=is_rsa)
    made = port(pair, authority.ca).load()
    assert made.certificate == caller(authority.ca, pair).load().certificate
    assert made.certificate is not None
    assert (made.certificate.subject, made.certificate.names) == ("port", ("north.example.org", "10.0.0.1"))
    assert abs(made.certificate.expires_at_unix_seconds - time.time() - 3 * 86_400) < 60
    assert made.context.verify_mode is ssl.CERT_REQUIRED
    assert made.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert port(pair).load().context.verify_mode is ssl.CERT_NONE


def test_callers_check_the_certificate_and_its_name(authority: Authority) -> None:
    """There is no way to have it otherwise."""
    for files in (CallerFiles(), CallerFiles(ca=authority.ca)):
        context = files.load().context
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


def test_a_missing_file_is_named(authority: Authority, tmp_path: Path) -> None:
    """With its key, for each that there is."""
    pair, gone = authority.sign("port"), tmp_path / "gone"
    said = f"= {str(gone)!r}: cannot be read: No such file or directory"
    assert refusal(port((gone, pair[1]))) == f"tls_certificate_file {said}"
    assert refusal(port((pair[0], gone))) == f"tls_key_file {said}"
    assert refusal(port(pair, gone)) == f"tls_client_ca_file {said}"
    assert refusal(CallerFiles(ca=gone)) == f"tls_ca_file {said}"
    assert refusal(caller(authority.ca, (gone, pair[1]))) == f"tls_client_certificate_file {said}"
    assert refusal(caller(authority.ca, (pair[0], gone))) == f"tls_client_key_file {said}"


def test_a_file_that_may_not_be_read_is_named(authority: Authority, tmp_path: Path) -> None:
    """A directory stands in for it: root may read anything."""
    pair = authority.sign("port")
    assert (
        refusal(port((pair[0], tmp_path)))
        == f"tls_key_file = {str(tmp_path)!r}: cannot be read: Is a directory"
    )


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    """As half a renewal leaves it."""
    one, other = authority.sign("one"), authority.sign("other")
    said = f"is not the key of {one[0]}: give the two files that were made together"
    assert refusal(port((one[0], other[1]))) == f"tls_key_file = {str(other[1])!r}: {said}"


def test_an_encrypted_key_is_refused_and_no_passphrase_asked_for(authority: Authority) -> None:
    """OpenSSL would ask at the terminal, and wait."""
    pair = authority.sign("port", passphrase=b"secret")
    said = refusal(port(pair))
    assert said.startswith(f"tls_key_file = {str(pair[1])!r}: is encrypted")
    assert "openssl pkey -in KEY -out NEW" in said


def test_what_is_no_pem_is_refused(authority: Authority, tmp_path: Path) -> None:
    """The two taken for each other, a file of another kind, one cut in its middle, one far too large."""
    pair = authority.sign("port")
    assert "no certificate in PEM form" in refusal(port((pair[1], pair[1])))
    assert "no private key in PEM form" in refusal(port((pair[0], pair[0])))
    other = tmp_path / "other"
    other.write_bytes(b"\x30\x82\x01\x00")
    assert "tls_client_ca_file" in refusal(port(pair, other))
    other.write_bytes(pair[0].read_bytes()[:200])
    assert "cannot be used" in refusal(port((other, pair[1])))
    assert "cannot be used" in refusal(CallerFiles(ca=other))
    other.write_bytes(b" " * (5 << 20))
    assert "larger than" in refusal(port((other, pair[1])))


def test_a_certificate_for_another_purpose_is_refused(authority: Authority) -> None:
    """Nobody would take it."""
    for_clients = authority.sign("client", purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
    for_ports = authority.sign("server", purpose=ExtendedKeyUsageOID.SERVER_AUTH)
    assert "purpose" in refusal(port(for_clients))
    assert "purpose" in refusal(caller(authority.ca, for_ports))
    port(for_ports).load()
    caller(authority.ca, for_clients).load()


def test_the_name_is_checked_as_a_caller_would(authority: Authority) -> None:
    """Names, addresses, wildcards; one without names is for nobody."""
    files = port(authority.sign("port", hosts=("*.example.org", "10.0.0.1")))
    assert files.name_fault("north.example.org") is None
    assert files.name_fault("10.0.0.1") is None
    assert files.name_fault("10.0.0.2") == "is for *.example.org, 10.0.0.1, not for 10.0.0.2"
    assert port(authority.sign("bare", hosts=())).name_fault("bare") == "is for no host, not for bare"


def test_an_expired_certificate_is_taken_and_told_of(authority: Authority) -> None:
    """A port that does not open helps nobody; so is one that is not valid yet, and one that ends soon."""
    now = time.time()

    def fault(days: float, begins_in_days: float = -400.0) -> str | None:
        certificate = (
            port(authority.sign("port", days=days, begins_in_days=begins_in_days)).load().certificate
        )
        assert certificate is not None
        return time_fault(certificate, now)

    assert fault(90) is None
    assert str(fault(3)).startswith("expires on 2")
    assert str(fault(-1)).startswith("EXPIRED on 2")
    assert str(fault(90, begins_in_days=1)).startswith("is not valid before 2")
