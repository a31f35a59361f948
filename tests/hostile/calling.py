"""Every call of the services with damaged messages, and what may be answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from masque.v1 import coordinator_pb2, dealer_pb2, host_pb2, party_pb2, trust_pb2
from masque.wire import host, publishing
from masque.wire.authorise import Permissions
from masque.wire.binding import Binding
from masque.wire.failures import ERROR_KEY, STATUS
from masque.wire.identity import ROLES, Role
from masque.wire.server import HEALTH_CHECK, HEALTH_WATCH
from services.coordinator.service import PERMISSIONS as COORDINATOR
from services.dealer.service import PERMISSIONS as DEALER
from services.party.service import PERMISSIONS as PARTY
from tests.hostile.mutation import EXTREMES, VALUES, mutants
from tests.hostile.planted import SECRET, Planted

WAITS: Mapping[str, str] = {
    HEALTH_WATCH: "tells of every change until its caller leaves",
    "/masque.v1.Dealer/Correlations": "a party may ask before the job is announced",
    "/masque.v1.Party/Exchange": "is open until the other end of the exchange has come and gone",
}
"""The only methods that may be without an answer after `Caller.brief` seconds, and why."""

REPLIES = 20
HIDDEN = frozenset({"share"})
"""Fields of requests that hold shares: what a service is sent in them, it never repeats."""

KNOWN = {
    *STATUS.values(),
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.CANCELLED,  # by us
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
HEALTH: Permissions = {HEALTH_CHECK: ROLES, HEALTH_WATCH: {Role.COORDINATOR}}

Random = np.random.Generator
Words = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A method of a running service, and what a good request of it may look like."""

    role: str
    method: MethodDescriptor = field(repr=False)
    samples: list[bytes] = field(repr=False)

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def callers(self) -> list[Role]:
        """The roles that may call it."""
        own = {**DEALER, **PARTY, **COORDINATOR, **publishing.PERMISSIONS, **HEALTH}
        return sorted({**own, **host.permissions(Role(self.role))}.get(self.path, ()))

    @property
    def kind(self) -> str:
        """The name of a channel's function that calls it."""
        return ("stream" if self.method.client_streaming else "unary") + (
            "_stream" if self.method.server_streaming else "_unary"
        )


@dataclass(frozen=True)
class Answer:
    """How a call ended, and every text that came with it."""

    code: grpc.StatusCode
    details: str = ""
    texts: str = field(default="", repr=False)


def targets(words: Words) -> list[Target]:
    """Every method of every service; `words` are values of fields that have them by name."""
    random = np.random.default_rng(3)
    return [
        Target(role, method, [_filled(method.input_type, words, random) for _ in range(4)])
        for role, own in SERVED.items()
        for service in (*own, *EVERYWHERE)
        for method in service.methods
    ]


# -- messages -----------------------------------------------------------------------------------


def _filled(kind: Any, words: Words, random: Random) -> bytes:
    """A message with a plausible value in every field."""
    return bytes(_message(kind, words, random).SerializeToString())


def _message(kind: Any, words: Words, random: Random) -> Any:
    message = GetMessageClass(kind)()
    for each in kind.fields:
        if each.containing_oneof is not None and random.random() < 0.5:
            continue
        value = _value(each, words, random)
        if each.is_repeated:
            getattr(message, each.name).extend([value] * 2)
        elif each.message_type is not None:
            getattr(message, each.name).CopyFrom(value)
        else:
            setattr(message, each.name, value)
    return message


def _value(each: Any, words: Words, random: Random) -> Any:
    if each.message_type is not None:
        return _message(each.message_type, words, random)
    if each.name in HIDDEN:
        return SECRET
    if each.name in words:
        return words[each.name]
    if each.type == FieldDescriptor.TYPE_BYTES:
        return random.bytes(32)
    if each.type == FieldDescriptor.TYPE_STRING:
        return str(random.choice(["analyst", "left", "party-1", ""]))
    if each.type == FieldDescriptor.TYPE_BOOL:
        return bool(random.random() < 0.5)
    return int(random.choice([0, 1, 2, 1000]))


def hostile(kind: Any, sample: bytes, random: Random) -> bytes:
    """The message `sample` with up to three wrong values; any service can read it as one."""
    message = GetMessageClass(kind).FromString(sample)
    for _ in range(int(random.integers(1, 4))):
        _spoil(message, random)
    return bytes(message.SerializeToString())


def _spoil(message: Any, random: Random) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    each = fields[int(random.integers(len(fields)))]
    if each.message_type is not None:
        parts = getattr(message, each.name)
        if each.message_type.GetOptions().map_entry:
            parts.clear()
        elif not each.is_repeated:
            parts.SetInParent()
            _spoil(parts, random)
        elif len(parts) and random.random() < 0.7:
            _spoil(parts[int(random.integers(len(parts)))], random)
        else:
            parts.extend([each.message_type._concrete_class()] * int(random.choice([1, 500])))
    elif each.is_repeated:
        values = getattr(message, each.name)
        values.extend([_wrong(each, None, random)] * int(random.choice([1, 2, 500])))
    else:
        setattr(message, each.name, _wrong(each, getattr(message, each.name), random))


