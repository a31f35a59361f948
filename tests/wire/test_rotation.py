"""The authority rotates: two are believed for a while, and no stream is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from masque.errors import Conflict, IdentityError, MasqueError, NotFound
from masque.wire import withdrawing
from masque.wire.authority import Authority, create_authority, open_authority
from masque.wire.certificates import load_authorities, load_certificate, verify
from masque.wire.identity import Identity, Role
from masque.wire.installing import Delivery, install, open_delivery
from masque.wire.revocation import Revocations
from masque.wire.tls import find_credentials, open_channel
from masque.wire.trust import Trust, endorses
from tests.wire.conftest import ECHO, PROJECT, Project, Running, run_service, unary
from tests.wire.test_revocation import Talk, revoke

A, B = (Identity(PROJECT, Role.PARTY, name) for name in "ab")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return create_authority(tmp_path / "authority", PROJECT)


def no(project: str, shown: str) -> None:
    raise IdentityError(f"{project}: {shown} is unknown")


def files(directory: Path) -> Delivery:
    """What an authority hands to everybody."""
    return open_delivery([directory / "authority.pem", directory / "authority.crl"])


def raised(call: Callable[[], object]) -> MasqueError:
    with pytest.raises(MasqueError) as caught:
        call()
    return caught.value


def believed(path: Path) -> tuple[x509.Certificate, ...]:
    return load_authorities(path / "authority.pem")


@pytest.fixture
def serving(tmp_path: Path, authority: Authority) -> Iterator[Running]:
    """A is a service, B has a certificate; `authority` is theirs."""
    for who in (A, B):
        authority.issue(who, tmp_path / who.name)
    yield from run_service(Project(tmp_path, authority), find_credentials(tmp_path / "a"))


def test_a_stream_lives_through_renewal_and_rotation(serving: Running, tmp_path: Path) -> None:
    authority = serving.project.authority
    home, caller = authority.directory, find_credentials(tmp_path / "b")

    def answered() -> bool:
        """Over a connection of its own, with what the caller has now."""
        with open_channel(serving.server.address, A, caller) as channel:
            return unary(channel, ECHO) == b"hello"

    def distribute() -> None:
        for directory in (tmp_path / "b", tmp_path / "a"):
            install(files(home), directory, no)
            assert answered()

    with open_channel(serving.server.address, A, caller) as channel:
        talk = Talk(channel)
        authority.issue(A, tmp_path / "a", replace=True)
        authority.issue(B, tmp_path / "b", replace=True)
        assert answered()
        rotated = withdrawing.rotate(authority)
        distribute()
        assert len(believed(tmp_path / "a")) == 2
        rotated.issue(A, tmp_path / "a", replace=True)
        assert answered(), "the server shows what the new authority issued"
        assert isinstance(raised(lambda: withdrawing.retire(rotated)), Conflict)
        rotated.issue(B, tmp_path / "b", replace=True)
        assert answered(), "and so does the caller"
        withdrawing.retire(rotated)
        distribute()
        for credentials in (caller, serving.server.credentials):
            assert credentials.renewed().trust.authorities == (rotated.certificate,)
        assert talk.stream.is_active()
        talk.close()
        assert list(talk.stream) == []


def test_who_was_issued_by_the_retired_authority_is_refused(
    tmp_path: Path, authority: Authority
) -> None:
    for who in (A, B):
        authority.issue(who, tmp_path / who.name)
    old = find_credentials(tmp_path / "b")
    rotated = withdrawing.rotate(authority)
    rotated.issue(A, tmp_path / "a", replace=True)
    after = withdrawing.retire(rotated, force=True)
    install(files(authority.directory), tmp_path / "a", no)
    for running in run_service(Project(tmp_path, after), find_credentials(tmp_path / "a")):
        with (
            open_channel(running.server.address, A, old) as channel,
            pytest.raises(grpc.RpcError),
        ):
            unary(channel, ECHO)
    with pytest.raises(IdentityError, match=r"not issued by this authority"):
        verify(old.certificate, after.trust)
    error = raised(lambda: install(files(authority.directory), tmp_path / "b", no))
    assert "Install the new certificate first" in error.hint


def test_the_old_authority_vouches_for_the_new_and_for_no_other(
    tmp_path: Path, authority: Authority
) -> None:
    rotated = withdrawing.rotate(authority)
    impostor = withdrawing.rotate(create_authority(tmp_path / "impostor", PROJECT))
    other = withdrawing.rotate(create_authority(tmp_path / "other", "other"))
    assert endorses(authority.certificate, rotated.certificate)
    assert not endorses(rotated.certificate, authority.certificate)
    for stranger in (impostor, other):
        assert not endorses(authority.certificate, stranger.certificate)
        assert not Trust((authority.certificate,)).accepts(stranger.trust.authorities)
    third = withdrawing.rotate(withdrawing.retire(rotated, force=True))
    chain = (third.certificate, rotated.certificate)
    assert Trust((authority.certificate,)).accepts(chain), "over the one between"
    assert not Trust((authority.certificate,)).accepts(chain[:1])


def test_an_older_bundle_does_not_come_back(tmp_path: Path, authority: Authority) -> None:
    home = authority.directory
    authority.issue(A, tmp_path / "a")
    before = open_delivery([home / "authority.pem"])
    rotated = withdrawing.rotate(authority)
    between = files(home)
    install(between, tmp_path / "a", no)
    install(before, tmp_path / "a", no)
    assert len(believed(tmp_path / "a")) == 2, "what is there is newer"
    rotated.issue(A, tmp_path / "a", replace=True)
    withdrawing.retire(rotated)
    install(files(home), tmp_path / "a", no)
    for older in (before, between):
        error = raised(lambda older=older: install(older, tmp_path / "a", no))  # type: ignore[misc]
        assert "is unknown" in error.message
    assert believed(tmp_path / "a") == (rotated.certificate,)


@pytest.mark.parametrize("lists", [True, False])
def test_a_host_that_missed_the_rotation_takes_what_came_of_it(
    tmp_path: Path, authority: Authority, lists: bool
) -> None:
    """Its list is of the retired authority, and no hindrance."""
    home, host = authority.directory, tmp_path / "host"
    authority.issue(B, tmp_path / "b")
    revoke(authority, "b.party")
    install(files(home), host, lambda project, shown: None)
    rotated = withdrawing.rotate(authority)
    rotated.issue(A, tmp_path / "a")
    withdrawing.retire(rotated, force=True)
    if lists:
        revoke(rotated, "a.party")
    delivery = files(home) if lists else open_delivery([home / "authority.pem"])
    install(delivery, host, no)
    assert believed(host) == (rotated.certificate,)
    revocations = Revocations(host / "authority.crl")
    revocations.read(believed(host))  # as a service does that starts
    assert (revocations.number(rotated.certificate) > 0) == lists


def test_rotating_is_done_in_order(tmp_path: Path, authority: Authority) -> None:
    home = authority.directory
    assert isinstance(raised(lambda: withdrawing.retire(authority)), NotFound)
    rotated = withdrawing.rotate(authority)
    assert isinstance(raised(lambda: withdrawing.rotate(rotated)), Conflict)
    assert {path.stat().st_mode & 0o777 for path in home.glob("*.key")} == {0o600}
    opened = open_authority(home)
    assert opened.certificate == rotated.certificate and opened.previous is not None
    (home / "previous.key").write_bytes((home / "authority.key").read_bytes())
    with pytest.raises(IdentityError, match=r"do not belong together"):
        open_authority(home)


def test_both_authorities_revoke(tmp_path: Path, authority: Authority) -> None:
    path = authority.issue(A, tmp_path / "a")
    rotated = withdrawing.rotate(authority)
    withdrawing.revoke(rotated, withdrawing.find(rotated, "a.party"))
    serial = load_certificate(path).serial_number
    lists = (authority.directory / "authority.crl").read_bytes()
    for one in (authority.certificate, rotated.certificate):
        trust = Trust((one,))
        trust.revocations.take(lists, trust.authorities)
        assert serial in trust.revocations, "whichever of the two a service believes by now"


def test_a_bundle_that_is_none(tmp_path: Path, authority: Authority) -> None:
    leaf = authority.issue(A, tmp_path / "a")
    other = create_authority(tmp_path / "other", "other")
    pem = (authority.directory / "authority.pem").read_bytes()
    for content, why in (
        (b"", "not a PEM certificate"),
        (pem + leaf.read_bytes(), "something else"),
        (pem + (other.directory / "authority.pem").read_bytes(), "something else"),
        (leaf.read_bytes(), "something else"),
    ):
        (tmp_path / "a" / "authority.pem").write_bytes(content)
        with pytest.raises(IdentityError, match=why):
            find_credentials(tmp_path / "a")
