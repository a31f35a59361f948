"""Every call of every running service, given damaged messages by callers of every role.

Real processes, real TLS. The answer must be one that the catalogue knows, nothing an accident
of the service, and afterwards all of them are small and healthy, and train a model.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from masque.client import jobs, opening
from masque.v1 import coordinator_pb2, dealer_pb2, host_pb2, party_pb2, trust_pb2
from masque.wire.authority import Authority, open_authority
from masque.wire.binding import Binding
from masque.wire.failures import STATUS
from masque.wire.identity import Identity, Role
from masque.wire.tls import Credentials, find_credentials, open_channel
from tests.client.networks import JOB, Running, running
from tests.hostile.mutation import mutants

CALLS = int(os.environ.get("FUZZ", "100000")) // 50
PATIENCE = 1.0
"""Seconds of a call: some of them wait for what will never come."""

REPLIES = 20
GROWTH = 200 << 20
"""Bytes that a service may have more in the end."""

KNOWN = {
    *STATUS.values(),
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.CANCELLED,  # by us
    grpc.StatusCode.DEADLINE_EXCEEDED,  # ours
}
"""What may be answered."""

SERVED = {
    "dealer": [dealer_pb2.DESCRIPTOR.services_by_name["Dealer"]],
    "party": [party_pb2.DESCRIPTOR.services_by_name["Party"]],
    "coordinator": [coordinator_pb2.DESCRIPTOR.services_by_name["Coordinator"]],
}
EVERYWHERE = [
    host_pb2.DESCRIPTOR.services_by_name["Host"],
    trust_pb2.DESCRIPTOR.services_by_name["Trust"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
]
ADDRESSES = {"dealer": "dealer", "party": "party-1", "coordinator": "coordinator"}


@dataclass(frozen=True)
class Target:
    """A method of a running service, and what a good request of it may look like."""

    role: str
    method: MethodDescriptor
    samples: list[bytes]

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("calls")) as made:
        yield made


def targets(words: dict[str, Any]) -> list[Target]:
    random = np.random.default_rng(3)
    return [
        Target(role, method, [_filled(method.input_type, words, random) for _ in range(4)])
        for role, own in SERVED.items()
        for service in (*own, *EVERYWHERE)
        for method in service.methods
    ]


def _filled(kind: Any, words: dict[str, Any], random: np.random.Generator) -> bytes:
    """A message with a plausible value in every field."""
    return bytes(_message(kind, words, random).SerializeToString())


def _message(kind: Any, words: dict[str, Any], random: np.random.Generator) -> Any:
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if field.containing_oneof is not None and random.random() < 0.5:
            continue
        value = _value(field, words, random)
        if field.is_repeated:
            getattr(message, field.name).extend([value] * 2)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


def _value(field: Any, words: dict[str, Any], random: np.random.Generator) -> Any:
    if field.message_type is not None:
        return _message(field.message_type, words, random)
    if field.name in words:
        return words[field.name]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.bytes(32)
    if field.type == FieldDescriptor.TYPE_STRING:
        return str(random.choice(["analyst", "left", "party-1", ""]))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return bool(random.random() < 0.5)
    return int(random.choice([0, 1, 2, 1000]))


@dataclass
class Caller:
    """Channels of every role to every service."""

    net: Running
    authority: Authority

    def __post_init__(self) -> None:
        names = {"client": "mallory", "party": "party-2"}
        self.people = {role: self._issue(role, names.get(role.value, role.value)) for role in Role}
        addresses = {party.name: party.address for party in self.net.services.profile.parties}
        profile = self.net.services.profile
        described = self.net.services.coordinator.calling()
        with described as stub:
            addresses["dealer"] = stub.Describe(
                coordinator_pb2.DescribeCoordinatorRequest(), timeout=30.0
            ).dealer.address
        addresses["coordinator"] = profile.coordinator.address
        self.channels = {
            (role, who): open_channel(
                addresses[name], Identity("local", Role(role), name), self.people[who]
            )
            for role, name in ADDRESSES.items()
            for who in Role
        }

    def _issue(self, role: Role, name: str) -> Credentials:
        identity = Identity("local", role, name)
        directory = self.net.files / "people"
        self.authority.issue(identity, directory)
        return find_credentials(directory, identity.stem)

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()

    def attack(self, target: Target, seed: int) -> tuple[str, grpc.StatusCode]:
        """One call; what was answered. Raises AssertionError for what no service may say."""
        random = np.random.default_rng(seed)
        who = list(Role)[int(random.integers(len(Role)))]
        if random.random() < 0.5:  # mostly by one who may
            who = {"party": Role.COORDINATOR, "dealer": Role.PARTY}.get(target.role, Role.CLIENT)
        raw = list(mutants(target.samples, random, int(random.integers(1, 4))))
        if random.random() < 0.3:
            raw = [target.samples[0], *raw]
        code, details = self._call(target, who, raw, _claim(random))
        assert code in KNOWN, f"{target.path} of {who}: {code} {details} for {raw}"
        assert "RST_STREAM" not in details, (
            f"{target.path}: calls that never ended fill the channel"
        )
        assert "incident" not in details, f"{target.path} of {who}: {details} for {raw}"
        return target.path, code

    def _call(
        self, target: Target, who: Role, raw: list[bytes], metadata: Any
    ) -> tuple[grpc.StatusCode, str]:
        channel, method = self.channels[target.role, who], target.method
        kind = ("stream" if method.client_streaming else "unary") + (
            "_stream" if method.server_streaming else "_unary"
        )
        stub = getattr(channel, kind)(target.path, bytes, bytes)
        request: Any = iter(raw) if method.client_streaming else raw[-1]
        try:
            reply = stub(request, timeout=PATIENCE, metadata=metadata)
            if method.server_streaming:
                for _, _ in zip(range(REPLIES), reply, strict=False):
                    pass
                reply.cancel()
        except grpc.RpcError as error:
            found: Any = error
            return found.code(), str(found.details())
        return grpc.StatusCode.OK, ""


def _claim(random: np.random.Generator) -> list[tuple[str, str]]:
    """Metadata of an exchange, mostly wrong somewhere."""
    found = dict(Binding("j", 1, ("party-1", "party-2"), 1, bytes(32), bytes(32)).claim("party-1"))
    for key in list(found):
        if random.random() < 0.1:
            (raw,) = mutants([found[key].encode()], random, 1)
            found[key] = re.sub(r"[^ -~]", "?", raw.decode("latin-1"))
    if random.random() < 0.2:
        found["traceparent"] = "00-" + random.bytes(20).hex()
    return list(found.items())


def test_no_call_breaks_a_service(net: Running) -> None:
    done = net.submit()
    jobs.finished(net.services, done)
    bound = opening.fetch(net.services, done).bound
    words = {
        "job_id": done,
        "attempt": 1,
        "bound_job": bound.model_copy(update={"coordinator": "nobody"}).canonical(),
        "submission": bound.submission,
        "job_digest": bound.digest(),
        "spec_yaml": JOB.replace("EPOCHS", "2").replace("left", "lost"),
        "table_json": bound.tables[0].info.model_dump_json(),
    }
    chosen = targets(words)
    places = {place.name: psutil.Process(net.pid(place.name)) for place in net.network.places}
    before = {name: process.memory_info().rss for name, process in places.items()}
    caller = Caller(net, open_authority(net.network.home / "authority"))
    try:
        with ThreadPoolExecutor(8) as pool:
            order = [chosen[k % len(chosen)] for k in range(CALLS)]
            answers = Counter(pool.map(caller.attack, order, range(CALLS)))
    finally:
        caller.close()
    assert {path for path, _ in answers} == {target.path for target in chosen}
    assert len({code for _, code in answers}) > 5, answers
    for name, process in places.items():
        grown = process.memory_info().rss - before[name]
        assert grown < GROWTH, f"{name} has {grown} bytes more"
        assert process.is_running()
        log = next(p.log for p in net.network.places if p.name == name).read_text()
        assert '"incident"' not in log, f"{name} had an accident: {_around(log)}"
    assert jobs.finished(net.services, net.submit()).state == "succeeded"


def _around(log: str) -> str:
    at = log.index('"incident"')
    return log[max(0, at - 3000) : at + 3000]


def test_services_still_answer_after_it(net: Running) -> None:
    """The dealer as well."""
    everybody = net.services.everybody
    assert {peer.name for peer in everybody} == {place.name for place in net.network.places}
    assert all(peer.check(patience=10.0) for peer in everybody)
