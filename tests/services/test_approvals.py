"""People's yes and no at real parties: who may say it, about which job, and until when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from masque.client import approvals
from masque.errors import Conflict, IdentityError, NotFound, ProtocolError, Refused
from masque.jobs.bound import BoundJob, read_bound
from masque.v1 import party_pb2
from services.party.approvals import Case, fitting
from tests.services.submitted import submitted
from tests.services.test_conditions import review, signed, upload
from tests.services.village import CALL, Village, patients

OFFICERS = ("officer", "deputy")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Village]:
    """A village where the policy of party-a asks one of two people about jobs that open a model."""
    made = Village(tmp_path_factory.mktemp("guarded"), ("party-a", "party-b"))
    policy = {
        "outputs": ["sealed", "kept", "open"],
        "approval": {"by": list(OFFICERS), "outputs": ["open"]},
    }
    path = made.services["party-a"].directory / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def open_job(village: Village, **changes: Any) -> BoundJob:
    matrix, info = patients()
    defaults: dict[str, Any] = {
        "model_output": {"open_to_all": True},
        "recipients": [],
        "training__epochs": 1,
    }
    return village.bound([village.share(matrix, info, "patients")], **(defaults | changes))


def listed(village: Village, party: str, who: str) -> dict[str, Any]:
    with village.party(party, "client", who) as stub:
        reply = stub.ListApprovals(party_pb2.ListApprovalsRequest(), timeout=CALL)
    return {job.job_id: job for job in reply.jobs}


def say(
    village: Village,
    who: str,
    job: BoundJob,
    *,
    yes: bool = True,
    party: str = "party-a",
    reason: str = "",
    role: str = "client",
) -> list[str]:
    request = party_pb2.ApproveRequest(
        job_id=job.job_id, subject=job.subject(), yes=yes, reason=reason
    )
    with village.party(party, role, who) as stub:
        return list(stub.Approve(request, timeout=CALL).waits_for)


def words(village: Village, party: str, job: BoundJob) -> list[tuple[str, str, str]]:
    """What the party's ledger has of what was said: yes or no, by whom, and why."""
    text = (village.services[party].directory / "data" / "ledger.jsonl").read_text()
    entries = [json.loads(line)["entry"] for line in text.splitlines()]
    said = [e for e in entries if e["kind"] in ("approved", "denied") and e["job"] == job.job_id]
    assert all(entry["subject"] == job.subject().hex() for entry in said)
    return [(entry["kind"], entry["by"], entry["reason"]) for entry in said]


def test_one_yes_of_those_asked_lets_the_job_run_with_all_its_attempts(guarded: Village) -> None:
    job = open_job(guarded)
    assert review(guarded, "party-a", job) == sorted(OFFICERS)
    assert review(guarded, "party-b", job) == [], "its policy asks nobody"
    with pytest.raises(
        Refused, match=r"party-a does not begin job .* before deputy or officer has"
    ):
        guarded.prepare_party("party-a", job)
    assert set(listed(guarded, "party-a", "officer")) == {job.job_id}
    assert say(guarded, "officer", job, reason="as agreed") == []
    assert review(guarded, "party-a", job) == []
    second = job.at_attempt(2)  # the first was refused, and is over
    guarded.run(second)
    third = job.at_attempt(3)
    guarded.run(third)
    assert words(guarded, "party-a", job) == [("approved", "officer", "as agreed")]
    assert words(guarded, "party-b", job) == []


def test_jobs_that_the_rule_does_not_name_need_nobody(guarded: Village) -> None:
    matrix, info = patients()
    job = guarded.bound([guarded.share(matrix, info, "patients")], training__epochs=1)
    assert review(guarded, "party-a", job) == []
    guarded.run(job)
    assert job.job_id not in listed(guarded, "party-a", "officer")


