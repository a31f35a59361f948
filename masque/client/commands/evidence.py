"""`masque ledger`, `masque receipt`: what parties disclosed and signed, verified offline."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import Json

if TYPE_CHECKING:
    from masque.jobs.chain import Line
    from masque.wire.trust import Trust

ledger_app = typer.Typer(no_args_is_help=True, help="A party's disclosure ledger.")
receipt_app = typer.Typer(no_args_is_help=True, help="The receipt of a job.")

LedgerFile = Annotated[Path, typer.Argument(metavar="FILE", help="A party's data/ledger.jsonl.")]
ReceiptFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="As `masque result` has written it.")
]
Authorities = Annotated[
    list[Path],
    typer.Option(
        "--authority", metavar="PEM", help="The project's authority.pem; again for earlier ones."
    ),
]
Revoked = Annotated[
    Path | None,
    typer.Option("--revoked", metavar="CRL", help="Believe no certificate of authority.crl."),
]


@ledger_app.command(
    "verify", epilog="Example: masque ledger verify ledger.jsonl --authority authority.pem"
)
def verify_ledger(
    file: LedgerFile,
    authority: Authorities,
    head: Annotated[
        str | None,
        typer.Option(metavar="N:HASH", help="A head that was noted: nothing up to it may lack."),
    ] = None,
    revoked: Revoked = None,
    json: Json = False,
) -> None:
    """Say whether anybody has changed a ledger, and where: exit code 3. Needs no network."""
    from masque.wire import ledgers

    noted = ledgers.parse_head(head) if head else None
    found = ledgers.verify_ledger(file, _trust(authority, revoked), noted=noted)
    counts = found.counts()
    if json:
        console.emit(
            {
                "party": found.party.uri,
                "lines": len(found.chain.lines),
                "kinds": counts,
                "head": [found.head.number, found.head.hash],
                "notes": list(found.notes),
            }
        )
        return
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    console.line(f"{file}: whole, and signed by {found.party} ({told})")
    console.line(f"head: {found.head.number}:{found.head.hash}")
    _tell(found.notes)


@ledger_app.command("show", epilog="Example: masque ledger show ledger.jsonl --job first")
def show_ledger(
    file: LedgerFile,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Of this job alone.")] = None,
    json: Json = False,
) -> None:
    """List what a ledger says. Its chain is checked, its signatures are not."""
    from masque.wire.ledgers import load_ledger

    lines = [x for x in load_ledger(file).lines if job is None or x.entry.get("job") == job]
    if json:
        console.emit({"lines": [{"number": line.number, **line.entry} for line in lines]})
        return
    rows = [(line.number, _when(line.entry["time"]), line.kind, *_about(line)) for line in lines]
    console.table(["number", "time", "", "job or data set", "what", "bits", "to"], rows)


@receipt_app.command(
    "verify",
    epilog="Example: masque receipt verify first.receipt.json --authority authority.pem "
    "--ledger ledger.jsonl",
)
def verify_receipt(
    file: ReceiptFile,
    authority: Authorities,
    ledger: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A party's ledger, which must have all of it."),
    ] = None,
    revoked: Revoked = None,
    json: Json = False,
) -> None:
    """Say whether all parties have signed a receipt, and say the same. Needs no network."""
    from masque.wire import receipts

    trust = _trust(authority, revoked)
    receipt = receipts.verify_receipt(receipts.read_receipt(file), trust)
    notes, checked = list(receipt.notes), []
    for path in ledger or ():
        party, more = receipts.check_ledger(receipt, path, trust)
        checked.append(party.name)
        notes += [f"ledger of {party.name}: {note}" for note in more]
    bound, first = receipt.bound, receipt.parties[0]
    if json:
        console.emit(
            {
                "job": bound.job_id,
                "attempt": bound.attempt,
                "submitted": {"by": bound.client, "time": receipt.submission.time},
                "bound_job": first["bound_job"],
                "program": first["program"],
                "versions": {party["party"]: party["versions"] for party in receipt.parties},
                "privacy": receipt.privacy,
                "parties": list(bound.parties),
                "data": [table.name for table in bound.shared],
                "conditions": {
                    said.dataset: {"owner": said.owner, **said.conditions.given}
                    for said in receipt.conditions
                },
                "disclosures": receipt.disclosures,
                "earlier": receipt.earlier,
                "bits": receipt.bits,
                "ledgers": checked,
                "notes": notes,
            }
        )
        return
    console.line(
        f"job {bound.job_id}, attempt {bound.attempt}: signed by {', '.join(bound.parties)}, "
        "who agree"
    )
    console.line(f"submitted and signed by {bound.client}: {_when(receipt.submission.time)} UTC")
    console.line(f"program: {first['program']}, Masque {first['versions']['masque']}")
    console.line(f"data: {', '.join(table.name for table in bound.shared)}")
    for said in receipt.conditions:
        rules = said.conditions.in_words()
        console.line(f"conditions of {said.owner} for {said.dataset}: {rules}")
    if receipt.privacy:
        console.line(_promised(receipt.privacy))
    rows = [
        (item["what"], item.get("attempt", bound.attempt), item["bits"], ", ".join(item["to"]))
        for item in (*receipt.earlier, *receipt.disclosures)
    ]
    console.table(["disclosed", "attempt", "bits", "to"], [*rows, ("all", "", receipt.bits, "")])
    if checked:
        console.line(f"ledgers that have all of it: {', '.join(checked)}")
    _tell(notes)


def _promised(privacy: Mapping[str, float]) -> str:
    from masque.ml.privacy import rounded_up

    return (
        f"privacy: epsilon {privacy['epsilon']:g}, delta {privacy['delta']:g}; one row moves the"
        f" weights by {rounded_up(privacy['sensitivity'])} at most; noise {privacy['sigma']:.4g}"
        " from each party"
    )


def _trust(authority: list[Path], revoked: Path | None) -> Trust:
    from masque.errors import NotFound
    from masque.wire.certificates import load_authorities
    from masque.wire.revocation import Revocations
    from masque.wire.trust import Trust

    authorities = tuple(one for path in authority for one in load_authorities(path))
    if revoked is None:
        return Trust(authorities)
    if not revoked.exists():
        raise NotFound(f"There is no revocation list at {revoked}.", file=str(revoked))
    revocations = Revocations(revoked)
    revocations.read(authorities)
    return Trust(authorities, revocations)


def _tell(notes: Any) -> None:
    for note in notes:
        console.line(f"note: {note}")


def _when(seconds: float) -> str:
    from masque.wire.ledgers import moment

    return f"{moment(seconds).astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"


def _about(line: Line) -> tuple[Any, ...]:
    entry = line.entry
    if line.kind == "opened":
        what, bits, to = entry["what"], entry["bits"], ", ".join(entry["to"])
        return f"{entry['job']} ({entry['attempt']})", what, bits, to
    if line.kind == "accepted":
        data = ", ".join(used["name"] for used in entry["data"])
        return f"{entry['job']} ({entry['attempt']})", f"on {data} for {entry['client']}", "", ""
    if line.kind in ("approved", "denied"):
        why = f": {entry['reason']}" if entry["reason"] else ""
        return entry["job"], f"by {entry['by']}{why}", "", ""
    if line.kind == "deleted":
        how = "replaced" if entry["replaced"] else "deleted"
        told = ", if it is true: its description was changed on disk" * bool(entry.get("changed"))
        return entry["dataset"], f"{how} by {entry['by']}{told}", "", ""
    return "", "", "", ""
