"""Files that people hand on and services write: tables, models, records, ledgers, receipts."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from masque.client import machine, profile, project, reading
from masque.client.export import as_json, write
from masque.client.predictor import Predictor
from masque.data import encode, pages, readers, schema, table
from masque.data.kept import KeptModels
from masque.data.keys import StoreKey
from masque.jobs import ledger
from masque.wire import (
    issued,
    ledgers,
    receipts,
)
from masque.wire.settings import load_settings
from services.party.approvals import Approvals
from services.party.deliveries import Deliveries
from services.party.jobs import Memory
from services.party.results import Results
from services.party.settings import PartySettings
from tests.client.projects import PROJECT as PROJECT_FILE
from tests.client.test_model import trained as linear
from tests.client.test_network_model import trained as network
from tests.data.files import GOOD, HEADER, PATIENTS
from tests.hostile.decoder import Decode, Decoder, of_file
from tests.hostile.planted import SECRET
from tests.jobs import examples
from tests.jobs.test_starting import of_job
from tests.services.submitted import submitted
from tests.services.test_settings import PARTY
from tests.wire.conftest import PROJECT, Project


def decoders(trusted: Project, folder: Path) -> Iterator[Decoder]:
    """All of them, with certificates of `trusted`, below `folder`."""
    for make in (_data, _models, _files, _books):
        yield from make(trusted, folder)


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
    yield Decoder(
        "schema text", lambda raw: schema.loads(raw.decode("latin-1")), [PATIENTS.encode()], 300
    )
    yield of_file("schema", schema.load, folder / "schema.yaml", [PATIENTS.encode()], 300)
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
        yield of_file(f"model.{suffix}", reading.read, path, samples, share)


def _files(trusted: Project, folder: Path) -> Iterator[Decoder]:
    def remembered(path: Path) -> object:
        return Memory(path.parent).recall(path.stem)

    def published(path: Path) -> object:
        return results.opened(path.stem)

    def asked(path: Path) -> object:
        found = Approvals(path.parent, book, "ann")
        found.forget(path.stem, "nobody")
        return [(case.missing, case.denied) for case in found.waiting("dr-weber")]

    def waiting(path: Path) -> object:
        return Deliveries(path.parent).read(path.stem, 1)

    own = trusted.credentials("party", "ann")
    book = ledger.Ledger(folder / "words", time.time, ledgers.signer_of(own))
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
    yield of_file("attempts", remembered, folder / "jobs" / "j.json", [json.dumps(taken).encode()])
    yield of_file("approval", asked, folder / "approvals" / "j.json", [json.dumps(waits).encode()])
    delivery = json.dumps({"attempt": 1, "digest": "ab" * 32, "items": [["w", "ann", "AAAA"]]})
    yield of_file("delivery", waiting, folder / "deliveries" / "j.json", [delivery.encode()])
    yield of_file("opened", published, folder / "results" / "opened" / "j.json", [told])
    yield of_file("issued", lambda p: issued.read(p.parent), folder / "ca" / issued.FILE, [lines])
    yield of_file("profile", profile.load, folder / "profile.yaml", [whose], 500)
    yield of_file("project", project.load, folder / "project.yaml", [PROJECT_FILE.encode()], 500)
    yield of_file("calibration", machine.read, folder / "calibration.json", [_calibration()])

    def set_up(path: Path) -> object:
        return load_settings(PartySettings, path)

    yield of_file("settings", set_up, folder / "party.yaml", [settings], 500)


def _books(trusted: Project, folder: Path) -> Iterator[Decoder]:
    trust, client = trusted.authority.trust, trusted.credentials("client", "analyst")
    job = submitted(examples.bound(parties=["ann", "ben"], attempt=2), client)
    told = []
    for name in job.parties:
        own = trusted.credentials("party", name)
        book = ledger.Ledger(folder / f"book-{name}", time.time, ledgers.signer_of(own))
        book.record(job.job_id, 1, "stop", 1, ("ann", "ben"))
        book.record(job.job_id, job.attempt, "weights", 640, ("analyst",))
        told.append(receipts.make_statement(job, bytes(32), {}, book, own, time.time()))
    sample = json.dumps(receipts.join(job, told, trust).content).encode()

    def receipt(path: Path) -> object:
        return receipts.verify_receipt(receipts.read_receipt(path), trust)

    def lines(path: Path) -> object:
        return ledgers.verify_ledger(path, trust)

    def joined(raw: bytes) -> object:
        return receipts.join(job, [raw, told[1]], trust)

    yield Decoder("receipt's parts", joined, [told[0]], 500)
    book_sample = (folder / "book-ann").read_bytes()
    yield of_file("ledger", lines, folder / "ledger", [book_sample], 1000)
    yield of_file("receipt", receipt, folder / "receipt", [sample], 1000)


def _calibration() -> bytes:
    found = {"format": "masque machine 1", "date": "2030-01-01", "processor": "x", "cores": 2}
    more = {
        "parties": 2,
        "seconds": dict(machine.BUILT_IN),
        "samples": [{"job": "a", "measured": 1.0, "fitted": 1.5}],
    }
    return json.dumps(found | more).encode()
