"""Everything that reads bytes from a peer, a client, a file or a disk, and valid samples of it."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from cryptography.hazmat.primitives import serialization

from masque.client import machine, opening, profile, project, reading
from masque.client.export import as_json, write
from masque.client.predictor import Predictor
from masque.data import encode, pages, readers, schema, table
from masque.data.chunks import checksum
from masque.data.kept import KeptModels
from masque.data.keys import StoreKey
from masque.data.store import Store
from masque.errors import IdentityError
from masque.jobs import bound, conditions, document, ledger, policy, record, spec
from masque.v1 import coordinator_pb2, dealer_pb2, party_pb2
from masque.wire import (
    certificates,
    failures,
    issued,
    ledgers,
    material,
    outputs,
    receipts,
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
from masque.wire.settings import load_settings
from masque.wire.withdrawing import find, revoke
from services.coordinator.peers import _items
from services.party.approvals import Approvals
from services.party.jobs import Memory
from services.party.results import Results
from services.party.settings import PartySettings
from services.party.uploads import take_in
from tests.client.projects import PROJECT as PROJECT_FILE
from tests.client.test_model import trained as linear
from tests.client.test_network_model import trained as network
from tests.data.files import GOOD, HEADER, PATIENTS
from tests.hostile import stores
from tests.jobs import examples
from tests.jobs.test_starting import of_job, started
from tests.services.test_settings import PARTY
from tests.wire.conftest import PROJECT, Project

SECRET = bytes(range(0xB0, 0xD0))
"""Stands in valid samples wherever a share, a mask or a seed would be."""

WORDS = np.frombuffer(SECRET * 8, "<u8").astype(np.uint64)

Decode = Callable[[bytes], object]


@dataclass(frozen=True)
class Decoder:
    """`decode` reads `samples`; of all inputs `share` in a hundred thousand are for it."""

    name: str
    decode: Decode = field(repr=False)
    samples: Sequence[bytes] = field(repr=False)
    share: int = 1000


def decoders(trusted: Project, folder: Path, store: Store) -> list[Decoder]:
    """All of them, with certificates of `trusted`, files in `folder`, uploads to `store`."""
    found: list[Decoder] = []
    for make in (_wire, _identities, _sealed, _jobs, _data, _models, _files, _books):
        found += make(trusted, folder)
    found += [Decoder(*parts) for parts in stores.decoders(folder)]
    return [*found, *_services(trusted, store)]


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
    yield Decoder("greeting", lambda raw: check_greeting(raw, "ben"), [GREETING], 5000)
    yield Decoder("claim", claim, [claimed.encode()], 8000)
    yield Decoder("material", materials, dealt, 10_000)
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
    yield _of_file("job file", spec.load, folder / "job.yaml", [text], 300)
    yield _of_file("policy", policy.load, folder / "policy.yaml", [allowed], 500)
    rules = b"expires: 2999-12-31\nmaximum_epsilon: 1\napproval: {by: [ann], outputs: [open]}\n"
    yield _of_file("conditions", conditions.load, folder / "conditions.yaml", [rules], 500)
    yield _of_file("document", document.read, folder / "document.yaml", [text, allowed], 500)
    yield Decoder("progress", lambda raw: record.read_progress(raw, "it"), [progress], 6000)


def _data(trusted: Project, folder: Path) -> Iterator[Decoder]:
    tables = [*examples.HOSPITALS, of_job()]
    described = [t.info.model_dump_json().encode() for t in tables]
    loaded = schema.loads(PATIENTS)
    csv = (HEADER + GOOD * 3).encode()
    columns = {name: ["1", "0"] for name in HEADER.strip().split(",")}
    columns |= {"smoker": ["yes", "no"], "ward": ["north", "01"]}
    parquet = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), parquet)

    def shared(raw: bytes) -> object:
        (folder / "table").write_bytes(raw)
        return encode.read_table(readers.open_table(folder / "table", loaded))

    yield Decoder("table", table.parse_table, described, 4000)
    yield _of_file("schema", schema.load, folder / "schema.yaml", [PATIENTS.encode()], 300)
    yield Decoder("csv", shared, [csv], 800)
    yield Decoder("parquet", shared, [parquet.getvalue()], 800)
    yield Decoder("page", _pages(folder), [_page(folder)], 3000)


def _page(folder: Path) -> bytes:
    path = folder / "pages"
    with path.open("wb") as file:
        writer = pages.PageWriter(file, StoreKey(SECRET).cipher("folder", "rows"))
        writer.write(SECRET * 4)
        writer.finish()
    return path.read_bytes()


def _pages(folder: Path) -> Decode:
    cipher = StoreKey(SECRET).cipher("folder", "rows")

    def decode(raw: bytes) -> object:
        path = folder / "pages"
        path.write_bytes(raw)
        with path.open("rb") as file:
            return pages.read_pages(file.fileno(), "patients", cipher, 8, 100)

    return decode


def _models(trusted: Project, folder: Path) -> Iterator[Decoder]:
    models: list[Predictor] = [linear("softmax_regression")[0], network("mlp", "classes")]
    for suffix, share in (("json", 800), ("npz", 800), ("safetensors", 800)):
        path = folder / f"model.{suffix}"
        samples = []
        for model in models:
            write(model, path)
            samples.append(path.read_bytes())
        if suffix == "json":
            samples = [json.dumps(as_json(model, {})).encode() for model in models]
        yield _of_file(f"model.{suffix}", reading.read, path, samples, share)


def _files(trusted: Project, folder: Path) -> Iterator[Decoder]:
    def remembered(path: Path) -> object:
        return Memory(path.parent).recall(path.stem)

    def published(path: Path) -> object:
        return results.opened(path.stem)

    def asked(path: Path) -> object:
        found = Approvals(path.parent, None, "ann")  # type: ignore[arg-type]
        found.forget(path.stem, "nobody")
        return [(case.missing, case.denied) for case in found.waiting("dr-weber")]

    own = trusted.credentials("party", "ann")
    waits = {
        "job_id": "j",
        "subject": "ab" * 32,
        "coordinator": "coordinator",
        "job": "{}",
        "asked": [["dr-weber", "ben"], ["ann"]],
        "said": {"ben": [True, ""], "dr-weber": [False, "why"]},
        "begun": False,
    }
    kept = KeptModels(folder / "results" / "kept", StoreKey(bytes(32)))
    results = Results(own, folder / "results", None, kept)  # type: ignore[arg-type]
    item = {"output": "w", "shape": [4], "scale": 24, "raw": "AAAA"}
    told = json.dumps({"job": "{}", "outputs": [item]}).encode()
    taken = {"coordinator": "coordinator", "attempt": 1, "subject": "ab" * 32}
    settings = json.dumps(PARTY).encode()
    whose = json.dumps(
        {
            "name": "analyst",
            "project": PROJECT,
            "tls": {"directory": "certificates"},
            "coordinator": {"name": "coordinator", "address": "127.0.0.1:1"},
            "parties": [{"name": "a", "address": "127.0.0.1:2"}, {"name": "b", "address": "h:3"}],
            "recipients": "recipients",
        }
    ).encode()
    lines = (trusted.authority.directory / issued.FILE).read_bytes()
    yield _of_file("attempts", remembered, folder / "jobs" / "j.json", [json.dumps(taken).encode()])
    yield _of_file("approval", asked, folder / "approvals" / "j.json", [json.dumps(waits).encode()])
    yield _of_file("opened", published, folder / "results" / "opened" / "j.json", [told])
    yield _of_file("issued", lambda p: issued.read(p.parent), folder / "ca" / issued.FILE, [lines])
    yield _of_file("profile", profile.load, folder / "profile.yaml", [whose], 500)
    yield _of_file("project", project.load, folder / "project.yaml", [PROJECT_FILE.encode()], 500)
    yield _of_file("calibration", machine.read, folder / "calibration.json", [_calibration()])

    def set_up(path: Path) -> object:
        return load_settings(PartySettings, path)

    yield _of_file("settings", set_up, folder / "party.yaml", [settings], 500)


def _books(trusted: Project, folder: Path) -> Iterator[Decoder]:
    trust, job = trusted.authority.trust, examples.bound(parties=["ann", "ben"])
    told = []
    for name in job.parties:
        own = trusted.credentials("party", name)
        book = ledger.Ledger(folder / f"book-{name}", time.time, ledgers.signer_of(own))
        book.record(job.job_id, job.attempt, "weights", 640, ("analyst",))
        told.append(receipts.make_statement(job, bytes(32), {}, book, own, time.time()))
    sample = json.dumps(receipts.join(job, told, trust).content).encode()

    def receipt(path: Path) -> object:
        return receipts.verify_receipt(receipts.read_receipt(path), trust)

    def lines(path: Path) -> object:
        return ledgers.verify_ledger(path, trust)

    book_sample = (folder / "book-ann").read_bytes()
    yield _of_file("ledger", lines, folder / "ledger", [book_sample], 1000)
    yield _of_file("receipt", receipt, folder / "receipt", [sample], 1000)


def _calibration() -> bytes:
    found = {"format": "masque machine 1", "date": "2030-01-01", "processor": "x", "cores": 2}
    more = {
        "parties": 2,
        "seconds": dict(machine.BUILT_IN),
        "samples": [{"job": "a", "measured": 1.0, "fitted": 1.5}],
    }
    return json.dumps(found | more).encode()


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
    yield Decoder("sealed items", results, [sealed.SerializeToString()], 3000)
    yield Decoder("result", fetched, [told.SerializeToString()], 3000)
    yield Decoder("opened value", opened, [value.SerializeToString()], 5000)


def _of_file(
    name: str,
    read: Callable[[Path], object],
    path: Path,
    samples: Sequence[bytes],
    share: int = 1000,
) -> Decoder:
    path.parent.mkdir(parents=True, exist_ok=True)

    def decode(raw: bytes) -> object:
        path.write_bytes(raw)
        return read(path)

    return Decoder(name, decode, samples, share)
