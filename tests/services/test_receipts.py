"""Receipts and ledgers of real jobs at real parties: believed as they are, and in no other form."""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masque.data.kept import KeptModels
from masque.data.keys import load_key
from masque.data.store import Store
from masque.data.table import canonical_json
from masque.errors import Conflict, IdentityError, InputError, MasqueError
from masque.jobs.bound import BoundJob
from masque.jobs.chain import Head
from masque.jobs.ledger import Ledger
from masque.mpc import sharing
from masque.mpc.program import Release
from masque.v1 import party_pb2
from masque.version import __version__
from masque.wire.authority import create_authority
from masque.wire.identity import Identity, Role
from masque.wire.ledgers import VerifiedLedger, parse_head, signer_of, verify_ledger
from masque.wire.outputs import decode_output
from masque.wire.protocol import protocol_digest
from masque.wire.receipts import (
    OUTPUT,
    Receipt,
    check_ledger,
    join,
    make_statement,
    verify_receipt,
)
from masque.wire.recipients import sign
from masque.wire.trust import Trust
from services.party.main import run
from tests.jobs.examples import bound
from tests.jobs.test_privacy import private
from tests.services.handmade import STEPS, compile_handmade, gram
from tests.services.submitted import submitted
from tests.services.test_going_on import broken_off, on
from tests.services.test_party import EARLY_STOP, a_job
from tests.services.village import CALL, PROJECT, Village, patients


def ledger_of(village: Village, name: str) -> Path:
    return village.services[name].directory / "data" / "ledger.jsonl"


def verified(village: Village, name: str) -> VerifiedLedger:
    return verify_ledger(ledger_of(village, name), village.authority.trust)


def statements(village: Village, job: BoundJob) -> dict[str, bytes]:
    return {name: village.handed_over(name, job)[OUTPUT, ""] for name in job.parties}


@dataclass
class Done:
    """A job that has run, and what belongs to it."""

    village: Village
    job: BoundJob
    receipt: Receipt
    folder: Path

    @property
    def trust(self) -> Trust:
        return self.village.authority.trust

    def ledger(self, name: str) -> Path:
        """A copy of a party's ledger, to be spoilt."""
        return Path(shutil.copy(ledger_of(self.village, name), self.folder / f"{name}.jsonl"))


def finished(village: Village, folder: Path, **changes: Any) -> Done:
    job = a_job(village, **changes)
    village.run(job)
    found = join(job, statements(village, job).values(), village.authority.trust)
    return Done(village, job, found, folder)


