"""Every call of every running service, given damaged messages by callers of every role.

Real processes, real TLS. Each call must be answered, by what the catalogue knows, by nothing that
is an accident of the service, and with no secret in it; afterwards no log has a secret, and all
services are small and healthy, and train a model.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from masque.client import jobs, opening
from masque.data.chunks import checksum
from masque.errors import Refused
from masque.v1 import coordinator_pb2, party_pb2
from masque.v1.party_pb2_grpc import PartyServicer, PartyStub, add_PartyServicer_to_server
from masque.wire.authority import Authority, create_authority, open_authority
from masque.wire.certificates import load_signing_key
from masque.wire.failures import translating
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.tls import Credentials, find_credentials, open_channel
from masque.wire.withdrawing import find, revoke
from services.party.service import PERMISSIONS
from tests.client.networks import JOB, SCHEMA, Running, running
from tests.hostile.calling import WAITS, Caller, Target, targets
from tests.hostile.planted import SECRET, Planted
from tests.wire.conftest import PROJECT, Project

CALLS = int(os.environ.get("FUZZ", "100000")) // 10
FIRST = secrets.randbits(48) if "FUZZ" in os.environ else 0
"""The first seed: `make test` makes the same calls every time, `make fuzz` others."""

AT_ONCE = 16
GROWTH, GROWTH_OF_A_CALL = 16 << 20, 128
"""Bytes that a service may have more in the end."""

ADDRESSES = {"dealer": "dealer", "party": "party-1", "coordinator": "coordinator"}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("calls")) as made:
        yield made


@contextmanager
def calling(net: Running, authority: Authority) -> Iterator[Caller]:
    """Channels of every role to every service."""
    profile = net.services.profile
    addresses = {party.name: party.address for party in profile.parties}
    addresses["coordinator"] = profile.coordinator.address
    with net.services.coordinator.calling() as stub:
        request = coordinator_pb2.DescribeCoordinatorRequest()
        addresses["dealer"] = stub.Describe(request, timeout=30.0).dealer.address
    names = {"client": "mallory", "party": "party-2"}
    channels = {}
    for who in Role:
        identity = Identity("local", who, names.get(who.value, who.value))
        own = _issued(authority, identity, net.files / "people")
        for role, name in ADDRESSES.items():
            expected = Identity("local", Role(role), name)
            channels[role, who] = open_channel(addresses[name], expected, own)
    try:
        yield Caller(channels, Planted(SECRET, *secrets_of(net)))
    finally:
        for channel in channels.values():
            channel.close()


def _issued(authority: Authority, identity: Identity, directory: Path) -> Credentials:
    authority.issue(identity, directory)
    return find_credentials(directory, identity.stem)


def secrets_of(net: Running) -> Iterator[bytes]:
    """Keys that the services have: of their stores, and of their certificates."""
    stores = list(net.network.home.rglob("data/key"))
    assert len(stores) == 2, stores
    yield from (path.read_bytes() for path in stores)
    owners = {f"{place.name}.{place.role}" for place in net.network.places}
    keys = [p for p in net.network.home.rglob("*.key") if owners & {p.stem, f"{p.stem}.{p.stem}"}]
    assert len(keys) >= len(net.network.places), keys
    for path in keys:
        key: Any = load_signing_key(path, "key")
        assert isinstance(key, EllipticCurvePrivateKey)
        yield key.private_numbers().private_value.to_bytes(32, "big")


def plant(net: Running, caller: Caller) -> None:
    """A data set whose share at party 1 is `SECRET` over and over."""
    from masque.data.schema import loads

    info = loads(SCHEMA).describe(8)
    share = (SECRET * 8)[: info.share_bytes]
    assert len(share) == info.share_bytes
    header = party_pb2.UploadHeader(
        name="planted", upload_id="u", table_json=info.model_dump_json()
    )
    chunk = party_pb2.UploadChunk(rows=8, share=share, checksum=checksum(share))
    messages: list[Any] = [{"header": header}, {"chunk": chunk}, {"commit": True}]
    with translating("party-1"):
        stub = PartyStub(caller.channels["party", Role.CLIENT])
        stub.Upload(iter([party_pb2.UploadMessage(**m) for m in messages]), timeout=30.0)


def test_no_call_breaks_a_service(net: Running) -> None:
    done = net.submit()
    jobs.finished(net.services, done)
    authority = open_authority(net.network.home / "authority")
    authority.issue(Identity("local", Role.PARTY, "gone"), net.files / "gone")
    chosen = targets(
        _words(net, done) | {"lists": revoke(authority, find(authority, "gone.party"))}
    )
    places = {place.name: psutil.Process(net.pid(place.name)) for place in net.network.places}
    with calling(net, authority) as caller:
        plant(net, caller)
        before = {name: process.memory_info().rss for name, process in places.items()}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            order = [chosen[k % len(chosen)] for k in range(CALLS)]
            answers = Counter(pool.map(caller.attack, order, range(FIRST, FIRST + CALLS)))
    assert {path for path, _ in answers} == {target.path for target in chosen}
    assert len({code for _, code in answers}) > 5, answers
    for name, process in places.items():
        grown = process.memory_info().rss - before[name]
        assert grown < GROWTH + GROWTH_OF_A_CALL * CALLS, f"{name} has {grown} bytes more"
        assert process.is_running()
        check_log(net.place(name).log.read_text(), caller.secrets, name)
    assert jobs.finished(net.services, net.submit()).state == "succeeded"


def _words(net: Running, done: str) -> dict[str, Any]:
    bound = opening.fetch(net.services, done).bound
    return {
        "job_id": done,
        "attempt": 1,
        "bound_job": bound.model_copy(update={"coordinator": "nobody"}).canonical(),
        "submission": bound.submission,
        "job_digest": bound.digest(),
        "subject": bound.subject(),
        "spec_yaml": JOB.replace("EPOCHS", "2").replace("left", "lost"),
        "table_json": bound.tables[0].info.model_dump_json(),
    }


def check_log(log: str, secrets: Planted, name: str) -> None:
    """AssertionError for an accident or a secret in it."""
    assert '"incident"' not in log, f"{name} had an accident: {_around(log)}"
    assert not secrets.shown(log), f"the log of {name} has a secret"


def _around(log: str) -> str:
    at = log.index('"incident"')
    return log[max(0, at - 3000) : at + 3000]


def test_services_still_answer_after_it(net: Running) -> None:
    """The dealer as well."""
    everybody = net.services.everybody
    assert {peer.name for peer in everybody} == {place.name for place in net.network.places}
    assert all(peer.check(patience=10.0) for peer in everybody)


# -- what would be noticed ------------------------------------------------------------------------

SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "hexadecimal": bytes.hex,
    "base64": lambda raw: base64.b64encode(b"x" + raw).decode(),
    "decimal": lambda raw: str(np.frombuffer(raw, "<i8")),
    "repr": repr,
    "bytes": lambda raw: str(list(raw)),
}


class Leaking(PartyServicer):
    """Says what it must not, or nothing at all."""

    def __init__(self, spelled: Callable[[bytes], str], where: str) -> None:
        self._spelled, self._where = spelled, where

    def Forget(self, request: Any, context: grpc.ServicerContext) -> Any:
        told = self._spelled(SECRET)
        if self._where == "reply":
            return party_pb2.ApproveReply(waits_for=[told])
        raise Refused("No.", **{"hint": told} if self._where == "hint" else {"share": told})

    def Renew(self, request: Any, context: grpc.ServicerContext) -> Any:
        while context.is_active():
            context.add_callback(lambda: None)


@contextmanager
def leaking(root: Path, service: Leaking) -> Iterator[Caller]:
    trusted = Project(root, create_authority(root / "authority", PROJECT))
    own = trusted.credentials("party", "ann")
    register = [lambda server: add_PartyServicer_to_server(service, server)]
    with Server(own, "127.0.0.1:0", PERMISSIONS, register, grace=0.1) as server:
        asking = trusted.credentials("coordinator", "coordinator")
        with open_channel(server.address, own.identity, asking) as channel:
            yield Caller({("party", role): channel for role in Role}, Planted(SECRET), 0.3)


def method(name: str) -> Target:
    return next(target for target in targets({}) if target.path == f"/masque.v1.Party/{name}")


def attacked(root: Path, service: Leaking, name: str) -> None:
    with leaking(root, service) as caller:
        for seed in range(50):
            caller.attack(method(name), seed)


@pytest.mark.parametrize("where", ["hint", "where", "reply"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_in_an_answer_would_be_noticed(tmp_path: Path, spelling: str, where: str) -> None:
    service = Leaking(SPELLINGS[spelling], where)  # type: ignore[abstract]
    with pytest.raises(AssertionError, match="tells a secret"):
        attacked(tmp_path, service, "Forget")


def test_a_call_that_hangs_would_be_noticed(tmp_path: Path) -> None:
    assert "/masque.v1.Party/Renew" not in WAITS
    with pytest.raises(AssertionError, match="no answer"):
        attacked(tmp_path, Leaking(repr, "reply"), "Renew")  # type: ignore[abstract]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_in_a_log_would_be_noticed(spelling: str) -> None:
    log = '{"event": "listening"}\n' * 1000
    check_log(log, Planted(SECRET), "it")
    with pytest.raises(AssertionError, match="has a secret"):
        check_log(log + SPELLINGS[spelling](SECRET) + log, Planted(SECRET), "it")
