"""Revoked certificates: whose calls end, whom nobody talks to, and what makes it known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from masque.errors import IdentityError, MasqueError, Unavailable
from masque.wire import issued, withdrawing
from masque.wire.authority import Authority, create_authority
from masque.wire.certificates import load_certificate, verify
from masque.wire.failures import translate
from masque.wire.identity import Identity, Role
from masque.wire.pinned import Pinned
from masque.wire.preflight import check_connection
from masque.wire.publishing import publish
from masque.wire.recipients import create_recipient, parse_recipient, renew_recipient
from masque.wire.revocation import LISTS_FILE
from masque.wire.tls import channel_options, find_credentials
from tests.wire.conftest import ECHO, PROJECT, STREAM, Project, Running, run_service, unary


@pytest.fixture
def own(tmp_path: Path) -> Project:
    """An authority for one test, which may spoil it."""
    return Project(tmp_path, create_authority(tmp_path / "authority", PROJECT))


@pytest.fixture
def server(own: Project) -> Iterator[Running]:
    yield from run_service(own, own.credentials("party", "a"))


def revoke(authority: Authority, *stems: str) -> bytes:
    found = [one for stem in stems for one in withdrawing.find(authority, stem)]
    return withdrawing.revoke(authority, found)


def tell(server: Running, lists: bytes) -> int:
    """Tell a server in the name of a client; returns how many calls that ended."""
    credentials = server.project.credentials("client", "teller")
    reply = publish(server.server.address, server.server.identity, credentials, lists)
    assert reply.kept
    return int(reply.ended)


def refusal(server: Running, name: str) -> MasqueError:
    with pytest.raises(grpc.RpcError) as caught:
        server.call(ECHO, name=name)
    return translate(caught.value, service="party 'a'")


def raised(call: Callable[[], object]) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        call()
    return caught.value


class Talk:
    """A stream that is under way until `close`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._over = threading.Event()
        self.stream: Any = channel.stream_stream(STREAM, bytes, bytes)(self._ask())
        assert next(iter(self.stream)) == b"one"

    def _ask(self) -> Iterator[bytes]:
        yield b"one"
        self._over.wait(60)

    def close(self) -> None:
        self._over.set()

    def broken(self) -> grpc.RpcError:
        """Waits until it is."""
        with pytest.raises(grpc.RpcError) as caught:
            next(self.stream)
        self.close()
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        return caught.value


# -- callers ---------------------------------------------------------------------------------------


def test_calls_of_a_revoked_certificate_end_and_none_begins(server: Running) -> None:
    """A stream that is under way ends; on its connection as on a new one nothing is answered."""
    own = server.project
    with (
        server.channel(own.credentials("party", "b")) as theirs,
        server.channel(own.credentials("party", "c")) as others,
    ):
        mine, neighbour = Talk(theirs), Talk(others)
        assert tell(server, revoke(own.authority, "b.party")) == 1
        mine.broken()
        with pytest.raises(grpc.RpcError) as caught:
            unary(theirs, ECHO)  # the same connection
        error = translate(caught.value, service="party 'a'")
        assert isinstance(error, IdentityError)
        assert error.message == "The certificate of party 'b' was revoked by the authority."
        assert unary(others, ECHO) == b"hello"
        assert neighbour.stream.is_active()
        neighbour.close()
        assert list(neighbour.stream) == []
    assert "was revoked" in str(refusal(server, "b"))


def test_whose_call_was_ended_finds_out_why(server: Running) -> None:
    own, who = server.project, server.server.identity
    pinned = Pinned(server.server.address, who, own.credentials("party", "b"))
    talk = Talk(pinned.channel)
    tell(server, revoke(own.authority, "b.party"))
    error = pinned.meaning(talk.broken())
    assert isinstance(error, IdentityError) and error.where["party"] == "b"
    assert error.message == "The certificate of party 'b' was revoked by the authority."
    pinned.close()


def test_a_new_certificate_of_the_same_name_is_served(server: Running) -> None:
    own = server.project
    own.credentials("party", "b")
    tell(server, revoke(own.authority, "b.party"))
    own.authority.issue(Identity(PROJECT, Role.PARTY, "b"), own.root / "b.party", replace=True)
    assert server.call(ECHO, name="b") == b"hello"


def test_a_list_that_is_installed_is_noticed_without_being_told(server: Running) -> None:
    own = server.project
    with server.channel(own.credentials("party", "b")) as channel:
        talk = Talk(channel)
        path = own.root / "a.party" / LISTS_FILE
        path.write_bytes(b"nonsense")
        assert unary(channel, ECHO) == b"hello"
        path.write_bytes(revoke(own.authority, "b.party"))
        talk.broken()
    assert "was revoked" in str(refusal(server, "b"))


def test_what_was_told_is_in_force_after_a_restart(own: Project) -> None:
    own.credentials("party", "b")
    for server in run_service(own, own.credentials("party", "a")):
        tell(server, revoke(own.authority, "b.party"))
    for server in run_service(own, find_credentials(own.root / "a.party")):
        assert "was revoked" in str(refusal(server, "b"))


# -- servers ---------------------------------------------------------------------------------------


