from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from masque.errors import Conflict, IdentityError, NotFound
from masque.wire.authority import create_authority, open_authority
from masque.wire.certificates import describe, load_certificate, verify
from masque.wire.identity import Identity, Role
from masque.wire.tls import find_credentials, load_credentials

PARTY = Identity("demo", Role.PARTY, "hospital-a")
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_their_modes(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    path = authority.issue(PARTY, tmp_path / "a")
    assert path == tmp_path / "a" / "hospital-a.party.pem"
    for directory in (tmp_path / "authority", tmp_path / "a"):
        assert mode(directory) == 0o700
        assert sorted({mode(file) for file in directory.iterdir()}) == [0o600, 0o644]
        assert all(mode(key) == 0o600 for key in directory.glob("*.key"))
        assert not list(directory.glob(".*"))


def test_facts_and_standard_verification(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    path = authority.issue(PARTY, tmp_path / "a", hosts=["localhost", "127.0.0.1", "::1"])
    certificate = load_certificate(path)
    facts = describe(certificate)
    assert facts.identity == PARTY and not facts.authority
    assert facts.hosts == ("localhost", "127.0.0.1", "::1")
    assert dt.timedelta(days=89) < facts.remaining() <= dt.timedelta(days=90)
    assert facts.not_before < dt.datetime.now(dt.UTC) - dt.timedelta(minutes=4)
    assert describe(authority.certificate).authority
    assert verify(certificate, authority.trust, role=Role.PARTY, name="hospital-a") == PARTY
    policy = PolicyBuilder().store(Store([authority.certificate]))
    policy.build_server_verifier(x509.DNSName("localhost")).verify(certificate, [])
    policy.build_server_verifier(x509.DNSName(PARTY.server_name)).verify(certificate, [])
    policy.build_client_verifier().verify(certificate, [])


def test_verify_says_what_is_wrong(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    other = create_authority(tmp_path / "other", "demo")
    certificate = load_certificate(authority.issue(PARTY, tmp_path / "a"))
    root = authority.trust
    with pytest.raises(IdentityError, match=r"not issued by this authority"):
        verify(certificate, other.trust)
    with pytest.raises(IdentityError, match=r"expired at \d{4}"):
        verify(certificate, root, at=dt.datetime.now(dt.UTC) + dt.timedelta(days=91))
    with pytest.raises(IdentityError, match=r"not valid before"):
        verify(certificate, root, at=LONG_AGO)
    with pytest.raises(IdentityError, match=r"role party, but the role dealer is needed"):
        verify(certificate, root, role=Role.DEALER)
    with pytest.raises(IdentityError, match=r"does not belong to 'hospital-b'"):
        verify(certificate, root, name="hospital-b")
    with pytest.raises(IdentityError, match=r"0 Masque identities"):
        verify(authority.certificate, root)


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    key = (tmp_path / "authority" / "authority.key").read_bytes()
    with pytest.raises(Conflict, match=r"exists already.*--replace"):
        create_authority(tmp_path / "authority", "demo")
    assert (tmp_path / "authority" / "authority.key").read_bytes() == key
    path = authority.issue(PARTY, tmp_path / "a")
    before = path.read_bytes()
    with pytest.raises(Conflict, match=r"hospital-a\.party\.pem"):
        authority.issue(PARTY, tmp_path / "a")
    assert path.read_bytes() == before
    authority.issue(PARTY, tmp_path / "a", replace=True)
    assert path.read_bytes() != before
    assert find_credentials(tmp_path / "a").identity == PARTY


def test_reopened_authority_issues_the_same_way(tmp_path: Path) -> None:
    create_authority(tmp_path / "authority", "demo")
    authority = open_authority(tmp_path / "authority")
    authority.issue(PARTY, tmp_path / "a")
    assert find_credentials(tmp_path / "a").identity == PARTY
    with pytest.raises(IdentityError, match=r"project 'demo' cannot certify"):
        authority.issue(Identity("other", Role.PARTY, "x"), tmp_path / "x")
    with pytest.raises(IdentityError, match=r"cannot be a host"):
        authority.issue(PARTY, tmp_path / "y", hosts=["b.party.demo.masque"])
    with pytest.raises(NotFound, match=r"no authority's certificate at"):
        open_authority(tmp_path / "nowhere")


def test_a_directory_belongs_to_one_authority(tmp_path: Path) -> None:
    create_authority(tmp_path / "one", "demo").issue(PARTY, tmp_path / "a")
    before = sorted(path.name for path in (tmp_path / "a").iterdir())
    other = create_authority(tmp_path / "two", "demo")
    with pytest.raises(IdentityError, match=r"another authority"):
        other.issue(Identity("demo", Role.PARTY, "b"), tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == before


def test_credentials_are_checked_when_loaded(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    path = authority.issue(PARTY, tmp_path / "a")
    authority.issue(PARTY, tmp_path / "b")
    root, key = tmp_path / "a" / "authority.pem", path.with_suffix(".key")
    with pytest.raises(IdentityError, match=r"does not belong to the certificate"):
        load_credentials(path, tmp_path / "b" / "hospital-a.party.key", root)
    with pytest.raises(NotFound, match=r"no private key at"):
        load_credentials(path, tmp_path / "missing.key", root)
    with pytest.raises(IdentityError, match=r"not a PEM certificate"):
        load_credentials(key, key, root)
    key.chmod(0o640)
    with pytest.raises(IdentityError, match=r"chmod 600"):
        load_credentials(path, key, root)
    key.chmod(0o600)
    authority.issue(PARTY, tmp_path / "old", now=LONG_AGO)
    with pytest.raises(IdentityError, match=r"expired at 2020"):
        find_credentials(tmp_path / "old")
    assert find_credentials(tmp_path / "old", at=LONG_AGO).identity == PARTY
    authority.issue(Identity("demo", Role.DEALER, "dealer"), tmp_path / "a")
    with pytest.raises(NotFound, match=r"dealer\.dealer, hospital-a\.party"):
        find_credentials(tmp_path / "a")
    assert find_credentials(tmp_path / "a", "dealer.dealer").identity.role is Role.DEALER


def test_no_key_in_a_representation(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo")
    authority.issue(PARTY, tmp_path / "a")
    for thing in (authority, find_credentials(tmp_path / "a")):
        assert "PRIVATE" not in repr(thing) and "key=" not in repr(thing)


def test_an_authority_that_ends(tmp_path: Path) -> None:
    authority = create_authority(tmp_path / "authority", "demo", lifetime=dt.timedelta(days=1))
    certificate = load_certificate(authority.issue(PARTY, tmp_path / "a"))
    assert certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    with pytest.raises(IdentityError, match="valid for some time"):
        authority.issue(PARTY, tmp_path / "b", lifetime=dt.timedelta(0))
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    with pytest.raises(IdentityError, match="expired"):
        verify(certificate, authority.trust, at=later)
