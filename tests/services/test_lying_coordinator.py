"""A coordinator that lies to real parties and a real dealer: whatever it says, nothing is opened.

Every job here would open its result to everybody at its end, if the lie were believed, or be sealed
to somebody whom its client has not named.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from masque.errors import JobFailed, MasqueError, NotFound, ProtocolError, Refused
from masque.jobs.bound import BoundJob, Recipient
from masque.v1 import party_pb2
from masque.wire.identity import Identity, Role
from masque.wire.recipients import create_recipient
from masque.wire.submissions import HOLDS
from tests.services.submitted import submitted
from tests.services.test_party import EARLY_STOP, a_job, assert_usable
from tests.services.village import CALL, PROJECT, Village

OPEN: dict[str, Any] = {"model_output": {"open_to_all": True}, "recipients": []}


def an_open_job(village: Village, **changes: Any) -> BoundJob:
    return a_job(village, **(OPEN | changes))


def another(village: Village, job: BoundJob, **changes: Any) -> BoundJob:
    """The same job, but for something."""
    defaults: dict[str, Any] = {"training__epochs": 3, "job_id": job.job_id}
    return village.bound(list(job.tables), **(OPEN | defaults | changes))


def assert_nothing_opened(village: Village, job: BoundJob) -> None:
    """Neither in a ledger, nor to fetch, at any party."""
    for name in village.names:
        data = village.services[name].directory / "data"
        for line in (data / "ledger.jsonl").read_text().splitlines():
            entry = json.loads(line)["entry"]
            opened = entry["kind"] == "opened" and entry["job"] == job.job_id
            assert not opened, f"{name} has disclosed something"
        assert not (data / "opened" / f"{job.job_id}.json").exists()
        with pytest.raises(MasqueError):
            village.fetch(name, job)
        request = party_pb2.FetchOpenedRequest(job_id=job.job_id)
        with pytest.raises(NotFound), village.party(name, "client", "analyst") as stub:
            stub.FetchOpened(request, timeout=CALL)


def run_all(village: Village, told: dict[str, BoundJob]) -> dict[str, BaseException]:
    """Tell each service its own job, then ask both parties for every round; their errors."""

    def party(name: str) -> None:
        rounds = village.prepare_party(name, told[name]).rounds
        for k in range(len(rounds)):
            village.run_at(name, told[name], k)

    village.prepare_dealer(told["dealer"])
    with ThreadPoolExecutor() as pool:
        asked = {name: pool.submit(party, name) for name in village.names}
        found = {name: future.exception(timeout=CALL) for name, future in asked.items()}
    return {name: error for name, error in found.items() if error is not None}


LIES: dict[str, dict[str, Any]] = {
    "another training": {"training__epochs": 4},
    "another seed": {"training__seed": 99},
    "another output": {"model_output": {"keep_shares": "stolen"}},
    "parties in another order": {"parties": ("party-b", "party-a")},
    "another client": {"client": "mallory"},
    "another attempt": {"attempt": 2},
    "another opening": {"training__early_stop": EARLY_STOP},
}


def relabelled(village: Village, job: BoundJob, **changes: Any) -> BoundJob:
    """The job with other content, and with what its client had signed before."""
    made = another(village, job, **changes)
    return made.model_copy(update={"client": job.client, "submission": job.submission})


def _to_mallory(village: Village, job: BoundJob) -> BoundJob:
    """All parties know mallory's key, and allow what is sealed to mallory."""
    sealed = {"model_output": {"sealed_to": ["mallory"]}}
    return relabelled(village, job, **sealed, recipients=[_mallory(village)])


def _to_mallory_too(village: Village, job: BoundJob) -> BoundJob:
    honest = another(
        village, job, model_output={"sealed_to": ["analyst"]}, recipients=[village.promised()]
    )
    both = {"model_output": {"sealed_to": ["analyst", "mallory"]}}
    people = [village.promised(), _mallory(village)]
    return relabelled(village, honest, **both, recipients=people)


def _mallory(village: Village) -> Recipient:
    directory = village.root / "recipients"
    credentials = village.credentials("client", "mallory")
    public = create_recipient(directory, credentials, replace=True).recipient
    key = public.key.public_bytes_raw().hex()
    return Recipient(name="mallory", key=key, proof=public.text)


def _of_a_party(village: Village, job: BoundJob) -> BoundJob:
    return submitted(job, village.stolen("party-b"), client="analyst")


def _of_itself(village: Village, job: BoundJob) -> BoundJob:
    return submitted(job, village.credentials("coordinator", "coordinator"), client="analyst")


def _analyst(village: Village, job: BoundJob, **changes: Any) -> BoundJob:
    return submitted(job, village.credentials("client", "analyst"), **changes)


