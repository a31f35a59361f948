"""Who may not do what: roles on every call, other people's names, frames and uploads that lie."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from masque.errors import (
    Conflict,
    IdentityError,
    JobFailed,
    MasqueError,
    NotFound,
    ProtocolError,
    Refused,
)
from masque.jobs.bound import BoundJob
from masque.jobs.fit import SharedTable
from masque.mpc import sharing
from masque.v1 import dealer_pb2, party_pb2
from masque.v1.dealer_pb2_grpc import DealerStub
from masque.v1.party_pb2_grpc import PartyStub
from masque.wire.binding import Binding
from masque.wire.exchange import PeerExchange
from masque.wire.failures import translating
from masque.wire.frames import GREETING, frame
from masque.wire.hub import Hub
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.streams import METHOD, open_peer_channel
from services.dealer.service import PERMISSIONS as DEALER_PERMISSIONS
from services.dealer.settings import DealerLimits
from services.party.main import mount_exchange
from services.party.service import PERMISSIONS as PARTY_PERMISSIONS
from tests.services.handmade import compile_handmade
from tests.services.test_party import a_job, assert_usable
from tests.services.village import CALL, PROJECT, Village, patients, upload_messages

STREAMS = {"Upload"}
WRONG = [
    (method, role)
    for permissions in (DEALER_PERMISSIONS, PARTY_PERMISSIONS)
    for method, roles in permissions.items()
    for role in Role
    if role not in roles
]


def test_every_call_is_listed() -> None:
    for service, module, permissions in (
        ("Dealer", dealer_pb2, DEALER_PERMISSIONS),
        ("Party", party_pb2, PARTY_PERMISSIONS),
    ):
        methods = module.DESCRIPTOR.services_by_name[service].methods_by_name
        assert {f"/masque.v1.{service}/{name}" for name in methods} == set(permissions)


@pytest.mark.parametrize(("method", "role"), WRONG)
def test_a_wrong_role_is_refused(village: Village, method: str, role: Role) -> None:
    service, call = method.split("/")[1:]
    name = "dealer" if service.endswith("Dealer") else "party-a"
    credentials = village.credentials(role.value, "somebody")
    refused = pytest.raises(IdentityError, match="may not call")
    with village.channel(name, credentials) as channel, refused:
        _call(channel, method, call)


def _call(channel: grpc.Channel, method: str, call: str) -> None:
    with translating("it"):
        if call in STREAMS:
            channel.stream_unary(method, None, None)(iter([b""]), timeout=CALL)
        else:
            list(channel.unary_stream(method, None, None)(b"", timeout=CALL))


# -- material ------------------------------------------------------------------------------------


def correlations(village: Village, job: BoundJob, party: str, **changes: Any) -> Iterator[Any]:
    """The dealer's stream, asked for with the certificate of `party`."""
    fields: dict[str, Any] = {
        "job_id": job.job_id,
        "attempt": job.attempt,
        "job_digest": job.digest(),
        "program_digest": compile_handmade(job).digest,
    } | changes
    credentials = (
        village.stolen(party) if party in village.services else village.credentials("party", party)
    )
    with village.channel("dealer", credentials) as channel, translating("dealer"):
        request = dealer_pb2.CorrelationsRequest(**fields)
        yield from DealerStub(channel).Correlations(request, timeout=CALL)


def test_material_is_for_the_parties_of_the_job_and_given_out_once(village: Village) -> None:
    job = a_job(village)
    village.prepare_dealer(job)
    with pytest.raises(IdentityError, match="'party-x' has no part"):
        next(correlations(village, job, "party-x"))
    village.prepare_party("party-a", job)
    other = next(correlations(village, job, "party-b"))
    assert len(other.seed) == 32
    with pytest.raises(MasqueError, match=r"already|over") as raised:
        list(correlations(village, job, "party-a"))
    assert isinstance(raised.value, Conflict | JobFailed)


def test_a_party_that_asks_and_leaves_takes_no_thread_of_the_dealer(village: Village) -> None:
    """It may ask before a job is announced, and the dealer waits: not for one who is gone."""
    job, threads = a_job(village), DealerLimits().jobs * 8 + 8
    request = dealer_pb2.CorrelationsRequest(job_id=job.job_id, attempt=1)
    with village.channel("dealer", village.stolen("party-a")) as channel:
        calls: list[Any] = [
            DealerStub(channel).Correlations(request, timeout=1.0) for _ in range(threads + 20)
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError):
                next(call)
    with village.dealer() as stub:
        stub.Describe(dealer_pb2.DescribeDealerRequest(), timeout=20.0)


