"""Run receipts: what every party of a job says it has run, read and disclosed, and signs.

A party's statement has the digests of the bound job and of the program, versions, a commitment to
each data set, all that was disclosed and to whom, and where that stands in its ledger. The receipt
is the statements of all parties and the bound job itself: one JSON file, which the authority's
certificate is enough to verify. Who relays it can leave it out, and change nothing in it.

**What a commitment proves.** `share` of a data set is HMAC-SHA256, under a random key that the
party keeps to itself, of the share that the party was sent (`masque.data.commitments`). It hides
the share, also from all other parties together; and a party that is later made to show share and
key can show no other share than that. It does not prove that the party has computed with it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masque.data.table import canonical_json, table_digest
from masque.errors import IdentityError, InputError, MasqueError
from masque.jobs import chain
from masque.jobs.bound import BoundJob, read_bound
from masque.jobs.chain import Head, Line
from masque.jobs.conditions import Statement
from masque.jobs.ledger import Ledger
from masque.version import __version__
from masque.wire.certificates import read_der, utc_now, verify
from masque.wire.conditions import believe, check_of_upload
from masque.wire.identity import Identity, Role
from masque.wire.keyfiles import read_file
from masque.wire.ledgers import CertificateSigner, check_head, decoded, moment, verify_ledger
from masque.wire.protocol import protocol_digest
from masque.wire.recipients import verify_signature
from masque.wire.tls import Credentials
from masque.wire.trust import Trust

FORMAT = "masque receipt 1"
OUTPUT = "receipt"
"""What a statement is called among the items that a party hands over; it is for nobody alone."""

OWN = frozenset({"party", "time", "ledger", "versions"})
"""In what the statements of two parties may differ, besides the commitments to their shares."""

_SIGNED = b"masque receipt statement 1\x00"
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Receipt:
    """A receipt that was verified; `parties` in the order of the job.

    `conditions`: what owners had signed for their data sets, of those that had conditions.
    """

    bound: BoundJob
    parties: tuple[Json, ...]
    content: Json
    notes: tuple[str, ...]
    conditions: tuple[Statement, ...] = ()

    @property
    def disclosures(self) -> list[Json]:
        """What was disclosed: `what`, `bits`, `to`."""
        return list(self.parties[0]["disclosures"])

    @property
    def bits(self) -> int:
        """Of all disclosures together, each counted once."""
        return sum(int(item["bits"]) for item in self.disclosures)


def make_statement(
    job: BoundJob,
    program: bytes,
    shares: Mapping[str, str],
    ledger: Ledger,
    credentials: Credentials,
    time: float,
) -> bytes:
    """What the party of `credentials` says of an attempt that is over, signed: JSON.

    `program`: its digest; `shares`: the commitments to its shares, by data set.
    """
    lines = ledger.of(job.job_id, job.attempt)
    head = ledger.head
    content = {
        "format": FORMAT,
        "party": credentials.identity.uri,
        "time": time,
        "job": job.job_id,
        "attempt": job.attempt,
        "bound_job": job.digest().hex(),
        "program": program.hex(),
        "versions": {"masque": __version__, "protocol": protocol_digest().hex()},
        "data": [
            {
                "name": table.name,
                "upload": table.upload,
                "table": table_digest(table.info),
                "share": shares.get(table.name, ""),
            }
            for table in job.shared
        ],
        "disclosures": [_disclosed(line) for line in lines],
        "ledger": {
            "entries": [[line.number, line.hash] for line in lines],
            "head": [head.number, head.hash],
        },
    }
    signer = CertificateSigner(credentials)
    signature = signer.sign(_SIGNED + canonical_json(content))
    return canonical_json(
        {
            "statement": content,
            "certificate": base64.b64encode(signer.certificate).decode("ascii"),
            "signature": base64.b64encode(signature).decode("ascii"),
        }
    )


def join(bound: BoundJob, statements: Iterable[bytes], trust: Trust) -> Receipt:
    """The receipt of a job from what its parties have signed. Raises as `verify_receipt`."""
    try:
        parties = [json.loads(text) for text in statements]
    except (ValueError, RecursionError):
        raise _bad("a party's statement is no JSON") from None
    content = {"format": FORMAT, "bound_job": bound.model_dump(mode="json"), "parties": parties}
    return verify_receipt(content, trust)


def read_receipt(path: Path) -> Any:
    """What stands in a receipt's file. Raises NotFound, InputError."""
    try:
        return json.loads(read_file(path, "receipt"))
    except (ValueError, RecursionError):
        raise _bad(f"{path} is no JSON") from None