INVENTED: dict[str, tuple[Callable[[Village, BoundJob], BoundJob], str]] = {
    "no signature": (
        lambda village, job: job.model_copy(update={"submission": ""}),
        "its client 'analyst' has not signed it",
    ),
    "no statement": (
        lambda village, job: job.model_copy(update={"submission": "{}"}),
        "cannot be read",
    ),
    "another recipient": (_to_mallory, "'analyst' has signed it with other content"),
    "one recipient more": (_to_mallory_too, "'analyst' has signed it with other content"),
    "another key of a recipient": (
        lambda village, job: _analyst(village, job, recipients={"analyst": "ab" * 32}),
        "'analyst' has signed it with other recipients or keys",
    ),
    "another client": (
        lambda village, job: job.model_copy(update={"client": "mallory"}),
        "The certificate of client 'analyst' does not belong to 'mallory'",
    ),
    "another training": (
        lambda village, job: relabelled(village, job, training__epochs=4),
        "'analyst' has signed it with other content",
    ),
    "other outputs": (
        lambda village, job: relabelled(village, job, model_output={"keep_shares": "stolen"}),
        "'analyst' has signed it with other content",
    ),
    "another id": (
        lambda village, job: job.model_copy(update={"job_id": f"{job.job_id}-again"}),
        "'analyst' has signed it under another id",
    ),
    "other parties": (
        lambda village, job: _analyst(village, job, parties=("party-a", "party-c")),
        "'analyst' has signed it for other parties",
    ),
    "another coordinator": (
        lambda village, job: _analyst(village, job, coordinator="elsewhere"),
        "'analyst' has signed it for another coordinator",
    ),
    "another project": (
        lambda village, job: _analyst(village, job, project="elsewhere"),
        "'analyst' has signed it for another project",
    ),
    "a party's certificate": (_of_a_party, "is for the role party, but the role client is needed"),
    "its own certificate": (_of_itself, "is for the role coordinator, but the role client"),
    "the data's owner": (
        lambda village, job: submitted(
            job, village.credentials("client", "owner"), client="analyst"
        ),
        "The certificate of client 'owner' does not belong to 'analyst'",
    ),
}
"""What a coordinator makes of a job that analyst has signed, and what all say to it."""


@pytest.mark.parametrize("lie", INVENTED)
def test_all_are_told_a_job_that_its_client_has_not_signed(village: Village, lie: str) -> None:
    invent, why = INVENTED[lie]
    honest = an_open_job(village)
    job = invent(village, honest)
    asked: dict[str, Callable[[], object]] = {
        "dealer 'dealer'": lambda: village.prepare_dealer(job),
        "party 'party-a'": lambda: village.prepare_party("party-a", job),
        "party 'party-b'": lambda: review(village, "party-b", job),
    }
    for who, ask in asked.items():
        with pytest.raises(Refused) as caught:
            ask()
        text = f"{who} refuses job {job.job_id} of coordinator 'coordinator': "
        assert caught.value.message.startswith(text) and why in caught.value.message
        told = caught.value.where
        assert (told["rule"], told["coordinator"]) == ("submission", "coordinator")
    assert_nothing_opened(village, job)
    for name in village.names:
        data = village.services[name].directory / "data"
        assert not (data / "jobs" / f"{job.job_id}.json").exists(), "it has not taken the id"


def test_what_was_signed_long_ago_does_not_begin_any_more(village: Village) -> None:
    """A coordinator that has kept what was cancelled, or refused, comes with it a month later."""
    who = Identity(PROJECT, Role.CLIENT, "veteran")
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(days=60)
    village.authority.issue(who, village.root / "people" / who.stem, now=earlier)
    veteran = village.credentials("client", "veteran")
    job = an_open_job(village, client="veteran")
    job = submitted(job, veteran, time=time.time() - HOLDS - 60)
    for name in village.names:
        with pytest.raises(Refused, match="has signed it 30 days ago, and what is signed holds"):
            village.prepare_party(name, job)
    assert_nothing_opened(village, job)


def test_a_job_that_was_signed_twice_is_two(village: Village) -> None:
    """Another signature is another job, which must have an id of its own."""
    job = an_open_job(village)
    village.prepare(job)
    again = _analyst(village, job).at_attempt(2)
    for name in village.names:
        with pytest.raises(ProtocolError, match="two specs for one job id"):
            village.prepare_party(name, again)
        abort(village, name, job)
    assert_nothing_opened(village, job)
    assert_usable(village)


def review(village: Village, name: str, job: BoundJob) -> None:
    with village.party(name) as stub:
        stub.Review(party_pb2.ReviewRequest(bound_job=job.canonical()), timeout=CALL)


