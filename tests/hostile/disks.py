"""Files that services, owners and operators read again: stores, keys, records, settings, tables."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from masque.client import local, local_files, processes
from masque.data import draft, rotation
from masque.data.checkpoints import Checkpoint, Checkpoints, _decoded, _encoded, change_key
from masque.data.chunks import checksum
from masque.data.kept import KeptModels, rekey
from masque.data.keys import StoreKey, ask_agent, load_key
from masque.data.schema import loads
from masque.data.store import Store
from masque.wire import ledgers, withdrawing
from masque.wire.authority import create_authority, open_authority
from masque.wire.certificates import load_signing_key
from masque.wire.identity import Identity, Role
from masque.wire.recipients import create_recipient, load_recipient_key
from masque.wire.revocation import LISTS_FILE
from masque.wire.settings import load_settings
from services.coordinator.settings import CoordinatorSettings
from services.dealer.settings import DealerSettings
from services.party.settings import PartyLimits
from services.party.tending import Tending
from tests.data.files import GOOD, HEADER
from tests.hostile.decoder import Decoder, of_file
from tests.hostile.planted import SECRET
from tests.hostile.replies import COORDINATOR
from tests.hostile.stores import SCHEMA
from tests.jobs import examples
from tests.wire.conftest import PROJECT, Project

OLD, NEW = StoreKey(SECRET), StoreKey(bytes(range(1, 33)))


def decoders(trusted: Project, folder: Path) -> Iterator[Decoder]:
    """All of them, with certificates of `trusted`, below `folder`."""
    at = folder / "disks"
    at.mkdir()
    yield from _stores(at)
    yield from _checkpoints(at / "checkpoints")
    yield from _kept(at / "kept")
    yield from _keys(trusted, at)
    yield from _authorities(at)
    yield from _settings(at)
    yield from _places(at)
    yield from _tables(at)


def _stores(folder: Path) -> Iterator[Decoder]:
    """Descriptions of data sets: read when a party starts, and when its key is rotated."""
    root = folder / "store"
    with Store(root) as store:
        for name in ("it", "other"):
            with store.begin(name, loads(SCHEMA).describe(1), "upload-1") as writer:
                writer.write(0, 1, bytes(8), checksum(bytes(8)))
                writer.commit()
        sample = store.entry("it").model_dump_json().encode()
    path = root / "datasets" / "it.json"

    def recovered(_: Path) -> object:
        with Store(root) as store:
            names = [entry.name for entry in store.list()]
            assert "other" in names, "one damaged description hides no other"
            return store.rows("it")

    yield of_file("store entries", recovered, path, [sample], 200)
    aside = folder / "rotated"
    aside.mkdir()
    read = lambda p: rotation._entries(p.parent)  # noqa: E731
    yield of_file("rotated entries", read, aside / "it.json", [sample], 500)
    gone = folder / "gone"
    gone.mkdir()

    def sealed(path: Path) -> object:
        rotation._seal_anew(gone, OLD, NEW)
        return path.exists()

    yield of_file("rotated deletion", sealed, gone / "it.json", [sample], 500)


def _checkpoints(folder: Path) -> Iterator[Decoder]:
    kept = Checkpoints(folder, OLD)
    job, shares = examples.bound().canonical(), {"w": np.zeros(3, np.uint64)}
    kept.begin("j", 1)
    kept.write(Checkpoint("j", 1, 4, False, bytes(32), shares), job, None)
    (path,) = (folder / "j").glob("1-4*")
    sealed = path.read_bytes()
    nobody: Any = None
    tending = Tending(nobody, kept, nobody, nobody, PartyLimits())

    def wanted(raw: bytes) -> object:
        return tending._wanted(raw, time.time(), {("a", "b")})

    def changed(path: Path) -> object:
        change_key(folder, OLD, NEW)
        return path.exists()

    content = _encoded(Checkpoint("j", 1, 4, False, bytes(32), shares))
    yield Decoder("checkpoint's content", lambda raw: _decoded(raw, "it"), [content])
    yield Decoder("checkpoint's job", wanted, [job], 500)
    yield of_file("checkpoint under a new key", changed, path, [sealed], 300)


def _kept(folder: Path) -> Iterator[Decoder]:
    kept = KeptModels(folder, OLD)
    kept.keep("model", json.dumps({"job_id": "j"}).encode(), {"w": SECRET})
    job, share = folder / "model" / "job.json", folder / "model" / "w.share"
    yield of_file("kept model's job", lambda _: kept.maker("model"), job, share=500)
    yield of_file(
        "kept share under a new key", lambda _: rekey(folder, [OLD], NEW), share, share=300
    )


def _keys(trusted: Project, folder: Path) -> Iterator[Decoder]:
    trust = trusted.authority.trust
    create_recipient(folder, trusted.credentials("client", "analyst"))
    recipient = folder / "analyst.recipient.key"
    key = ec.derive_private_key(int.from_bytes(SECRET, "big"), ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    signing = folder / "signing.key"
    for path in (recipient, signing):
        path.touch(0o600)
        path.chmod(0o600)

    def opened(_: Path) -> object:
        return load_recipient_key(folder, "analyst", trust)

    def stored(path: Path) -> object:
        return load_key(path, create_if_missing=False)

    def printed(path: Path) -> object:
        return ask_agent(["/bin/cat", str(path)])

    spelled = [SECRET.hex().encode(), b"sLGys7S1tre4ubq7vL2+v8DBwsPExcbHyMnKy8zNzs8=\n"]
    yield of_file("recipient's key", opened, recipient, share=500)
    yield of_file("signing key", load_signing_key, signing, [pem], 500)
    yield of_file("store key", stored, folder / "key", [SECRET], 300)
    yield of_file("agent's key", printed, folder / "printed", spelled, 250)


def _authorities(folder: Path) -> Iterator[Decoder]:
    home = folder / "authority"
    authority = create_authority(home, PROJECT)
    authority.issue(Identity(PROJECT, Role.PARTY, "gone"), folder / "gone")
    withdrawing.revoke(authority, withdrawing.find(authority, "gone.party"))

    def listed(_: Path) -> object:
        return withdrawing._lists(open_authority(home))

    head = b"12:" + b"ab" * 32
    yield of_file("authority's lists", listed, home / LISTS_FILE, share=500)
    yield Decoder("ledger's head", lambda raw: ledgers.parse_head(raw.decode("latin-1")), [head])


def _settings(folder: Path) -> Iterator[Decoder]:
    common = {key: COORDINATOR[key] for key in ("name", "project", "listen", "tls")}
    dealer = common | {"coordinator": "coordinator", "limits": {"jobs": 3}}
    for name, model, values in (
        ("dealer's settings", DealerSettings, dealer),
        ("coordinator's settings", CoordinatorSettings, COORDINATOR),
    ):
        path = folder / f"{name[:6]}.yaml"
        samples = [json.dumps(values).encode(), yaml.safe_dump(values).encode()]
        read = lambda p, model=model: load_settings(model, p)  # noqa: E731
        yield of_file(name, read, path, samples, 400)


def _places(folder: Path) -> Iterator[Decoder]:
    """What `masque local` has written of its network."""
    place = processes.Place("party", "party-1", folder / "network")
    record = json.dumps({"parties": 2}).encode()
    ready = json.dumps({"address": "127.0.0.1:1"}).encode()
    at, pid = folder / "network" / local_files.RECORD, str(os.getpid()).encode()
    yield of_file("local network", lambda p: local.find(p.parent), at, [record], 500)
    yield of_file("ready file", lambda _: processes.address_of(place), place.ready, [ready], 500)
    yield of_file("process id", lambda _: processes.pid_of(place), place.pid_file, [pid], 500)


def _tables(folder: Path) -> Iterator[Decoder]:
    """Of which an owner wants the draft of a schema."""
    text = (HEADER + GOOD * 3).encode()
    whole = io.BytesIO()
    columns = {"age": [1.5, 2.0], "ward": ["north", "01"], "when": [1, 2]}
    pa.parquet.write_table(pa.table(columns), whole)
    samples = [text, text.replace(b",", b";")]
    yield of_file("draft of csv", draft.draft, folder / "table.csv", samples, 300)
    yield of_file("draft of parquet", draft.draft, folder / "t.parquet", [whole.getvalue()], 300)