def test_the_same_word_twice_is_one_and_the_last_word_counts(guarded: Village) -> None:
    job = open_job(guarded)
    review(guarded, "party-a", job)
    for _ in range(2):
        say(guarded, "officer", job)
    say(guarded, "officer", job, yes=False, reason="not yet")
    with pytest.raises(Refused, match=r"refuses job .*: 'officer' has said no: not yet") as caught:
        review(guarded, "party-a", job)
    assert (caught.value.where["party"], caught.value.where["by"]) == ("party-a", "officer")
    say(guarded, "deputy", job)
    with pytest.raises(Refused, match="'officer' has said no"):
        guarded.prepare_party("party-a", job)
    say(guarded, "officer", job, reason="now")
    guarded.run(job.at_attempt(2))
    assert words(guarded, "party-a", job) == [
        ("approved", "officer", ""),
        ("denied", "officer", "not yet"),
        ("approved", "deputy", ""),
        ("approved", "officer", "now"),
    ]


def test_nothing_is_said_once_the_job_has_begun(guarded: Village) -> None:
    job = open_job(guarded)
    review(guarded, "party-a", job)
    say(guarded, "officer", job)
    guarded.prepare(job)
    for yes in (True, False):
        with pytest.raises(Conflict, match="has begun at party 'party-a'"):
            say(guarded, "officer", job, yes=yes)
    assert job.job_id not in listed(guarded, "party-a", "officer")
    for party in guarded.names:
        with guarded.party(party) as stub:
            request = party_pb2.AbortJobRequest(job_id=job.job_id, attempt=1, reason="over")
            stub.Abort(request, timeout=CALL)


def test_what_was_said_outlives_a_restart(guarded: Village) -> None:
    job, other = open_job(guarded), open_job(guarded)
    job = job.model_copy(update={"tables": other.tables})  # the later upload
    for each in (job, other):
        review(guarded, "party-a", each)
    say(guarded, "officer", job)
    say(guarded, "deputy", other, yes=False)
    guarded.services["party-a"].kill()
    guarded.revive("party-a")
    assert review(guarded, "party-a", job) == []
    with pytest.raises(Refused, match="'deputy' has said no"):
        review(guarded, "party-a", other)
    guarded.run(job)


# -- who may not -----------------------------------------------------------------------------------


def test_nobody_else_is_asked_and_nobody_else_is_heard(guarded: Village) -> None:
    job = open_job(guarded)
    review(guarded, "party-a", job)
    for who in ("analyst", "mallory", "owner"):
        assert listed(guarded, "party-a", who) == {}
        with pytest.raises(NotFound, match=f"no job '{job.job_id}' that waits for '{who}'"):
            say(guarded, who, job)
    with pytest.raises(NotFound):
        say(guarded, "officer", job, party="party-b")
    for role, who in (("coordinator", "coordinator"), ("dealer", "officer"), ("party", "officer")):
        with pytest.raises(IdentityError):
            say(guarded, who, job, role=role)
        with pytest.raises(IdentityError), guarded.party("party-a", role, who) as stub:
            stub.ListApprovals(party_pb2.ListApprovalsRequest(), timeout=CALL)
    request = party_pb2.ReviewRequest(bound_job=job.canonical())
    for role, who in (("client", "officer"), ("party", "party-b"), ("dealer", "dealer")):
        with pytest.raises(IdentityError), guarded.party("party-a", role, who) as stub:
            stub.Review(request, timeout=CALL)
    assert words(guarded, "party-a", job) == []
    assert review(guarded, "party-a", job) == sorted(OFFICERS)