TOLD = [(lie, victim) for lie in LIES for victim in ("party-b", "dealer")]
TOLD.remove(("another attempt", "party-b"))  # half a minute: it waits for the others to come


@pytest.mark.parametrize(("lie", "victim"), TOLD)
def test_one_is_told_another_job(village: Village, lie: str, victim: str) -> None:
    job = an_open_job(village)
    other = another(village, job, **LIES[lie])
    told = {"dealer": job, "party-a": job, "party-b": job} | {victim: other}
    errors = run_all(village, told)
    assert set(errors) == set(village.names), "both parties noticed"
    assert all(isinstance(error, MasqueError) for error in errors.values()), errors
    assert_nothing_opened(village, job)
    for name in (*village.names, "dealer"):
        abort(village, name, told[name])
    assert_usable(village)


def abort(village: Village, name: str, job: BoundJob) -> None:
    if name == "dealer":
        return
    with village.party(name) as stub:
        request = party_pb2.AbortJobRequest(job_id=job.job_id, attempt=job.attempt, reason="over")
        stub.Abort(request, timeout=CALL)


def _skip_ahead(village: Village, job: BoundJob) -> None:
    village.run_at("party-a", job, 4)


def _last_first(village: Village, job: BoundJob) -> None:
    village.run_rounds(job, [0])
    village.run_at("party-a", job, 4)


def _replay(village: Village, job: BoundJob) -> None:
    village.run_rounds(job, [0, 1])
    village.run_at("party-a", job, 1)


def _beyond_the_end(village: Village, job: BoundJob) -> None:
    village.run_rounds(job, [0, 1])
    village.run_at("party-a", job, 5)


def _results_early(village: Village, job: BoundJob) -> None:
    village.run_rounds(job, [0, 1, 2])
    village.fetch("party-a", job)


def _other_attempts_results(village: Village, job: BoundJob) -> None:
    village.run_rounds(job, [0, 1])
    village.fetch("party-a", job.at_attempt(2))


def _round_of_a_later_attempt(village: Village, job: BoundJob) -> None:
    village.run_rounds(job, [0])
    village.run_at("party-a", job.at_attempt(2), 1)


ORDERS: dict[str, Callable[[Village, BoundJob], None]] = {
    "the last round alone": _skip_ahead,
    "rounds left out": _last_first,
    "a round again": _replay,
    "a round too many": _beyond_the_end,
    "results before the end": _results_early,
    "results of another attempt": _other_attempts_results,
    "a round of another attempt": _round_of_a_later_attempt,
}


@pytest.mark.parametrize("order", ORDERS)
def test_instructions_in_another_order(village: Village, order: str) -> None:
    job = an_open_job(village)
    village.prepare(job)
    with pytest.raises(ProtocolError):
        ORDERS[order](village, job)
    assert_nothing_opened(village, job)
    for name in village.names:
        abort(village, name, job)
    assert_usable(village)


def test_an_attempt_that_was_given_up_is_never_begun_again(village: Village) -> None:
    job = an_open_job(village)
    village.prepare(job)
    village.run_rounds(job, [0, 1])
    for name in village.names:
        abort(village, name, job)
    for name in village.names:
        with pytest.raises(JobFailed):
            village.prepare_party(name, job)
        with pytest.raises(JobFailed):
            village.run_at(name, job, 2)
    assert_nothing_opened(village, job)
    assert_usable(village)


def test_a_finished_job_opens_nothing_more(village: Village) -> None:
    """Rounds asked for after the end, all over again: the ledger stays as it was."""
    job = an_open_job(village)
    village.run(job)
    before = ledgers(village)
    for name in village.names:
        assert job.job_id in before[name], "the honest job did open its result"
        for k in range(7):
            with pytest.raises(ProtocolError):
                village.run_at(name, job, k)
        assert village.prepare_party(name, job).job_digest == job.digest()
    assert ledgers(village) == before


def test_two_rounds_at_once_are_one(village: Village) -> None:
    job = an_open_job(village)
    village.prepare(job)
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(village.run_at, "party-a", job, 0) for _ in range(4)]
        village.run_at("party-b", job, 0)
        errors = [future.exception(timeout=CALL) for future in asked]
    assert errors.count(None) == 1
    assert all(error is None or isinstance(error, ProtocolError) for error in errors)
    assert_nothing_opened(village, job)
    for name in village.names:
        abort(village, name, job)


def ledgers(village: Village) -> dict[str, str]:
    return {
        name: (village.services[name].directory / "data" / "ledger.jsonl").read_text()
        for name in village.names
    }
