"""Every place where the product takes bytes apart, and the fuzzed decoders that go through it."""

from __future__ import annotations

from collections.abc import Mapping

FUZZED: Mapping[str, tuple[str, ...]] = {
    # what peers and clients send
    "masque.client.opening.opened": ("opened results",),
    "masque.data.table.parse_table": ("table", "upload", "data sets", "peer tables"),
    "masque.jobs.bound.read_bound": ("bound job", "waiting jobs"),
    "masque.jobs.record.read_progress": ("progress", "job events", "job list"),
    "masque.jobs.starting._layers_differ": ("layers",),
    "masque.mpc.packing._checked": ("packed values",),
    "masque.wire.statements.read_signed": ("signed conditions", "submission"),
    "masque.wire.failures.unpack": ("error", "job events", "job list"),
    "masque.wire.frames.difference": ("frame",),
    "masque.wire.hpke.decrypt": ("sealed share",),
    "masque.wire.outputs.decode_output": ("output",),
    "masque.wire.receipts.join": ("receipt's parts",),
    # certificates and keys
    "masque.wire.certificates.load_authorities": ("authorities", "CERTIFICATE inside"),
    "masque.wire.certificates.load_certificate": ("certificate file",),
    "masque.wire.certificates.load_signing_key": ("signing key",),
    "masque.wire.certificates.read_der": ("certificate", "facts", "claimed identity"),
    "masque.wire.issued.read": ("issued",),
    "masque.wire.recipients._private_key": ("recipient's key",),
    "masque.wire.recipients.parse_recipient": ("recipient",),
    "masque.wire.requests.read_request": ("request", "CERTIFICATE REQUEST inside"),
    "masque.wire.revocation._read": ("revocation list", "X509 CRL inside"),
    "masque.wire.withdrawing._lists": ("authority's lists",),
    # what people write or hand on
    "masque.client.machine.read": ("calibration",),
    "masque.client.reading._json": ("model.json",),
    "masque.client.reading._npz": ("model.npz",),
    "masque.client.reading._safetensors": ("model.safetensors",),
    "masque.client.reading._sequential": ("model.json", "model.npz", "model.safetensors"),
    "masque.data.csv_files.CsvReader._batches": ("csv", "draft of csv"),
    "masque.data.locate.rows": ("csv", "draft of csv"),
    "masque.data.parquet_files._open": ("parquet", "draft of parquet"),
    "masque.data.schema.load": ("schema",),
    "masque.data.schema.loads": ("schema text",),
    "masque.data.schema_file.parse": ("schema", "schema text"),
    "masque.jobs.chain._parsed": ("ledger",),
    "masque.jobs.complaints.validated": (
        *("job file", "policy", "conditions", "profile", "project"),
        *("settings", "dealer's settings", "coordinator's settings"),
    ),
    "masque.jobs.document._compose": ("document", "job file", "policy", "conditions"),
    "masque.wire.receipts.read_receipt": ("receipt",),
    # what services and `masque local` have on disk
    "masque.client.local.find": ("local network",),
    "masque.client.processes.address_of": ("ready file",),
    "masque.data.checkpoints._decoded": ("checkpoint", "checkpoint's content"),
    "masque.data.dataset.Dataset._words": ("store entries",),
    "masque.data.deletions.Deletions.tell": ("deletion",),
    "masque.data.kept.KeptModels.maker": ("kept model's job",),
    "masque.data.rotation._entries": ("rotated entries",),
    "masque.data.rotation._seal_anew": ("rotated deletion",),
    "masque.data.store.Store._recover": ("store entries",),
    "services.coordinator.store._conducted": ("job row", "job store"),
    "services.coordinator.store.bound_of": ("job row",),
    "services.party.approvals.Approvals._read": ("approval",),
    "services.party.deliveries.Deliveries.find": ("delivery",),
    "services.party.jobs.Memory.recall": ("attempts",),
    "services.party.results.Results.opened": ("opened",),
    "services.party.tending.Tending._wanted": ("checkpoint's job",),
}
"""Functions that do it, and the decoders of `decoders` that go through them."""

EXEMPT: Mapping[str, str] = {
    "masque.data.identifiers.IdentifierDigest.words": "reads a digest that it has just made",
    "masque.data.schema.Schema.without_label": "changes a schema that was read before",
    "masque.mpc.party._received": "its caller has counted the bytes, and every number is a share",
    "masque.mpc.sharing._uniform": "reads our own random bytes",
    "masque.wire.callers._serial": "reads the certificate whose holder TLS has verified",
    "masque.wire.receipts.Receipt.earlier": "reads what it has spelled itself, line by line",
    "masque.wire.hpke.encrypt": "makes a key of our own random bytes",
    "masque.wire.recipients.create_recipient": "makes a key of our own random bytes",
}
"""Functions that need none, each with its reason."""

OTHERWISE: tuple[str, ...] = (
    *("chunked frame", "greeting", "claim", "material", "trace", "identity", "scrape", "page"),
    *("kept share", "checkpoint under a new key", "kept share under a new key"),
    *("store key", "agent's key", "ledger's head", "process id"),
    *("sealed items", "result", "opened value", "described host"),
    *("peer review", "peer lent", "peer prepared", "peer announced", "peer round"),
    "peer handed over",
)
"""Decoders that take bytes apart by hand, or whose messages gRPC has read."""

NAMES = sorted({*OTHERWISE, *(name for names in FUZZED.values() for name in names)})
"""All decoders that there must be."""