def test_one_job_of_many_is_found_and_no_list_outgrows_a_message(guarded: Village) -> None:
    job, other = open_job(guarded), open_job(guarded)
    job = job.model_copy(update={"tables": other.tables})
    for each in (job, other):
        review(guarded, "party-a", each)
    with guarded.party("party-a", "client", "officer") as stub:
        for name, expected in ((job.job_id, [job.job_id]), ("job-of-nobody", []), ("../j", [])):
            request = party_pb2.ListApprovalsRequest(job_id=name)
            reply = stub.ListApprovals(request, timeout=CALL)
            assert ([found.job_id for found in reply.jobs], reply.more) == (expected, 0)
    cases = [Case(str(n), "", "coordinator", "x" * 10, []) for n in range(5)]
    for most, shown in ((0, 1), (10, 1), (19, 1), (20, 2), (49, 4), (50, 5), (1000, 5)):
        assert list(fitting(cases, most)) == cases[:shown]
    assert list(fitting([], 10)) == []


def test_a_stranger_of_a_coordinator_puts_nothing_before_anybody(guarded: Village) -> None:
    job = open_job(guarded, coordinator="another")
    with pytest.raises(Refused, match="obeys 'coordinator'"):
        review(guarded, "party-a", job)
    request = party_pb2.ReviewRequest(bound_job=job.canonical())
    with pytest.raises(Refused), guarded.party("party-a", "coordinator", "another") as stub:
        stub.Review(request, timeout=CALL)
    assert job.job_id not in listed(guarded, "party-a", "officer")


def test_a_coordinator_cannot_run_another_job_under_an_approved_id(guarded: Village) -> None:
    job = open_job(guarded)
    review(guarded, "party-a", job)
    say(guarded, "officer", job)
    lies: dict[str, dict[str, Any]] = {
        "more epochs": {"training__epochs": 2},
        "another client": {"client": "mallory"},
        "another seed": {"training__seed": 5},
    }
    for changes in lies.values():
        facts = {
            "model_output": {"open_to_all": True},
            "recipients": [],
            "training__epochs": 1,
            "job_id": job.job_id,
        }
        other = guarded.bound(list(job.tables), **(facts | changes))
        assert other.subject() != job.subject()
        with pytest.raises(Refused, match="another job of this id"):
            review(guarded, "party-a", other)
        with pytest.raises((Refused, ProtocolError), match=r"another job of this id|two specs"):
            guarded.prepare_party("party-a", other)
        with pytest.raises(Refused, match="is another than the one you have seen"):
            say(guarded, "officer", other)
    text = (guarded.services["party-a"].directory / "data" / "ledger.jsonl").read_text()
    entries = [json.loads(line)["entry"] for line in text.splitlines()]
    assert not [e for e in entries if e["kind"] == "accepted" and e["job"] == job.job_id]


def test_a_job_that_was_put_in_the_place_of_one_that_was_read_gets_no_yes(
    guarded: Village,
) -> None:
    """The coordinator says that the first has ended; the id is then free for its case, as it is
    while nobody has said no. Who gives the digest of what was read says nothing about the other.
    """
    job = open_job(guarded)
    review(guarded, "party-a", job)
    read = approvals.described(waiting(guarded, job))
    forget(guarded, job)
    other = guarded.bound(
        list(job.tables),
        model_output={"open_to_all": True},
        recipients=[],
        training__epochs=7,
        job_id=job.job_id,
    )
    review(guarded, "party-a", other)
    approvals.check_same(
        waiting(guarded, other), approvals.described(waiting(guarded, other))["digest"]
    )
    with pytest.raises(Refused, match=f"Job {job.job_id} is another now than the one"):
        approvals.check_same(waiting(guarded, other), read["digest"])
    with pytest.raises(Refused, match="is another than the one you have seen"):
        say(guarded, "officer", job)


def waiting(village: Village, job: BoundJob) -> approvals.Waiting:
    """As an officer's client finds it."""
    item = listed(village, "party-a", "officer")[job.job_id]
    return approvals.Waiting(read_bound(item.bound_job, "party-a"))


def test_a_yes_for_one_id_is_none_for_another(guarded: Village) -> None:
    job = open_job(guarded)
    review(guarded, "party-a", job)
    say(guarded, "officer", job)
    twin = job.model_copy(update={"job_id": f"{job.job_id}-2"})
    twin = submitted(twin, guarded.credentials("client", job.client))
    assert review(guarded, "party-a", twin) == sorted(OFFICERS)
    with pytest.raises(Refused, match="has said yes"):
        guarded.prepare_party("party-a", twin)


