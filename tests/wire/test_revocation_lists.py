"""Which revocation lists are believed: damaged, forged, old, overdue ones, and where they are."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from masque.errors import IdentityError, Refused
from masque.wire import withdrawing
from masque.wire.authority import Authority, create_authority
from masque.wire.certificates import load_certificate
from masque.wire.identity import Identity, Role
from masque.wire.revocation import LISTS_FILE, Revocations, read_lists
from masque.wire.tls import find_credentials


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that has issued certificates of parties a, b and c."""
    return made(tmp_path / "authority", tmp_path)


def made(directory: Path, out: Path) -> Authority:
    authority = create_authority(directory, "demo")
    for name in "abc":
        authority.issue(Identity("demo", Role.PARTY, name), out / name)
    return authority


def revoke(authority: Authority, name: str) -> bytes:
    return withdrawing.revoke(authority, withdrawing.find(authority, f"{name}.party"))


def test_lists_that_are_not_believed(authority: Authority, tmp_path: Path) -> None:
    believed = authority.trust.authorities
    first, second = revoke(authority, "b"), revoke(authority, "c")
    known = Revocations()
    known.take(second, believed)
    with pytest.raises(Refused, match=r"number 1; number 2 is in force"):
        known.take(first, believed)
    known.take(second, believed)  # the same again is no harm
    impostor = made(tmp_path / "impostor", tmp_path / "impostors")
    with pytest.raises(IdentityError, match=r"no revocation list that this project's authority"):
        known.take(revoke(impostor, "a"), believed)
    changed = bytearray(second)
    changed[len(second) // 2] ^= 1
    tail = b"-----BEGIN X-----\n"
    for damaged in (b"", b"nonsense", bytes(changed), second[:-40], second + tail):
        with pytest.raises(IdentityError):
            known.take(damaged, believed)
    assert len(known.serials) == 2, "all of it changed nothing"


def test_another_list_under_the_same_number(authority: Authority) -> None:
    """A copy of the authority's directory has signed something else meanwhile."""
    one = revoke(authority, "b")
    (authority.directory / LISTS_FILE).unlink()
    other = revoke(authority, "c")
    known = Revocations()
    known.take(one, authority.trust.authorities)
    with pytest.raises(Refused, match=r"number 1 is in force"):
        known.take(other, authority.trust.authorities)


def test_nothing_starts_with_a_damaged_list(authority: Authority, tmp_path: Path) -> None:
    path, good = tmp_path / "a" / LISTS_FILE, revoke(authority, "b")
    for content in (b"", b"nonsense", good[:-30]):
        path.write_bytes(content)
        with pytest.raises(IdentityError, match=r"not a revocation list in PEM") as caught:
            find_credentials(tmp_path / "a")
        assert str(path) in caught.value.message and "masque pki install" in caught.value.hint
    path.write_bytes(good)
    assert len(find_credentials(tmp_path / "a").trust.revocations.serials) == 1


def test_a_list_past_its_date_or_gone_stays_in_force(authority: Authority, tmp_path: Path) -> None:
    serial = load_certificate(tmp_path / "a" / "a.party.pem").serial_number
    old = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(old).build()
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(old)
        .next_update(old + dt.timedelta(days=1))
        .add_extension(x509.CRLNumber(7), critical=False)
        .add_revoked_certificate(entry)
        .sign(authority.key, hashes.SHA256())
    )
    path = tmp_path / LISTS_FILE
    path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
    known, believed = Revocations(path), authority.trust.authorities
    known.read(believed)
    assert known.overdue and serial in known and known.number(believed[0]) == 7
    path.write_bytes(b"nonsense")
    known.refresh(believed)
    path.unlink()
    known.refresh(believed)
    assert serial in known


def test_lists_kept_elsewhere(authority: Authority, tmp_path: Path) -> None:
    """`tls.revoked`: where the directory of certificates cannot be written to."""
    lists, elsewhere = revoke(authority, "b"), tmp_path / "data" / "revoked.crl"
    trust = find_credentials(tmp_path / "a", revoked=elsewhere).trust
    assert trust.revocations.take(lists, trust.authorities)
    assert elsewhere.read_bytes() == lists
    assert not (tmp_path / "a" / LISTS_FILE).exists()
    again = find_credentials(tmp_path / "a", revoked=elsewhere).trust
    assert again.revocations.serials == trust.revocations.serials
    nowhere = find_credentials(tmp_path / "a", revoked=tmp_path / "gone" / "x.crl").trust
    (tmp_path / "gone").write_text("where a directory should be")
    assert not nowhere.revocations.take(lists, nowhere.authorities), "not kept"
    assert nowhere.revocations.serials == trust.revocations.serials, "but in force"


def test_a_kept_list_of_a_retired_authority_keeps_nothing_from_starting(
    authority: Authority, tmp_path: Path
) -> None:
    lists, elsewhere = revoke(authority, "b"), tmp_path / "data" / "revoked.crl"
    trust = find_credentials(tmp_path / "a", revoked=elsewhere).trust
    assert trust.revocations.take(lists, trust.authorities)
    rotated = withdrawing.rotate(authority)
    rotated.issue(Identity("demo", Role.PARTY, "a"), tmp_path / "a", replace=True)
    withdrawing.retire(rotated, force=True).hand_out(tmp_path / "a")
    again = find_credentials(tmp_path / "a", revoked=elsewhere).trust
    assert again.revocations.serials == trust.revocations.serials, "on the new one's list as well"
    (tmp_path / "a" / LISTS_FILE).write_bytes(lists)
    with pytest.raises(IdentityError, match="no revocation list that this project's authority"):
        find_credentials(tmp_path / "a", revoked=elsewhere)


def test_lists_of_an_authority_that_is_not_known_yet_are_passed_over(authority: Authority) -> None:
    before = authority.trust.authorities
    after = withdrawing.rotate(authority)
    content = (authority.directory / LISTS_FILE).read_bytes()
    assert len(read_lists(content, before, "x")) == 1
    assert len(read_lists(content, after.trust.authorities, "x")) == 2