def verify_receipt(content: Any, trust: Trust) -> Receipt:
    """Believe a receipt, or raise why not: IdentityError for signatures, InputError for the rest.

    Certificates are judged at the time of signing.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _bad("it is no receipt, or one of another version")
    try:
        bound = read_bound(canonical_json(content["bound_job"]), "the receipt")
        signed = content["parties"]
        notes: list[str] = []
        found = [_verify_statement(item, trust, notes) for item in signed]
        _check_parties(bound, found)
        conditions = tuple(_verify_conditions(bound, trust))
        statements = tuple(statement for _, statement in found)
        for statement in statements:
            _check_statement(bound, statement, statements[0])
            notes += _other_versions(statement, statements[0])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
        raise _bad("a part of it is missing or of the wrong kind") from None
    return Receipt(bound, statements, content, tuple(notes), conditions)


def check_ledger(receipt: Receipt, path: Path, trust: Trust) -> tuple[Identity, tuple[str, ...]]:
    """The party whose ledger it is, if the ledger has all that the receipt says; and notes.

    Raises InputError naming the line that is missing or another.
    """
    ledger = verify_ledger(path, trust)
    own = [s for s in receipt.parties if s["party"] == ledger.party.uri]
    if not own:
        raise InputError(
            f"{path} is the ledger of {ledger.party}, who did not take part in the job.",
            hint="Give the ledgers of the job's parties.",
            file=str(path),
        )
    for number, digest in (own[0]["ledger"]["head"], *own[0]["ledger"]["entries"]):
        check_head(ledger.chain, Head(number, digest), str(path))
    entries = [ledger.chain.lines[number] for number, _ in own[0]["ledger"]["entries"]]
    if [_disclosed(line) for line in entries] != own[0]["disclosures"]:
        raise _bad(f"{path} has other disclosures than {ledger.party} has signed in the receipt")
    upto = own[0]["ledger"]["head"][0]
    _check_none_left_out(receipt.bound, ledger.chain.lines, entries, upto, path)
    return ledger.party, ledger.notes


def _check_none_left_out(
    bound: BoundJob, lines: tuple[Line, ...], entries: list[Line], upto: int, path: Path
) -> None:
    told = {line.number for line in entries}
    for line in lines:
        of_the_job = line.kind == chain.OPENED and line.entry.get("job") == bound.job_id
        same = of_the_job and line.entry.get("attempt") == bound.attempt
        if same and line.number not in told:
            when = "before" if line.number <= upto else "after"
            raise chain.broken(
                str(path), line.at, f"it has a disclosure made {when} the receipt, which omits it"
            )


def _disclosed(line: Line) -> dict[str, Any]:
    return {key: line.entry.get(key) for key in ("what", "bits", "to")}


def _verify_statement(item: Json, trust: Trust, notes: list[str]) -> tuple[Identity, Json]:
    statement = item["statement"]
    certificate = read_der(decoded(item["certificate"]))
    at = moment(statement["time"])
    identity = verify(certificate, trust, role=Role.PARTY, at=at)
    signed = _SIGNED + canonical_json(statement)
    verify_signature(certificate, decoded(item["signature"]), signed, f"The receipt of {identity}")
    if statement["party"] != identity.uri or statement["format"] != FORMAT:
        raise IdentityError(
            f"{identity} has signed a statement in the name of {str(statement['party'])[:80]}.",
            hint="Do not believe this receipt.",
        )
    if certificate.not_valid_after_utc < utc_now():
        notes.append(
            f"the certificate of {identity} has expired since; it was valid at the time that the "
            f"statement itself tells, {at:%Y-%m-%d %H:%M} UTC"
        )
    return identity, statement


def _verify_conditions(bound: BoundJob, trust: Trust) -> Iterator[Statement]:
    """Certificates are judged at the time of signing. Raises IdentityError."""
    for table in bound.shared:
        if table.conditions:
            found = believe(table.conditions, trust, then=True)
            check_of_upload(
                found,
                owner=found.owner,
                dataset=table.name,
                upload=table.upload,
                info=table.info,
                party=bound.parties[0],
            )
            yield found


def _check_parties(bound: BoundJob, found: list[tuple[Identity, Json]]) -> None:
    names = [identity.name for identity, _ in found]
    if tuple(names) != bound.parties or len({identity.project for identity, _ in found}) != 1:
        raise _bad(
            f"it is signed by {', '.join(names) or 'nobody'}, and the job was run by "
            f"{', '.join(bound.parties)}"
        )


def _check_statement(bound: BoundJob, statement: Json, first: Json) -> None:
    """Does a party speak of this very job, and say what the first one says?"""
    party = statement["party"]
    named = (statement["job"], statement["attempt"], statement["bound_job"])
    if named != (bound.job_id, bound.attempt, bound.digest().hex()):
        raise _bad(f"{party} has signed a statement about another job or attempt")
    held = [(d["name"], d["upload"], d["table"]) for d in statement["data"]]
    if held != [(t.name, t.upload, table_digest(t.info)) for t in bound.shared]:
        raise _bad(f"{party} has read other data sets than the job names")
    for key in sorted((statement.keys() | first.keys()) - OWN - {"data"}):
        if statement[key] != first[key]:
            raise _bad(f"{party} and {first['party']} say different things about {key!r}")
    head, entries = statement["ledger"]["head"], statement["ledger"]["entries"]
    if len(entries) != len(statement["disclosures"]):
        raise _bad(f"{party} does not say where in its ledger each disclosure stands")
    for number, digest in (head, *entries):
        if type(number) is not int or type(digest) is not str:
            raise _bad(f"{party} names a line of its ledger by something else than number and hash")


def _other_versions(statement: Json, first: Json) -> list[str]:
    if statement["versions"] == first["versions"]:
        return []
    return [f"{statement['party']} ran other code than {first['party']}, for the same program"]


def _bad(problem: str) -> MasqueError:
    return InputError(
        f"This receipt cannot be believed: {problem}.",
        hint="Fetch it again with `masque result`; if it stays, ask the parties.",
    )