def test_a_job_that_will_not_run_is_no_longer_listed(guarded: Village) -> None:
    job = open_job(guarded)
    review(guarded, "party-a", job)
    request = party_pb2.ForgetJobRequest(job_id=job.job_id)
    with guarded.party("party-a", "coordinator", "another") as stub:
        stub.Forget(request, timeout=CALL)
    assert job.job_id in listed(guarded, "party-a", "officer"), "it was not the stranger's"
    with guarded.party("party-a") as stub:
        stub.Forget(request, timeout=CALL)
    assert job.job_id not in listed(guarded, "party-a", "officer")
    with pytest.raises(NotFound):
        say(guarded, "officer", job)


def forget(village: Village, job: BoundJob, party: str = "party-a") -> None:
    with village.party(party) as stub:
        stub.Forget(party_pb2.ForgetJobRequest(job_id=job.job_id), timeout=CALL)


@pytest.mark.parametrize("how", ["forgotten", "too old", "forgotten and restarted"])
def test_a_no_outlives_its_case(guarded: Village, how: str) -> None:
    """Neither time nor the coordinator's word that the job has ended opens it to another's yes."""
    job = open_job(guarded)
    review(guarded, "party-a", job)
    say(guarded, "officer", job, yes=False, reason="never")
    if how == "too old":
        for path in guarded.services["party-a"].directory.glob(f"data/approvals/{job.job_id}.*"):
            path.unlink()  # as the sweep does
    else:
        forget(guarded, job)
    if how == "forgotten and restarted":
        guarded.services["party-a"].kill()
        guarded.revive("party-a")
    other = guarded.bound(
        list(job.tables),
        model_output={"open_to_all": True},
        recipients=[],
        training__epochs=2,
        job_id=job.job_id,
    )
    for each in (job, other):
        with pytest.raises(Refused, match="'officer' has said no: never"):
            review(guarded, "party-a", each)
        with pytest.raises((Refused, ProtocolError), match=r"has said no: never|two specs"):
            guarded.prepare_party("party-a", each)
        with pytest.raises(NotFound):
            say(guarded, "deputy", each)
    twin = job.model_copy(update={"job_id": f"{job.job_id}-again"})
    twin = submitted(twin, guarded.credentials("client", job.client))
    assert review(guarded, "party-a", twin) == sorted(OFFICERS), "a new job is asked about anew"


def test_a_no_that_was_taken_back_is_none(guarded: Village) -> None:
    job = open_job(guarded)
    review(guarded, "party-a", job)
    say(guarded, "officer", job, yes=False)
    say(guarded, "officer", job)
    forget(guarded, job)
    assert review(guarded, "party-a", job) == sorted(OFFICERS), "nor is the yes left"


# -- owners ask as well ----------------------------------------------------------------------------


def test_owner_and_operator_each_want_a_yes_of_their_own(guarded: Village) -> None:
    table = upload(guarded, signed(guarded, "approval: {by: [owner, officer]}"))
    facts: dict[str, Any] = {"model_output": {"open_to_all": True}, "recipients": []}
    job = guarded.bound([table], training__epochs=1, **facts)
    assert review(guarded, "party-a", job) == ["deputy", "officer", "owner"]
    assert review(guarded, "party-b", job) == ["officer", "owner"]
    assert say(guarded, "deputy", job) == ["officer", "owner"]
    assert say(guarded, "owner", job) == []
    assert say(guarded, "owner", job, party="party-b") == []
    guarded.run(job)
    another = guarded.bound([table], training__epochs=1, **facts)
    for party in guarded.names:
        review(guarded, party, another)
        assert say(guarded, "officer", another, party=party) == [], "one who is asked by both"
    guarded.run(another)