@pytest.mark.parametrize("what", ["job", "program"])
def test_another_digest_is_refused_and_named_everywhere(village: Village, what: str) -> None:
    job = a_job(village)
    village.prepare_dealer(job)
    village.prepare_party("party-a", job)
    with pytest.raises(Refused, match=f"digest of the {what} differs"):
        next(correlations(village, job, "party-b", **{f"{what}_digest": bytes(32)}))
    with pytest.raises(JobFailed, match=f"digest of the {what} differs") as raised:
        village.run_at("party-a", job, 0)
    assert raised.value.where["service"] == "party-b"
    assert_usable(village)


def test_no_service_leaves_its_memory_in_a_core_file(village: Village) -> None:
    for service in village.services.values():
        assert service.process is not None
        limits = Path(f"/proc/{service.process.pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"]


# -- frames --------------------------------------------------------------------------------------


FALSE_FRAMES = {
    "0 bytes": b"",
    "magic": bytes(range(64)),
    "kind": GREETING,
    "size": frame(0, bytes(8)),
    "position": frame(7, bytes(40 * 4 * 8)),
    "trailing": frame(0, bytes(40 * 4 * 8)) + b"x",
    "missing": frame(0, bytes(40 * 4 * 8))[:-1],
}
"""What the error says, and the frame: party a expects 40 x 4 masked words in swap 0."""


@pytest.fixture
def impostor(village: Village) -> Iterator[Hub]:
    """Party b, played by the test with its true certificate, at its true address."""
    village.services["party-b"].stop()
    hub = Hub("party-b")
    address = village.services["party-b"].address
    register = [lambda server: mount_exchange(hub, server)]
    guard = {METHOD: {Role.PARTY}}
    with Server(village.stolen("party-b"), address, guard, register, grace=0.5):
        yield hub
    village.revive("party-b")


def test_frames_that_lie_end_the_job_and_name_the_liar(village: Village, impostor: Hub) -> None:
    for words, message in FALSE_FRAMES.items():
        job = a_job_at(village, ("party-a",))
        error = _lie(village, impostor, job, message)
        assert isinstance(error, JobFailed), error
        assert words in str(error) and error.where["service"] == "party-b"


def test_all_is_well_after_the_liar(village: Village) -> None:
    assert_usable(village)


def a_job_at(village: Village, parties: tuple[str, ...]) -> BoundJob:
    """A job whose data set only these parties hold."""
    matrix, info = patients()
    messages = upload_messages("patients", f"upload-{os.urandom(4).hex()}", info, matrix)
    for party in parties:
        with village.party(party, "client", "owner") as stub:
            stub.Upload(iter(messages), timeout=CALL)
    upload_id = messages[0].header.upload_id
    return village.bound([SharedTable(name="patients", upload=upload_id, info=info)])


def _lie(village: Village, hub: Hub, job: BoundJob, message: bytes) -> Any:
    """Prepare party a, open the streams both ways, send `message`; what party a then says."""
    village.prepare_dealer(job)
    village.prepare_party("party-a", job)
    peer = Identity(PROJECT, Role.PARTY, "party-a")
    address, own = village.services["party-a"].address, village.stolen("party-b")
    binding = Binding(job.job_id, 1, job.parties, 1, job.digest(), compile_handmade(job).digest)
    with ThreadPoolExecutor() as pool, open_peer_channel(address, peer, own) as channel:
        asked = pool.submit(village.run_at, "party-a", job, 0)
        material = pool.submit(list, correlations(village, job, "party-b"))
        exchange = PeerExchange(hub, binding, {"party-a": channel})
        exchange.open()
        exchange._links[0].send(message)
        error = asked.exception(timeout=15)
        exchange.close()
        material.exception(timeout=15)
    return error


# -- uploads -------------------------------------------------------------------------------------


def upload(village: Village, messages: list[Any], owner: str = "owner") -> Any:
    with village.party("party-a", "client", owner) as stub:
        return stub.Upload(iter(messages), timeout=CALL)


def listed(village: Village) -> dict[str, Any]:
    with village.party("party-a", "client", "owner") as stub:
        reply = stub.ListDatasets(party_pb2.ListDatasetsRequest(), timeout=CALL)
    return {dataset.name: dataset for dataset in reply.datasets}


def good(name: str, **changes: Any) -> list[Any]:
    matrix, info = patients()
    return upload_messages(name, "upload-1", info, matrix, **changes)


def test_an_upload_is_listed_for_clients_and_belongs_to_its_owner(village: Village) -> None:
    reply = upload(village, good("mine"))
    assert (reply.rows, reply.bytes) == (40, 40 * 4 * 8)
    mine = listed(village)["mine"]
    assert mine.owner == "owner" and mine.upload_id == "upload-1" and mine.created
    with pytest.raises(Conflict, match="'mine' exists already"):
        upload(village, good("mine", replace=False))
    with pytest.raises(Refused, match="somebody else"):
        upload(village, good("mine"), owner="thief")
    request = party_pb2.DeleteDatasetRequest(name="mine")
    refused = pytest.raises(Refused, match="somebody else")
    with refused, village.party("party-a", "client", "thief") as stub:
        stub.DeleteDataset(request, timeout=CALL)
    with village.party("party-a", "client", "owner") as stub:
        stub.DeleteDataset(request, timeout=CALL)
        with pytest.raises(grpc.RpcError):
            stub.DeleteDataset(request, timeout=CALL)
    assert "mine" not in listed(village)