def _wrong(each: Any, value: Any, random: Random) -> Any:
    if each.type == FieldDescriptor.TYPE_BOOL:
        return not value
    if each.type == FieldDescriptor.TYPE_BYTES:
        return _damaged(value or b"", random)
    if each.type == FieldDescriptor.TYPE_STRING:
        if value and random.random() < 0.7:
            return _damaged(value.encode(), random).decode("utf-8", "replace")
        found = VALUES[int(random.integers(len(VALUES)))]
        return str(found).encode("utf-8", "replace").decode()
    if each.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return float(random.choice([0.0, -1.0, 1e308, np.nan, np.inf]))
    bits = 31 if each.cpp_type in _NARROW else 63
    return EXTREMES[int(random.integers(len(EXTREMES)))] % (1 << bits)


_NARROW = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_ENUM,
}


def _damaged(value: bytes, random: Random) -> bytes:
    return next(mutants([value], random, 1))


# -- calls --------------------------------------------------------------------------------------


@dataclass
class Caller:
    """Calls services in the name of every role; `channels` by role of the service and of us."""

    channels: Mapping[tuple[str, Role], grpc.Channel] = field(repr=False)
    secrets: Planted = field(repr=False)
    patience: float = 30.0
    brief: float = 0.5
    """Seconds for an answer of a method that may not wait, and of one that may."""

    def attack(self, target: Target, seed: int) -> tuple[str, grpc.StatusCode]:
        """One call; what was answered. Raises AssertionError for what no service may say."""
        random = np.random.default_rng(seed)
        who = list(Role)[int(random.integers(len(Role)))]
        if target.callers and random.random() < 0.8:
            who = target.callers[int(random.integers(len(target.callers)))]
        raw = [self._request(target, random) for _ in range(int(random.integers(1, 4)))]
        if random.random() < 0.3:
            raw = [target.samples[0], *raw]
        answer = self._call(target, who, raw, _claim(random))
        self.judge(target, answer, f"{who} for {raw} (seed {seed})")
        return target.path, answer.code

    def judge(self, target: Target, answer: Answer, asked: str) -> None:
        """AssertionError for an answer that no service may give, or that shows a secret."""
        code, details = answer.code, answer.details
        told = f"{target.path} of {asked}: {code} {details}"
        assert not self.secrets.shown(answer.texts), f"it tells a secret: {told}"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            assert target.path in WAITS, f"no answer: {told}"
            return
        assert code in KNOWN, told
        assert "RST_STREAM" not in details, f"calls that never ended fill the channel: {told}"
        assert "incident" not in details, told

    @staticmethod
    def _request(target: Target, random: Random) -> bytes:
        if random.random() < 0.3:
            return next(mutants(target.samples, random, 1))
        sample = target.samples[int(random.integers(len(target.samples)))]
        return hostile(target.method.input_type, sample, random)

    def _call(self, target: Target, who: Role, raw: list[bytes], metadata: Any) -> Answer:
        stub = getattr(self.channels[target.role, who], target.kind)(target.path, bytes, bytes)
        request: Any = iter(raw) if target.method.client_streaming else raw[-1]
        seconds = self.brief if target.path in WAITS else self.patience
        found: list[bytes] = []
        try:
            reply = stub(request, timeout=seconds, metadata=metadata)
            if target.method.server_streaming:
                found += [part for part, _ in zip(reply, range(REPLIES), strict=False)]
                reply.cancel()
            else:
                found.append(reply)
        except grpc.RpcError as error:
            return _failed(error)
        return Answer(grpc.StatusCode.OK, "", "".join(map(_texts(target), found)))


def _failed(error: Any) -> Answer:
    details = str(error.details())
    packed = [value for key, value in error.trailing_metadata() or () if key == ERROR_KEY]
    texts = [details, *(value.decode("latin-1") for value in packed)]
    return Answer(error.code(), details, "\n".join(texts))


def _texts(target: Target) -> Callable[[bytes], str]:
    """A reply as text, whose bytes are escaped, and as it is."""
    reply = GetMessageClass(target.method.output_type)

    def texts(raw: bytes) -> str:
        try:
            return f"{reply.FromString(raw)}\n{raw.decode('latin-1')}"
        except DecodeError:
            return raw.decode("latin-1")

    return texts


def _claim(random: Random) -> list[tuple[str, str]]:
    """Metadata of an exchange, mostly wrong somewhere."""
    found = dict(Binding("j", 1, ("party-1", "party-2"), 1, bytes(32), bytes(32)).claim("party-1"))
    for key in list(found):
        if random.random() < 0.1:
            raw = _damaged(found[key].encode(), random)
            found[key] = re.sub(r"[^ -~]", "?", raw.decode("latin-1"))
    if random.random() < 0.2:
        found["traceparent"] = "00-" + random.bytes(20).hex()
    return list(found.items())