def test_nobody_talks_to_a_revoked_server(server: Running) -> None:
    own = server.project
    caller, address, who = (
        own.credentials("party", "b"),
        server.server.address,
        server.server.identity,
    )
    pinned, fresh = Pinned(address, who, caller), Pinned(address, who, caller)
    assert unary(pinned.channel, ECHO) == b"hello"
    caller.trust.revocations.take(revoke(own.authority, "a.party"), caller.trust.authorities)
    for error in (
        raised(lambda: unary(pinned.channel, ECHO)),
        raised(lambda: unary(fresh.channel, ECHO)),
        raised(lambda: check_connection(address, who, caller)),
    ):
        assert error.message == "The certificate of party 'a' was revoked by the authority."
        assert error.where["service"] == "party 'a'"
    pinned.close()
    with pytest.raises(Unavailable, match="closed on our side"):
        unary(pinned.channel, ECHO)
    fresh.close()


def test_a_call_to_a_server_that_is_revoked_meanwhile_ends(server: Running) -> None:
    own = server.project
    caller, who = own.credentials("party", "b"), server.server.identity
    heard: list[IdentityError] = []
    pinned = Pinned(server.server.address, who, caller, on_revoked=heard.append)
    talk = Talk(pinned.channel)
    caller.trust.revocations.take(revoke(own.authority, "a.party"), caller.trust.authorities)
    talk.broken()
    assert [error.where["service"] for error in heard] == ["party 'a'"]
    pinned.close()


def test_only_the_certificate_that_was_looked_at_may_answer(server: Running) -> None:
    """Another one of the same name and authority is not the one that was not revoked."""
    own, address, who = server.project, server.server.address, server.server.identity
    caller = own.credentials("party", "b")

    def pinned_to(certificate: x509.Certificate) -> grpc.Channel:
        only = caller.for_channel(only=certificate)
        return grpc.secure_channel(address, only, options=channel_options(who))

    with pinned_to(check_connection(address, who, caller)) as channel:
        assert unary(channel, ECHO) == b"hello"
    with pinned_to(load_certificate(own.authority.issue(who, own.root / "other"))) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, ECHO)
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)


def test_a_pinned_channel_looks_again_after_a_renewal(own: Project) -> None:
    for server in run_service(own, own.credentials("party", "a")):
        caller, who = own.credentials("party", "b"), server.server.identity
        pinned = Pinned(server.server.address, who, caller)
        assert unary(pinned.channel, ECHO) == b"hello"
        own.authority.issue(who, own.root / "a.party", replace=True)
        assert unary(pinned.channel, ECHO) == b"hello", "the connection goes on"
        pinned.forget()
        assert unary(pinned.channel, ECHO) == b"hello"
        pinned.close()


# -- what else certificates vouch for --------------------------------------------------------------


def test_recipients_of_revoked_certificates(own: Project) -> None:
    analyst = own.credentials("client", "analyst")
    made = create_recipient(own.root / "keys", analyst)
    revoke(own.authority, "analyst.client")
    trust = own.authority.trust
    assert "was revoked" in str(raised(lambda: parse_recipient(made.recipient.text, trust)))
    own.authority.issue(analyst.identity, own.root / "analyst.client", replace=True)
    renewed = renew_recipient(own.root / "keys", find_credentials(own.root / "analyst.client"))
    before = made.recipient.key.public_bytes_raw()
    assert parse_recipient(renewed.text, trust).key.public_bytes_raw() == before


def test_our_own_certificate(own: Project) -> None:
    credentials = own.credentials("party", "a")
    lists = revoke(own.authority, "a.party")
    (own.root / "a.party" / LISTS_FILE).write_bytes(lists)
    error = raised(lambda: find_credentials(own.root / "a.party"))
    assert "masque pki request --renew" in error.hint
    assert "was revoked" in str(
        raised(lambda: verify(credentials.certificate, own.authority.trust))
    )


# -- what is revoked -------------------------------------------------------------------------------


def test_finding_certificates(own: Project) -> None:
    own.credentials("party", "b")
    path = own.root / "b.party" / "b.party.pem"
    own.authority.issue(Identity(PROJECT, Role.PARTY, "b"), own.root / "b.party", replace=True)
    assert len(withdrawing.find(own.authority, "b.party")) == 2
    (by_file,) = withdrawing.find(own.authority, str(path))
    assert withdrawing.find(own.authority, by_file.serial.upper()) == [by_file]
    withdrawing.revoke(own.authority, [by_file], reason="superseded")
    (left,) = withdrawing.find(own.authority, "b.party")
    assert left.serial != by_file.serial
    for unknown in ("c.party", "1234", str(own.root / "authority" / "authority.pem")):
        with pytest.raises(MasqueError, match=r"issued no live certificate"):
            withdrawing.find(own.authority, unknown)


def test_the_log_of_what_was_issued(own: Project) -> None:
    own.credentials("party", "b")
    (one,) = issued.read(own.root / "authority")
    assert one.identity == "masque://demo/party/b" and one.stem == "b.party"
    log = own.root / "authority" / issued.FILE
    assert log.stat().st_mode & 0o077 == 0
    log.write_text(log.read_text() + "nonsense\n")
    assert "line 2, cannot be read" in str(raised(lambda: issued.read(own.root / "authority")))