@pytest.fixture(scope="module")
def done(village: Village, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A job that stops early and seals its result."""
    return finished(village, tmp_path_factory.mktemp("done"), training__early_stop=EARLY_STOP)


# -- receipts ------------------------------------------------------------------------------------


def test_a_receipt_says_what_was_run_read_and_disclosed(done: Done) -> None:
    job, receipt = done.job, done.receipt
    assert receipt.bound == job and receipt.notes == ()
    stop, gram_share = receipt.disclosures
    assert stop["what"] == "stop" and stop["bits"] == 1
    assert gram_share == {"what": "share of gram, sealed", "bits": 64 * 16, "to": ["analyst"]}
    assert receipt.bits == 64 * 16 + 1
    assert receipt.earlier == [] and receipt.privacy is None
    commitments = set()
    for statement in receipt.parties:
        assert statement["versions"] == {
            "masque": __version__,
            "protocol": protocol_digest().hex(),
        }
        assert statement["program"] == compile_handmade(job).digest.hex()
        assert statement["bound_job"] == job.digest().hex()
        (data,) = statement["data"]
        assert (data["name"], data["upload"]) == ("patients", job.tables[0].upload)
        commitments.add(data["share"])
    assert len(commitments) == len(job.parties) and all(len(c) == 64 for c in commitments)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_output": {"keep_shares": "kept-here"}},
        {"model_output": {"open_to_all": True}, "recipients": []},
    ],
)
def test_jobs_that_seal_nothing_have_receipts_too(
    village: Village, tmp_path: Path, changes: Any
) -> None:
    found = finished(village, tmp_path, **changes)
    opened = [(item["what"], item["to"]) for item in found.receipt.disclosures]
    assert opened == ([("gram", ["all"])] if "recipients" in changes else [])
    for name in found.job.parties:
        check_ledger(found.receipt, found.ledger(name), found.trust)


def test_a_later_attempt_has_a_receipt_of_its_own(village: Village, tmp_path: Path) -> None:
    job = a_job(village)
    village.prepare(job)
    village.run_rounds(job, [0])
    again = job.at_attempt(2)
    village.run(again)
    trust = village.authority.trust
    receipt = join(again, statements(village, again).values(), trust)
    check_ledger(receipt, ledger_of(village, "party-a"), trust)
    with pytest.raises(InputError, match="about another job or attempt"):
        join(job, statements(village, again).values(), trust)


def nested(depth: int) -> Any:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def statement(content: Any, party: int) -> Any:
    return content["parties"][party]["statement"]


def fewer_bits(content: Any) -> None:
    statement(content, 0)["disclosures"][0]["bits"] = 0


def another_head(content: Any) -> None:
    statement(content, 1)["ledger"]["head"][0] += 1


def another_name(content: Any) -> None:
    content["bound_job"]["spec"]["name"] = "innocent"


def other_commitments(content: Any) -> None:
    first, second = statement(content, 0)["data"][0], statement(content, 1)["data"][0]
    first["share"], second["share"] = second["share"], first["share"]


def swapped_signatures(content: Any) -> None:
    first, second = content["parties"]
    first["signature"], second["signature"] = second["signature"], first["signature"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (fewer_bits, "changed or forged"),
        (another_head, "changed or forged"),
        (other_commitments, "changed or forged"),
        (swapped_signatures, "changed or forged"),
        (another_name, "about another job or attempt"),
        (lambda content: content["parties"].pop(), "signed by party-a, and the job was run by"),
        (lambda content: content["parties"].reverse(), "signed by party-b, party-a"),
        (lambda content: content["parties"].clear(), "signed by nobody"),
        (lambda content: content.pop("bound_job"), "missing or of the wrong kind"),
        (lambda content: content.update(parties=[None]), "missing or of the wrong kind"),
        (lambda content: content.update(format="masque receipt 1"), "another version"),
        (lambda content: statement(content, 0).update(time="now"), "is no time"),
        (lambda content: statement(content, 0).update(data=nested(700)), "of the wrong kind"),
        (lambda content: content.update(bound_job=nested(700)), "of the wrong kind"),
    ],
)
def test_a_receipt_that_was_changed_is_not_believed(
    done: Done, change: Callable[[Any], Any], why: str
) -> None:
    content = copy.deepcopy(json.loads(json.dumps(done.receipt.content)))
    assert verify_receipt(content, done.trust).parties == done.receipt.parties
    change(content)
    with pytest.raises(MasqueError, match=why):
        verify_receipt(content, done.trust)


def signed_again(done: Done, content: Any, party: int) -> Any:
    """A statement that the party itself has signed, whatever it says."""
    told = content["parties"][party]
    signed = b"masque receipt statement 1\0" + canonical_json(told["statement"])
    signature = sign(done.village.stolen(done.job.parties[party]), signed)
    told["signature"] = base64.b64encode(signature).decode()
    return content


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"program": "0" * 64}, "different things about 'program'"),
        ({"privacy": {"epsilon": 1.0}}, "different things about 'privacy'"),
        ({"disclosures": [{"what": "stop", "bits": 1, "to": ["x"]}]}, "different things|where in"),
        ({"earlier": [{}]}, "where in its ledger each disclosure stands"),
        ({"earlier": None}, "of the wrong kind"),
    ],
)
def test_what_one_party_has_signed_is_not_believed_if_it_cannot_be(
    done: Done, changes: dict[str, Any], why: str
) -> None:
    content = json.loads(json.dumps(done.receipt.content))
    assert verify_receipt(signed_again(done, content, 1), done.trust).notes == ()
    statement(content, 1).update(changes)
    with pytest.raises(InputError, match=why):
        verify_receipt(signed_again(done, content, 1), done.trust)


def test_other_versions_are_noted(done: Done) -> None:
    content = json.loads(json.dumps(done.receipt.content))
    statement(content, 1)["versions"]["masque"] = "0.0.1"
    (note,) = verify_receipt(signed_again(done, content, 1), done.trust).notes
    assert "party-b" in note and "ran other code than" in note
    del statement(content, 1)["versions"]
    with pytest.raises(InputError, match="missing or of the wrong kind"):
        verify_receipt(signed_again(done, content, 1), done.trust)


# -- earlier attempts ----------------------------------------------------------------------------


def test_a_receipt_has_what_was_opened_before_the_checkpoint(
    village: Village, tmp_path: Path
) -> None:
    job = a_job(village, training__epochs=3, training__early_stop=EARLY_STOP)
    broken_off(village, job, 2)
    second = on(job, 2, stopped=True)
    village.prepare(second)
    village.run_rounds(second, [1, 4])
    receipt = join(second, statements(village, second).values(), village.authority.trust)
    done = Done(village, second, receipt, tmp_path)
    assert [item["what"] for item in receipt.disclosures] == ["share of gram, sealed"]
    (stop,) = receipt.earlier
    assert (stop["attempt"], stop["what"], stop["bits"]) == (1, "stop", 1)
    assert receipt.bits == 64 * 16 + 1
    for name in job.parties:
        check_ledger(receipt, done.ledger(name), done.trust)
    told = copy.deepcopy(dict(receipt.parties[0]))
    told["earlier"], told["ledger"]["earlier"] = [], []
    with pytest.raises(InputError, match="made before the receipt, which omits it"):
        check_ledger(Receipt(second, (told,), {}, ()), done.ledger("party-a"), done.trust)
    told["earlier"], told["ledger"] = [{**stop, "bits": 0}], receipt.parties[0]["ledger"]
    with pytest.raises(InputError, match=r"other disclosures than .*party-a"):
        check_ledger(Receipt(second, (told,), {}, ()), done.ledger("party-a"), done.trust)


PROMISE = Release(1.0, 1e-6, 0.03, 0.14, 3, ("analyst",))


class Told:
    """Receipts of a job that was never run, from statements that its parties truly signed."""

    def __init__(self, done: Done, folder: Path, attempt: int = 3, **changes: Any) -> None:
        spec = private(**changes).spec
        job = bound(spec, parties=list(done.job.parties), attempt=attempt)
        self.job = submitted(job, done.village.credentials("client", job.client))
        self.done, self.folder = done, folder

    def statement(
        self, party: str, earlier: Sequence[tuple[int, str]] = (), release: Release | None = PROMISE
    ) -> bytes:
        own, job = self.done.village.stolen(party), self.job
        clock = dt.datetime.now(dt.UTC).timestamp
        ledger = Ledger(self.folder / f"{party}.jsonl", clock, signer_of(own))
        for attempt, what in earlier:
            ledger.record(job.job_id, attempt, what, 1, ["party-a"])
        ledger.record(job.job_id, job.attempt, str(release), 0, ["analyst"])
        return make_statement(job, bytes(32), {}, ledger, own, clock(), release)

    def receipt(self, first: bytes, second: bytes) -> Receipt:
        return join(self.job, [first, second], self.done.trust)


def test_what_one_party_alone_has_opened_before_a_crash_counts(done: Done, tmp_path: Path) -> None:
    told = Told(done, tmp_path)
    both, more = [(1, "stop"), (1, "stop"), (2, "stop")], [(1, "stop"), (2, "stop"), (2, "other")]
    receipt = told.receipt(told.statement("party-a", both), told.statement("party-b", more))
    found = [(item["attempt"], item["what"]) for item in receipt.earlier]
    assert sorted(found) == [(1, "stop"), (1, "stop"), (2, "other"), (2, "stop")]
    assert receipt.bits == 4
    for party in told.job.parties:
        check_ledger(receipt, tmp_path / f"{party}.jsonl", done.trust)


@pytest.mark.parametrize("attempt", [3, 4, "1", None, True])
def test_what_is_told_as_earlier_was_so(done: Done, tmp_path: Path, attempt: Any) -> None:
    told = Told(done, tmp_path)
    content: Any = told.receipt(
        told.statement("party-a", [(1, "stop")]), told.statement("party-b")
    ).content
    statement(content, 0)["earlier"][0]["attempt"] = attempt
    with pytest.raises(InputError, match="as of an earlier attempt what was of none"):
        verify_receipt(signed_again(done, content, 0), done.trust)


def test_a_later_attempt_is_not_missing_from_an_earlier_receipt(done: Done, tmp_path: Path) -> None:
    """It has a receipt of its own."""
    told = Told(done, tmp_path)
    receipt = told.receipt(told.statement("party-a"), told.statement("party-b"))
    clock = dt.datetime.now(dt.UTC).timestamp
    path = tmp_path / "party-a.jsonl"
    ledger = Ledger(path, clock, signer_of(done.village.stolen("party-a")))
    ledger.record(told.job.job_id, 4, "stop", 1, ["party-a"])
    check_ledger(receipt, path, done.trust)
    ledger.record(told.job.job_id, 2, "stop", 1, ["party-a"])
    with pytest.raises(InputError, match="made after the receipt, which omits it"):
        check_ledger(receipt, path, done.trust)


# -- privacy -------------------------------------------------------------------------------------


def test_a_receipt_has_what_is_promised_of_each_row(done: Done, tmp_path: Path) -> None:
    told = Told(done, tmp_path, privacy__sensitivity=0.03)
    receipt = told.receipt(told.statement("party-a"), told.statement("party-b"))
    assert receipt.privacy == {"epsilon": 1.0, "delta": 1e-6, "sensitivity": 0.03, "sigma": 0.14}


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 0.5},
        {"delta": 1e-7},
        {"sensitivity": 0.031},
        {"sensitivity": 0.0},
        {"sigma": -1.0},
        None,
    ],
)
def test_another_promise_than_the_job_asks_for_is_not_believed(
    done: Done, tmp_path: Path, change: dict[str, Any] | None
) -> None:
    """Though all parties have signed it."""
    told = Told(done, tmp_path, privacy__sensitivity=0.03)
    release = replace(PROMISE, **change) if change is not None else None
    signed = [told.statement(party, release=release) for party in told.job.parties]
    with pytest.raises(InputError, match=r"party-a promises another privacy than the job asks for"):
        told.receipt(*signed)


def test_parties_that_have_computed_another_sensitivity_are_named(
    done: Done, tmp_path: Path
) -> None:
    told = Told(done, tmp_path)
    other = told.statement("party-b", release=replace(PROMISE, sensitivity=0.029))
    with pytest.raises(InputError, match=r"different things about '(disclosures|privacy)'"):
        told.receipt(told.statement("party-a"), other)


@pytest.mark.parametrize("entry", [None, ["first", "0" * 64], [0, None], [0.5, "0" * 64]])
def test_a_line_of_the_wrong_kind_is_not_believed_though_signed(done: Done, entry: Any) -> None:
    content = json.loads(json.dumps(done.receipt.content))
    told = statement(content, 1)
    told["ledger"]["entries"][0] = entry
    signed = b"masque receipt statement 1\0" + canonical_json(told)
    signature = sign(done.village.stolen("party-b"), signed)
    content["parties"][1]["signature"] = base64.b64encode(signature).decode()
    with pytest.raises(InputError, match=r"wrong kind|something else than number and hash"):
        verify_receipt(content, done.trust)


def test_parties_that_disagree_and_strangers_are_named(done: Done, tmp_path: Path) -> None:
    """Each statement is truly signed, but one party tells of other openings, or is none."""

    job, parties = done.job, list(done.job.parties)
    program = bytes.fromhex(done.receipt.parties[0]["program"])
    signed = statements(done.village, job)
    lying = done.village.stolen("party-b")
    ledger = Ledger(tmp_path / "ledger", lambda: 1e9 + 1e9, signer_of(lying))
    ledger.record(job.job_id, job.attempt, "nothing much", 1, ["nobody"])
    now = dt.datetime.now(dt.UTC).timestamp()
    told = make_statement(job, program, {}, ledger, lying, now)
    with pytest.raises(InputError, match=r"party-b and .*party-a say different things about 'disc"):
        join(job, [signed[parties[0]], told], done.trust)
    real = Ledger(done.ledger("party-b"), lambda: now, signer_of(lying))
    other = make_statement(job, bytes(32), {}, real, lying, now)
    with pytest.raises(InputError, match="different things about 'program'"):
        join(job, [signed[parties[0]], other], done.trust)
    client = done.village.credentials("client", "analyst")
    forged = make_statement(job, program, {}, ledger, client, now)
    with pytest.raises(IdentityError, match="role"):
        join(job, [signed[parties[0]], forged], done.trust)
    elsewhere = create_authority(tmp_path / "elsewhere", PROJECT)
    with pytest.raises(IdentityError, match="not issued by this authority"):
        verify_receipt(done.receipt.content, elsewhere.trust)


def test_a_certificate_that_has_expired_since_is_noted(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
    monkeypatch.setattr("masque.wire.receipts.utc_now", lambda: later)
    notes = verify_receipt(done.receipt.content, done.trust).notes
    assert len(notes) == 2 and "has expired since; it was valid at the time" in notes[0]


# -- ledgers against receipts and heads ----------------------------------------------------------


def test_every_ledger_has_what_the_receipt_says(done: Done) -> None:
    for name in done.job.parties:
        found, notes = check_ledger(done.receipt, done.ledger(name), done.trust)
        assert found == Identity(PROJECT, Role.PARTY, name) and notes == ()


def test_lines_cut_off_are_noticed_by_the_receipt_and_by_a_noted_head(done: Done) -> None:
    path = done.ledger("party-a")
    head = verify_ledger(path, done.trust).head
    number = done.receipt.parties[0]["ledger"]["entries"][0][0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number]))
    assert verify_ledger(path, done.trust).head.number == number - 1, "whole, as far as it goes"
    with pytest.raises(InputError, match="lines were removed") as caught:
        check_ledger(done.receipt, path, done.trust)
    assert caught.value.where["line"] == number + 1
    with pytest.raises(InputError, match="lines were removed"):
        verify_ledger(path, done.trust, noted=head)
    with pytest.raises(InputError, match="is another than was noted"):
        verify_ledger(path, done.trust, noted=Head(0, head.hash))
    assert parse_head(f"{head.number}:{head.hash}") == head
    with pytest.raises(InputError, match="no head"):
        parse_head("12")
    for number in ("9" * 5000, "9" * 19, "-1", "", "\N{ARABIC-INDIC DIGIT ONE}", "1\n"):
        with pytest.raises(InputError, match="is no head of a ledger"):
            parse_head(f"{number}:{head.hash}")


def test_a_ledger_written_anew_is_another(done: Done, tmp_path: Path) -> None:
    """The party itself, with its key, cannot tell another story than it has signed."""

    path = tmp_path / "ledger.jsonl"
    clock = dt.datetime.now(dt.UTC).timestamp
    ledger = Ledger(path, clock, signer_of(done.village.stolen("party-a")))
    for _ in range(done.receipt.parties[0]["ledger"]["head"][0] + 1):
        ledger.record("another", 1, "harmless", 1, ["analyst"])
    assert verify_ledger(path, done.trust).party.name == "party-a"
    with pytest.raises(InputError, match="is another than was noted"):
        check_ledger(done.receipt, path, done.trust)


@pytest.mark.parametrize("after", [False, True])
def test_a_disclosure_that_the_receipt_omits_is_found(
    done: Done, tmp_path: Path, after: bool
) -> None:

    job, path = done.job, tmp_path / "ledger.jsonl"
    credentials = done.village.stolen("party-a")
    clock = dt.datetime.now(dt.UTC).timestamp
    ledger = Ledger(path, clock, signer_of(credentials))
    ledger.record(job.job_id, job.attempt, "stop", 1, ["party-a"])
    program = bytes.fromhex(done.receipt.parties[0]["program"])
    told = json.loads(make_statement(job, program, {}, ledger, credentials, clock()))["statement"]
    more = ledger.record(job.job_id, job.attempt, "more", 64, ["party-a"])
    if not after:
        told["ledger"]["head"] = [ledger.head.number, ledger.head.hash]
    receipt = Receipt(job, (told,), {}, ())
    when = "after" if after else "before"
    with pytest.raises(InputError, match=f"made {when} the receipt, which omits it"):
        check_ledger(receipt, path, done.trust)
    assert more.what == "more"


@pytest.mark.parametrize("spoil", ["signature", "number", "forged"])
def test_a_ledger_without_true_signatures_is_not_believed(done: Done, spoil: str) -> None:
    path = done.ledger("party-b")
    if spoil == "forged":  # a whole chain, by somebody without the party's key
        path.unlink()
        client = done.village.credentials("client", "analyst")
        Ledger(path, dt.datetime.now(dt.UTC).timestamp, signer_of(client))
    else:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[1]["signature" if spoil == "signature" else "number"] = (
            lines[2]["signature"] if spoil == "signature" else 7
        )
        text = (json.dumps(x, sort_keys=True, separators=(",", ":")) + "\n" for x in lines)
        path.write_text("".join(text))
    with pytest.raises(InputError, match=r"line [12]: ") as caught:
        verify_ledger(path, done.trust)
    assert caught.value.where["line"] == (1 if spoil == "forged" else 2)


# -- what else a ledger has ----------------------------------------------------------------------


def test_a_deletion_is_proven_by_the_ledger(village: Village) -> None:
    matrix, info = patients()
    shared = village.share(matrix, info, "to-go", owner="owner")
    with village.party("party-a", "client", "owner") as stub:
        stub.DeleteDataset(party_pb2.DeleteDatasetRequest(name="to-go"), timeout=CALL)
    found = verified(village, "party-a")
    entry = found.chain.lines[-1].entry
    assert entry["kind"] == "deleted" and entry["dataset"] == "to-go"
    assert (entry["upload"], entry["by"], entry["replaced"]) == (shared.upload, "owner", False)
    assert len(entry["share"]) == len(entry["table"]) == 64 and entry["rows"] == 40
    village.share(matrix, info, "to-go", owner="owner")
    village.share(matrix, info, "to-go", owner="owner")
    replaced = verified(village, "party-a").chain.lines[-1].entry
    assert replaced["replaced"] and replaced["upload"] != shared.upload
    data = village.services["party-a"].directory / "data"
    assert list((data / "deleted").iterdir()) == []


def test_a_renewed_certificate_goes_on_with_the_ledger(village: Village, tmp_path: Path) -> None:
    directory = village.services["party-b"].directory / "certificates"
    village.authority.issue(Identity(PROJECT, Role.PARTY, "party-b"), directory, replace=True)
    found = finished(village, tmp_path)
    ledger = verified(village, "party-b")
    assert ledger.counts()["certificate"] >= 1
    check_ledger(found.receipt, found.ledger("party-b"), found.trust)


def test_a_torn_ledger_is_mended_when_the_party_starts(village: Village) -> None:
    path = ledger_of(village, "party-a")
    a_ledger = verified(village, "party-a")
    village.services["party-a"].kill()
    with path.open("ab") as file:
        file.write(b'{"entry":{"attempt":1,"bits":64,"job":"jo')
    assert "no whole line" in verified(village, "party-a").notes[-1]
    village.revive("party-a")
    found = verified(village, "party-a")
    assert found.chain.lines[-1].kind == "repaired" and not found.chain.torn
    assert found.chain.lines[: len(a_ledger.chain.lines)] == a_ledger.chain.lines


# -- keys ----------------------------------------------------------------------------------------


def test_a_key_is_rotated_and_everything_stays(
    village: Village, capsys: pytest.CaptureFixture[str]
) -> None:
    job = a_job(village, model_output={"keep_shares": "rotated"})
    village.run(job)
    service = village.services["party-a"]
    config = str(service.directory / "config.yaml")
    assert run(["rotate-key", "--config", config]) == Conflict.exit_code
    assert "in use by another process" in capsys.readouterr().err
    assert service.stop() == 0
    data = service.directory / "data"
    before = load_key(data / "key", create_if_missing=False).name
    assert run(["rotate-key", "--config", config, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["old"] == before and "patients" in told["datasets"] and told["kept_shares"] >= 1
    village.revive("party-a")
    entry = next(
        line.entry
        for line in verified(village, "party-a").chain.lines
        if line.kind == "key rotated"
    )
    assert (entry["old"], entry["new"]) == (before, told["new"])
    again = village.bound(list(job.tables), training__epochs=3)
    village.run(again)
    assert np.array_equal(village.result(again, "gram"), gram(patients()[0], 3 * STEPS))
    village.stop()
    try:
        shares = []
        for name in village.names:
            with Store(village.services[name].directory / "data") as store:
                kept = KeptModels(store.directory / "kept", store.key)
                shares.append(decode_output(kept.share("rotated", "gram"), name)[0])
        assert np.array_equal(sharing.join(shares), gram(patients()[0], 3 * STEPS))
    finally:
        village.start()
