"""Owners' conditions at real parties: signed, kept, agreed on, and enforced by each of them."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from masque.data.table import TableInfo, canonical_json
from masque.errors import IdentityError, MasqueError, ProtocolError, Refused
from masque.jobs.bound import BoundJob
from masque.jobs.conditions import parse
from masque.jobs.fit import SharedTable
from masque.jobs.held import agreed_tables
from masque.mpc import sharing
from masque.v1 import party_pb2
from masque.wire.authority import create_authority
from masque.wire.conditions import attach, believe
from masque.wire.identity import Identity, Role
from masque.wire.tls import Credentials, find_credentials
from tests.services.village import CALL, PROJECT, Village, patients, upload_messages

MATRIX, INFO = patients()
BITS = 64 * INFO.columns**2
"""What a job of `handmade` seals to its one recipient."""


def signed(
    village: Village, rules: str, *, who: Credentials | None = None, **changes: Any
) -> Callable[[str], str]:
    """The conditions of `owner` for an upload, as they should be but for `changes`."""
    found = parse(rules)
    facts: dict[str, Any] = {"dataset": "patients", "info": INFO, "parties": village.names}
    credentials = who or village.credentials("client", "owner")
    return lambda upload: attach(found, credentials, **({"upload": upload} | facts | changes))


def upload(
    village: Village,
    conditions: Mapping[str, Callable[[str], str]] | Callable[[str], str],
    *,
    name: str = "patients",
    info: TableInfo = INFO,
) -> SharedTable:
    """Share the patients; parties may be told different conditions. What party-a was told."""
    upload_id = f"upload-{os.urandom(8).hex()}"
    told = {p: conditions for p in village.names} if callable(conditions) else conditions
    made = {make: make(upload_id) for make in told.values()}  # signatures are not repeatable
    texts = {party: made[make] for party, make in told.items()}
    for party, share in zip(
        village.names, sharing.split(MATRIX, len(village.names), os.urandom), strict=True
    ):
        messages = upload_messages(name, upload_id, info, share)
        messages[0].header.conditions = texts[party]
        with village.party(party, "client", "owner") as stub:
            stub.Upload(iter(messages), timeout=CALL)
    return SharedTable(name=name, upload=upload_id, info=info, conditions=texts[village.names[0]])


def held(village: Village, party: str) -> dict[str, SharedTable]:
    with village.party(party, "client", "analyst") as stub:
        reply = stub.ListDatasets(party_pb2.ListDatasetsRequest(), timeout=CALL)
    return {
        d.name: SharedTable(
            name=d.name,
            upload=d.upload_id,
            info=TableInfo.model_validate_json(d.table_json),
            conditions=d.conditions,
        )
        for d in reply.datasets
    }


def review(village: Village, party: str, job: BoundJob) -> list[str]:
    with village.party(party) as stub:
        request = party_pb2.ReviewRequest(bound_job=job.canonical())
        return list(stub.Review(request, timeout=CALL).waits_for)


def refused_by_all(village: Village, job: BoundJob, rule: str) -> None:
    """By Review and by Prepare at each party, which names itself and the rule; nothing is noted."""
    for ask in (lambda party: review(village, party, job), lambda p: village.prepare_party(p, job)):
        for party in village.names:
            with pytest.raises(Refused) as caught:
                ask(party)
            assert (caught.value.where["rule"], caught.value.where["party"]) == (rule, party)
            assert caught.value.where["dataset"] == "patients"
            assert "'owner'" in caught.value.message
    for party in village.names:
        assert job.job_id not in _ledger(village, party), "it was not accepted"


def _ledger(village: Village, party: str) -> str:
    return (village.services[party].directory / "data" / "ledger.jsonl").read_text()


# -- what everybody keeps to -----------------------------------------------------------------------


def test_conditions_are_kept_told_and_part_of_the_job(village: Village) -> None:
    table = upload(village, signed(village, "clients: [analyst]\nexpires: 2999-01-01"))
    for party in village.names:
        assert held(village, party)["patients"] == table
        statement = believe(held(village, party)["patients"].conditions, village.authority.trust)
        assert (statement.owner, statement.parties) == ("owner", village.names)
    job = village.bound([table], training__epochs=3)
    assert village.run(job)
    village.fetch("party-a", job)


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        ("clients: [somebody]", "clients"),
        ("models: [sequential]", "models"),
        ("outputs: [kept]", "outputs"),
        ("recipients: [auditor]", "recipients"),
        ("maximum_epsilon: 1", "maximum_epsilon"),
        (f"maximum_dataset_bits: {BITS - 1}", "maximum_dataset_bits"),
    ],
)
def test_every_party_refuses_what_the_owner_has_not_allowed(
    village: Village, rules: str, rule: str
) -> None:
    table = upload(village, signed(village, rules), name="patients")
    refused_by_all(village, village.bound([table], training__epochs=1), rule)


def test_a_data_set_is_of_no_use_the_day_after_it_has_expired(village: Village) -> None:
    today = dt.datetime.now(dt.UTC).date()
    table = upload(village, signed(village, f"expires: {today}"))
    village.run(village.bound([table], training__epochs=1))
    before = today - dt.timedelta(days=1)
    table = upload(village, signed(village, f"expires: {before}"))
    refused_by_all(village, village.bound([table], training__epochs=1), "expires")


def test_a_job_with_other_parties_than_the_data_was_split_for(trio: Village) -> None:
    """Their shares alone are not the data, and the owner has meant all three."""
    table = upload(trio, signed(trio, "expires: 2999-01-01"))
    job = trio.bound([table], training__epochs=1, parties=("party-a", "party-b"))
    with pytest.raises(
        Refused, match="with party-a, party-b, party-c, and not with party-a, party"
    ):
        review(trio, "party-a", job)


# -- who may set them ------------------------------------------------------------------------------


def own_authority(village: Village) -> Credentials:
    """A certificate with the owner's name, by an authority of somebody's own."""
    place = village.root / f"own-{os.urandom(4).hex()}"
    create_authority(place / "authority", PROJECT).issue(
        Identity(PROJECT, Role.CLIENT, "owner"), place / "certificate"
    )
    return find_credentials(place / "certificate")


def altered(make: Callable[[str], str], change: Callable[[Any], None]) -> Callable[[str], str]:
    def made(upload_id: str) -> str:
        record = json.loads(make(upload_id))
        change(record)
        return canonical_json(record).decode()

    return made


def _other_rule(record: Any) -> None:
    record["statement"]["conditions"]["clients"] = ["mallory"]


def _other_time(record: Any) -> None:
    record["statement"]["time"] += 1.0


def _no_signature(record: Any) -> None:
    record["signature"] = ""


def _flipped(record: Any) -> None:
    raw = bytearray(base64.b64decode(record["signature"]))
    raw[-1] ^= 1
    record["signature"] = base64.b64encode(raw).decode()


def _unknown_rule(record: Any) -> None:
    record["statement"]["conditions"]["minimum_kindness"] = 3


def _null(record: Any) -> None:
    record["statement"]["conditions"]["models"] = None


def forgeries(village: Village) -> dict[str, Callable[[str], str]]:
    rules = "clients: [analyst]"
    good = signed(village, rules)
    return {
        "by another client": signed(village, rules, who=village.credentials("client", "mallory")),
        "by a party": signed(village, rules, who=village.stolen("party-a")),
        "by an authority of one's own": signed(village, rules, who=own_authority(village)),
        "of another data set": signed(village, rules, dataset="others"),
        "of another upload": signed(village, rules, upload="upload-1"),
        "of other columns": signed(village, rules, info=patients(41)[1]),
        "for other parties": signed(village, rules, parties=("party-c", "party-d")),
        "with another rule": altered(good, _other_rule),
        "with another time": altered(good, _other_time),
        "without a signature": altered(good, _no_signature),
        "with another signature": altered(good, _flipped),
        "with a rule that nobody knows": altered(good, _unknown_rule),
        "with a rule that says nothing": altered(good, _null),
        "in another spelling": lambda upload: json.dumps(json.loads(good(upload))),
        "that are no JSON": lambda _: "clients: [analyst]",
        "that are too long": lambda upload: good(upload) + " " * 20_000,
    }


@pytest.mark.parametrize(
    "forgery",
    [
        "by another client",
        "by a party",
        "by an authority of one's own",
        "of another data set",
        "of another upload",
        "of other columns",
        "for other parties",
        "with another rule",
        "with another time",
        "without a signature",
        "with another signature",
        "with a rule that nobody knows",
        "with a rule that says nothing",
        "in another spelling",
        "that are no JSON",
        "that are too long",
    ],
)
def test_conditions_that_are_not_the_owners_are_not_taken_in(
    village: Village, forgery: str
) -> None:
    before = upload(village, signed(village, "clients: [analyst]"))
    with pytest.raises((IdentityError, ProtocolError)):
        upload(village, forgeries(village)[forgery])
    for party in village.names:
        assert held(village, party)["patients"] == before, "and what was there stays"


def test_an_upload_that_replaces_another_takes_its_conditions_away(village: Village) -> None:
    old = upload(village, signed(village, "clients: [somebody]"))
    new = village.share(MATRIX, INFO, "patients")
    assert held(village, "party-a")["patients"] == new
    stale = village.bound([old.model_copy(update={"conditions": ""})], training__epochs=1)
    with pytest.raises(Refused, match="holds another upload of the data set 'patients'"):
        review(village, "party-b", stale)
    village.run(village.bound([new], training__epochs=1))


# -- all parties have the same ---------------------------------------------------------------------


def test_an_owner_who_tells_parties_different_things_is_found_out(village: Village) -> None:
    strict, loose = signed(village, "clients: [somebody]"), signed(village, "expires: 2999-01-01")
    table = upload(village, {"party-a": loose, "party-b": strict})
    job = village.bound([table], training__epochs=1)
    assert review(village, "party-a", job) == []
    with pytest.raises(Refused, match="party-b knows the data set 'patients' with other condition"):
        review(village, "party-b", job)
    _, problems = agreed_tables({p: held(village, p).values() for p in village.names})
    told = "'patients' at party-b has other conditions than at party-a; share it again"
    assert told in problems


def test_a_coordinator_cannot_leave_conditions_out_or_exchange_them(village: Village) -> None:
    table = upload(village, signed(village, "clients: [somebody]"))
    others = signed(village, "clients: [analyst]")(table.upload)
    for text in ("", others):
        job = village.bound([table.model_copy(update={"conditions": text})], training__epochs=1)
        for party in village.names:
            with pytest.raises(Refused, match="with other conditions"):
                village.prepare_party(party, job)


# -- at rest ---------------------------------------------------------------------------------------


def _without(entry: dict[str, Any], record: Any) -> None:
    entry["conditions"] = ""


def _without_seal(entry: dict[str, Any], record: Any) -> None:
    entry["conditions"] = entry["seal"] = ""


def _weaker(entry: dict[str, Any], record: Any) -> None:
    record["statement"]["conditions"] = {"clients": ["analyst"]}
    entry["conditions"] = canonical_json(record).decode()


def _other_owner(entry: dict[str, Any], record: Any) -> None:
    entry["owner"] = "mallory"


def _of_an_old_version(entry: dict[str, Any], record: Any) -> None:
    """As before there were seals and conditions."""
    del entry["conditions"], entry["seal"]
    entry["owner"] = "mallory"


@pytest.mark.parametrize(
    "change", [_without, _without_seal, _of_an_old_version, _weaker, _other_owner]
)
def test_what_somebody_changed_on_disk_makes_the_data_set_unusable(
    village: Village, change: Callable[[dict[str, Any], Any], None]
) -> None:
    table = upload(village, signed(village, "clients: [somebody]"))
    service = village.services["party-b"]
    service.kill()
    path = service.directory / "data" / "datasets" / "patients.json"
    whole = path.read_bytes()
    entry = json.loads(whole)
    change(entry, json.loads(entry["conditions"]))
    path.write_text(json.dumps(entry))
    for left in path.parent.glob(".*"):  # whatever says that there have been seals
        left.unlink()
    try:
        village.revive("party-b")
        assert "patients" not in held(village, "party-b")
        for text in ("", table.conditions):
            job = village.bound([table.model_copy(update={"conditions": text})], training__epochs=1)
            with pytest.raises(Refused, match="does not hold the data set 'patients'"):
                review(village, "party-b", job)
        with (
            pytest.raises(MasqueError, match="belongs to somebody else"),
            village.party("party-b", "client", "stranger") as stub,
        ):
            stub.DeleteDataset(party_pb2.DeleteDatasetRequest(name="patients"), timeout=CALL)
        assert path.exists()
    finally:
        service.kill()
        path.write_bytes(whole)
        village.revive("party-b")
    assert held(village, "party-b")["patients"] == table


def test_conditions_outlive_a_rotated_key_of_the_store(village: Village) -> None:
    table = upload(village, signed(village, "clients: [analyst]"))
    service = village.services["party-a"]
    service.kill()
    command = [sys.executable, "-m", "services.party", "rotate-key"]
    config = str(service.directory / "config.yaml")
    subprocess.run([*command, "--config", config], check=True, capture_output=True)
    village.revive("party-a")
    assert held(village, "party-a")["patients"] == table
    village.run(village.bound([table], training__epochs=1))


# -- what a data set gives in all ------------------------------------------------------------------


def fresh(village: Village, most: int) -> tuple[str, Callable[[], SharedTable]]:
    """A name that nobody has used, and what shares it with a total."""
    name = f"fresh-{os.urandom(4).hex()}"
    make = signed(village, f"maximum_dataset_bits: {most}", dataset=name)
    return name, lambda: upload(village, make, name=name)


def run(village: Village, table: SharedTable) -> None:
    job = village.bound([table], training__epochs=1)
    village.run(job)
    for party in village.names:
        village.fetch(party, job)


def too_much(village: Village, table: SharedTable) -> str:
    """Refused by everybody; what party-b says of it."""
    job = village.bound([table], training__epochs=1)
    for party in village.names:
        with pytest.raises(Refused) as caught:
            village.prepare_party(party, job)
        assert caught.value.where["rule"] == "maximum_dataset_bits"
    return str(caught.value)


def test_a_total_is_kept_over_jobs_restarts_and_replacements(village: Village) -> None:
    _, share = fresh(village, 2 * BITS)
    table = share()
    run(village, table)
    run(village, table)
    text = too_much(village, table)
    assert f"bits {BITS} of '{table.name}' after {2 * BITS} of earlier jobs" in text
    assert f"Allowed: {2 * BITS} over all jobs, of which 0 is left" in text
    for party in village.names:
        village.services[party].kill()
        village.revive(party)
    too_much(village, table)
    too_much(village, share())
    for party in village.names:
        with village.party(party, "client", "owner") as stub:
            stub.DeleteDataset(party_pb2.DeleteDatasetRequest(name=table.name), timeout=CALL)
    too_much(village, share())


def test_of_two_jobs_at_a_time_that_exceed_a_total_together_one_is_refused(
    village: Village,
) -> None:
    _, share = fresh(village, 2 * BITS - 1)
    table = share()
    first, second = (village.bound([table], training__epochs=1) for _ in range(2))
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(village.prepare_party, "party-a", job) for job in (first, second)]
        errors = [future.exception(timeout=CALL) for future in asked]
    assert [type(error) for error in errors if error] == [Refused]
    lasting = first if errors[0] is None else second
    assert review_says(village, table) == "maximum_dataset_bits", "it still runs"
    with village.party("party-a") as stub:
        request = party_pb2.AbortJobRequest(job_id=lasting.job_id, attempt=1, reason="over")
        stub.Abort(request, timeout=CALL)
    assert review_says(village, table) == "", "it has disclosed nothing, and costs nothing"
    run(village, table)


def review_says(village: Village, table: SharedTable) -> str:
    try:
        review(village, "party-a", village.bound([table], training__epochs=1))
    except Refused as error:
        return str(error.where["rule"])
    return ""


def test_an_attempt_that_was_killed_counts_with_what_its_ledger_has(village: Village) -> None:
    """Openings of a job that broke off count; the next attempt counts again."""
    name, share = fresh(village, 1 + BITS)
    table = share()
    stop = {"metric": "log_loss", "patience": 1}
    job = village.bound([table], training__epochs=1, training__early_stop=stop)
    village.prepare(job)
    village.run_rounds(job, [0, 1])  # the bit is opened
    village.services["party-a"].kill()
    village.revive("party-a")
    assert name in _ledger(village, "party-a")
    with pytest.raises(Refused, match=f"bits {BITS + 1} of '{name}' after 1 of earlier jobs"):
        village.prepare_party("party-a", job.at_attempt(2))
    plain = village.bound([table], training__epochs=1)
    assert review(village, "party-a", plain) == []
