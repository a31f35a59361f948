"""Everything that reads bytes from a peer, a client, a file or a disk, and valid samples of it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization

from masque.client import opening
from masque.data.chunks import checksum
from masque.data.store import Store
from masque.errors import IdentityError
from masque.jobs import bound, conditions, document, policy, record, spec, starting
from masque.jobs.submission import submission_of
from masque.mpc import packing
from masque.v1 import coordinator_pb2, dealer_pb2, party_pb2
from masque.wire import (
    certificates,
    failures,
    material,
    outputs,
    submissions,
    tracing,
)
from masque.wire import conditions as signed
from masque.wire.binding import KEYS, Binding, read_claim
from masque.wire.frames import CHUNK, GREETING, Assembly, check_greeting, frame
from masque.wire.identity import parse_identity
from masque.wire.recipients import create_recipient, load_recipient_key, parse_recipient
from masque.wire.requests import make_request, read_request
from masque.wire.revocation import read_lists
from masque.wire.sealing import seal, unseal
from masque.wire.withdrawing import find, revoke
from services.coordinator.peers import _items
from services.party.uploads import take_in
from tests.hostile import disks, files, replies, stores
from tests.hostile.decoder import Decode, Decoder, of_file, of_message
from tests.hostile.planted import SECRET
from tests.jobs import examples
from tests.jobs.test_starting import of_job, started
from tests.services.submitted import submitted
from tests.wire.conftest import Project

WORDS = np.frombuffer(SECRET * 8, "<u8").astype(np.uint64)


def decoders(trusted: Project, folder: Path, store: Store) -> list[Decoder]:
    """All of them, with certificates of `trusted`, files in `folder`, uploads to `store`."""
    found: list[Decoder] = []
    for make in (_wire, _identities, _sealed, _jobs):
        found += make(trusted, folder)
    found += files.decoders(trusted, folder)
    found += [Decoder(*parts) for parts in stores.decoders(folder)]
    found += _services(trusted, store)
    found += replies.decoders(trusted, folder)
    return [*found, *disks.decoders(trusted, folder)]


def _wire(trusted: Project, folder: Path) -> Iterator[Decoder]:
    long = SECRET * (CHUNK // 32) + SECRET

    def whole(raw: bytes) -> object:
        part = Assembly("ben", 3, len(SECRET))
        part.add(raw)
        return part.payload()

    def chunk(raw: bytes) -> None:
        part = Assembly("ben", 3, len(long))
        part.add(frame(3, long))
        part.add(raw)

    def claim(raw: bytes) -> object:
        pairs = (line.partition("=") for line in raw.decode("latin-1").split("\n"))
        return read_claim([(key, value) for key, _, value in pairs])

    def materials(raw: bytes) -> object:
        unpacker = material.Unpacker("dealer 'd'")
        unpacker.seed(material.seed_message(SECRET))
        return unpacker.items(dealer_pb2.Material.FromString(raw))

    binding = Binding("job", 1, ("ann", "ben"), 0, bytes(32), SECRET)
    claimed = "\n".join(f"{key}={value}" for key, value in binding.claim("ben"))
    assert claimed.count("=") == len(KEYS)
    dealt = [m.SerializeToString() for m in material.pack([(0, SECRET), (4, SECRET * 2)], 40)]
    error = IdentityError("The certificate expired.", hint="Renew it.", role="party", swap=3)
    yield Decoder("frame", whole, [frame(3, SECRET)], 20_000)
    yield Decoder("chunked frame", chunk, [frame(3, long, 1)], 500)
    packed = bytes(packing.pack(WORDS[:10], 10, 13))
    yield Decoder("packed values", lambda raw: packing.unpack(raw, 10, 13), [packed])
    yield Decoder("greeting", lambda raw: check_greeting(raw, "ben"), [GREETING], 5000)
    yield Decoder("claim", claim, [claimed.encode()], 8000)
    yield Decoder("material", materials, dealt, 10_000, dealer_pb2.Material.DESCRIPTOR)
    yield Decoder("error", failures.unpack, [failures.pack(error)], 10_000)
    yield Decoder("output", lambda raw: outputs.decode_output(raw, "ann"), [_output()], 10_000)
    yield Decoder(
        "trace",
        lambda raw: tracing.parse(raw.decode("latin-1")),
        [str(tracing.fresh()).encode()],
        3000,
    )
    yield Decoder(
        "identity",
        lambda raw: parse_identity(raw.decode("latin-1")),
        [b"masque://demo/party/ann"],
        3000,
    )


def _output() -> bytes:
    return outputs.encode_output(WORDS[:12].reshape(3, 4), 24)


def _identities(trusted: Project, folder: Path) -> Iterator[Decoder]:
    own = trusted.credentials("party", "ann")
    trust = trusted.authority.trust
    der = own.certificate.public_bytes(serialization.Encoding.DER)
    trusted.credentials("party", "gone")
    lists = revoke(trusted.authority, find(trusted.authority, "gone.party"))
    csr, _ = make_request(folder / "asking", own.identity, ["localhost"])
    recipient = create_recipient(folder / "recipients", own)
    proof = recipient.recipient.text.encode()

    def verified(raw: bytes) -> object:
        return certificates.verify(certificates.read_der(raw), trust)

    def described(raw: bytes) -> object:
        return certificates.describe(certificates.read_der(raw))

    def claimed(raw: bytes) -> object:
        return certificates.certificate_identity(certificates.read_der(raw))

    def inside(kind: str, read: Decode, sample: bytes) -> Decoder:
        """`read`, of a PEM block whose content is damaged and whose wrapping is not."""
        form = f"-----BEGIN {kind}-----\n%s-----END {kind}-----\n".encode()
        content = base64.b64decode(b"".join(sample.splitlines()[1:-1]))
        return Decoder(
            f"{kind} inside", lambda raw: read(form % base64.encodebytes(raw)), [content]
        )

    read_crl: Decode = lambda raw: read_lists(raw, trust.authorities, "it")  # noqa: E731
    read_csr: Decode = lambda raw: read_request(raw, "it")  # noqa: E731
    yield inside("X509 CRL", read_crl, lists)
    yield inside("CERTIFICATE REQUEST", read_csr, csr.read_bytes())
    yield inside("CERTIFICATE", certificates.load_authorities, trust.pem)
    yield Decoder("certificate", verified, [der], 2000)
    yield Decoder("facts", described, [der], 2000)
    yield Decoder("claimed identity", claimed, [der])
    yield Decoder("certificate file", certificates.load_certificate, [own.certificate_pem])
    yield Decoder("authorities", certificates.load_authorities, [trust.pem], 1500)
    yield Decoder("revocation list", read_crl, [lists])
    yield Decoder("request", read_csr, [csr.read_bytes()], 1500)
    yield Decoder("recipient", lambda raw: parse_recipient(raw.decode("latin-1"), trust), [proof])


def _sealed(trusted: Project, folder: Path) -> Iterator[Decoder]:
    sender, trust = trusted.credentials("party", "ann"), trusted.authority.trust
    create_recipient(folder / "people", trusted.credentials("client", "analyst"))
    key = load_recipient_key(folder / "people", "analyst", trust)
    sealed = seal(_output(), key.recipient, context=b"here", sender=sender)

    def opened(raw: bytes) -> object:
        return unseal(raw, key, context=b"here", sender=sender.identity, trust=trust)

    yield Decoder("sealed share", opened, [sealed], 1500)

    def believed(raw: bytes) -> object:
        signed.believe(raw.decode("latin-1"), trust, then=True)
        return signed.believe(raw.decode("latin-1"), trust)

    yield Decoder("signed conditions", believed, [_conditions(trusted)], 2000)
    job = submitted(examples.bound(), trusted.credentials("client", "analyst"))
    due = submission_of(job, trusted.authority.project)

    def accepted(raw: bytes) -> object:
        return submissions.believe_submission(raw.decode("latin-1"), due, trust, now=True)

    yield Decoder("submission", accepted, [job.submission.encode()], 2000)


def _conditions(trusted: Project) -> bytes:
    """Of the upload in `_services`."""
    return signed.attach(
        conditions.parse("clients: [analyst]"),
        trusted.credentials("client", "analyst"),
        dataset="t",
        upload="u",
        info=examples.table("t", 4, label=None).info,
        parties=["party-a", "party-b"],
    ).encode()


def _jobs(trusted: Project, folder: Path) -> Iterator[Decoder]:
    text = examples.MINIMAL.encode()
    last = {"kind": "dense", "units": 1}
    network_job = examples.job(
        model={
            "kind": "sequential",
            "input_shape": [2],
            "layers": [{"kind": "dense", "units": 3}, {"kind": "relu"}, last],
        },
    )
    private = examples.job(
        privacy={"epsilon": 1.0, "delta": 1e-6},
        data__standardize=...,
        reveal=...,
        training__optimizer__momentum=...,
        training__optimizer__learning_rate=0.01,
    )
    going_on = started().at_attempt(3, bound.Resume(attempt=1, round=2))
    jobs = [
        examples.bound().canonical(),
        examples.bound(network_job).canonical(),
        examples.bound(private).canonical(),
        started().canonical(),
        going_on.canonical(),
    ]
    progress = record.Progress("job-1", 1, "training", "epoch 1", 2, 9, 0.5).to_json().encode()
    allowed = (
        b"clients: [analyst]\nmodels: [logistic_regression]\noutputs: [sealed]\nminimum_rows: 20\n"
    )
    yield Decoder("bound job", lambda raw: bound.read_bound(raw, "it"), jobs, 3000)
    model = of_job().info.model
    assert model is not None, "it is one"
    whole = [model.architecture.encode()]

    def compared(raw: bytes) -> object:
        return starting._layers_differ(raw.decode("latin-1"), whole[0].decode())

    yield Decoder("layers", compared, whole)
    yield of_file("job file", spec.load, folder / "job.yaml", [text], 300)
    yield of_file("policy", policy.load, folder / "policy.yaml", [allowed], 500)
    rules = b"expires: 2999-12-31\nmaximum_epsilon: 1\napproval: {by: [ann], outputs: [open]}\n"
    yield of_file("conditions", conditions.load, folder / "conditions.yaml", [rules], 500)
    yield of_file("document", document.read, folder / "document.yaml", [text, allowed], 500)
    yield Decoder("progress", lambda raw: record.read_progress(raw, "it"), [progress], 6000)


def _services(trusted: Project, store: Store) -> Iterator[Decoder]:
    info, trust = examples.table("t", 4, label=None).info, trusted.authority.trust
    header = party_pb2.UploadHeader(
        name="t", upload_id="u", table_json=info.model_dump_json(), replace=True
    )
    chunk = party_pb2.UploadChunk(rows=4, share=SECRET * 2, checksum=checksum(SECRET * 2))
    body = [party_pb2.UploadMessage(chunk=chunk), party_pb2.UploadMessage(commit=True)]

    def sample(conditions: str) -> bytes:
        header.conditions = conditions
        parts = [party_pb2.UploadMessage(header=header), *body]
        return b"".join(p.ByteSize().to_bytes(2, "big") + p.SerializeToString() for p in parts)

    def messages(raw: bytes) -> Iterator[party_pb2.UploadMessage]:
        while raw:
            size = 2 + int.from_bytes(raw[:2], "big")
            yield party_pb2.UploadMessage.FromString(raw[2:size])
            raw = raw[size:]

    def upload(raw: bytes) -> object:
        return take_in(messages(raw), store, "analyst", "party-a", trust)

    def results(raw: bytes) -> object:
        chunk = party_pb2.SealedChunk.FromString(raw)
        return list(_items("party-a", iter([chunk, chunk])))

    def fetched(raw: bytes) -> object:
        chunk = coordinator_pb2.ResultChunk.FromString(raw)
        return opening.sealed_items([chunk] * 3, 200)

    def opened(raw: bytes) -> object:
        return opening.read_opened(party_pb2.OpenedValue.FromString(raw), "party-a")

    sealed = party_pb2.SealedChunk(output="weights", recipient="analyst", sealed=SECRET)
    told = coordinator_pb2.ResultChunk(party="a", output="weights", sealed=SECRET)
    value = party_pb2.OpenedValue(output="w", shape=[4], scale=24, values=SECRET)
    samples = [sample(""), sample(_conditions(trusted).decode())]
    yield Decoder("upload", upload, samples, 600)
    yield of_message("sealed items", results, sealed, 3000)
    yield of_message("result", fetched, told, 3000)
    yield of_message("opened value", opened, value, 5000)