def _without_header(messages: list[Any]) -> list[Any]:
    return messages[1:]


def _without_commit(messages: list[Any]) -> list[Any]:
    return messages[:-1]


def _without_a_chunk(messages: list[Any]) -> list[Any]:
    return [*messages[:2], *messages[3:]]


def _header_twice(messages: list[Any]) -> list[Any]:
    return [messages[0], *messages]


def _bad_checksum(messages: list[Any]) -> list[Any]:
    messages[1].chunk.checksum ^= 1
    return messages


def _bad_table(messages: list[Any]) -> list[Any]:
    messages[0].header.table_json = messages[0].header.table_json.replace("age", "aged")
    return messages


def _bad_name(messages: list[Any]) -> list[Any]:
    messages[0].header.name = "../broken"
    return messages


def _identifiers(messages: list[Any]) -> list[Any]:
    messages[0].header.identifiers.extend([1, 2, 3, 4])
    return messages


def _nothing(messages: list[Any]) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (_without_header, "begins with its header"),
        (_without_commit, "before its commit"),
        (_without_a_chunk, "row 16 is due"),
        (_header_twice, "no part of an upload"),
        (_bad_checksum, "checksum"),
        (_bad_table, "schema_digest"),
        (_bad_name, "cannot be the name"),
        (_identifiers, "identifier"),
        (_nothing, "begins with its header"),
    ],
)
def test_a_broken_upload_leaves_nothing(
    village: Village, breaks: Callable[[list[Any]], list[Any]], words: str
) -> None:
    shares = village.services["party-a"].directory / "data" / "shares"
    before = sorted(path.name for path in shares.iterdir())
    with pytest.raises(MasqueError, match=words):
        upload(village, breaks(good("broken")))
    assert "broken" not in listed(village)
    assert sorted(path.name for path in shares.iterdir()) == before
    assert "broken" not in listed(village)


def test_an_upload_that_is_cut_leaves_nothing(village: Village) -> None:
    shares = village.services["party-a"].directory / "data" / "shares"
    before = sorted(path.name for path in shares.iterdir())

    def cut() -> Iterator[Any]:
        yield from good("cut")[:3]
        raise RuntimeError("the owner's machine is gone")

    credentials = village.credentials("client", "owner")
    with village.channel("party-a", credentials) as channel, pytest.raises(grpc.RpcError):
        PartyStub(channel).Upload(cut(), timeout=CALL)
    for _ in range(50):
        if sorted(path.name for path in shares.iterdir()) == before:
            break
        time.sleep(0.1)
    assert sorted(path.name for path in shares.iterdir()) == before
    assert "cut" not in listed(village)


# -- nothing secret ------------------------------------------------------------------------------


def test_nothing_secret_is_in_any_log(village: Village) -> None:
    matrix, info = patients(seed=5)
    shares = sharing.split(matrix, 2, os.urandom)
    for party, share in zip(village.names, shares, strict=True):
        with village.party(party, "client", "owner") as stub:
            messages = upload_messages("secret", "upload-9", info, share)
            stub.Upload(iter(messages), timeout=CALL)
    table = SharedTable(name="secret", upload="upload-9", info=info)
    job = village.bound([table], training__epochs=3)
    village.run(job)
    result = village.result(job, "gram")
    words = [*shares[0].ravel()[:64], *shares[1].ravel()[:64], *result.ravel(), *matrix.ravel()]
    for service in village.services.values():
        log = service.log()
        assert '"job computed"' in log or '"job dealt"' in log
        for word in {int(word) for word in words if word > 2**40}:
            raw = word.to_bytes(8, "little")
            assert str(word) not in log and raw.hex() not in log
            assert base64.b64encode(raw).decode()[:10] not in log
        assert "incident" not in log


def test_an_unknown_job_is_unknown(village: Village) -> None:
    job = a_job(village)
    with pytest.raises(NotFound):
        village.fetch("party-a", job)
    with pytest.raises(ProtocolError):
        village.prepare_party("party-a", _Bytes())  # type: ignore[arg-type]


class _Bytes:
    """Something that is no job."""

    def canonical(self) -> bytes:
        return b'{"format": "masque job 5"}'


def test_a_result_is_what_the_parties_hold(village: Village) -> None:
    job = a_job(village)
    village.run(job)
    first = village.fetch("party-a", job)
    assert first == village.fetch("party-a", job)  # as often as needed, the same bytes
    assert set(first) == {("gram", "analyst")}
    assert np.any(village.result(job, "gram"))
