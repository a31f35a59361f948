"""Parties and a dealer as real processes over real TLS, driven by a coordinator's calls."""

from __future__ import annotations

import json
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from masque.data.kept import KeptModels
from masque.data.keys import load_key
from masque.errors import Conflict, JobFailed, NotFound, ProtocolError, Refused
from masque.jobs.bound import BoundJob, Recipient
from masque.mpc import sharing
from masque.mpc.cost import cost
from masque.v1 import dealer_pb2, party_pb2
from masque.wire.outputs import decode_output
from tests.services.handmade import MOST_EPOCHS, STEPS, compile_handmade, gram
from tests.services.village import CALL, Village, last_of, patients

LONG = MOST_EPOCHS
"""Epochs of a job whose training rounds last long enough to be disturbed."""

EARLY_STOP = {"metric": "log_loss", "patience": 1}


def a_job(village: Village, **changes: Any) -> BoundJob:
    matrix, info = patients()
    changes = {"training__epochs": 3} | changes
    return village.bound([village.share(matrix, info, "patients")], **changes)


def ledger(village: Village, name: str, job: BoundJob) -> list[dict[str, Any]]:
    text = (village.services[name].directory / "data" / "ledger.jsonl").read_text()
    entries = [json.loads(line)["entry"] for line in text.splitlines()]
    ours = [entry for entry in entries if entry.get("job") == job.job_id]
    return [entry for entry in ours if entry["kind"] != "accepted"]


def assert_usable(village: Village) -> None:
    """The village runs another job to its exact end."""
    job = a_job(village)
    village.run(job)
    assert np.array_equal(village.result(job, "gram"), gram(patients()[0], 3 * STEPS))


# -- whole jobs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["village", "trio"])
def test_a_whole_job_is_exact_and_its_traffic_as_planned(
    place: str, request: pytest.FixtureRequest
) -> None:
    village: Village = request.getfixturevalue(place)
    job = a_job(village, training__epochs=5)
    with village.dealer() as stub:
        before = stub.Describe(dealer_pb2.DescribeDealerRequest(), timeout=CALL)
    replies = village.run(job)
    assert np.array_equal(village.result(job, "gram"), gram(patients()[0], 5 * STEPS))
    planned = cost(compile_handmade(job))
    for index, name in enumerate(job.parties):
        traffic = replies[name].traffic
        assert traffic.exchanges == planned.rounds
        assert traffic.sent == traffic.received == planned.sent * (len(job.parties) - 1)
        assert traffic.corrections == planned.corrections[index]
        assert traffic.declared_openings == 0 and traffic.sealed_outputs == 1
    with village.dealer() as stub:
        after = stub.Describe(dealer_pb2.DescribeDealerRequest(), timeout=CALL)
    for index, name in enumerate(job.parties):
        sent = after.bytes_by_party[name] - before.bytes_by_party[name]
        assert sent == planned.corrections[index]
    assert after.jobs == 0 and after.streams == before.streams + len(job.parties)


def test_progress_counts_rounds_and_the_ledger_has_what_was_sealed(village: Village) -> None:
    job = a_job(village)
    replies = village.run(job)
    progress = json.loads(replies["party-a"].progress_json)
    assert (progress["round"], progress["of"], progress["round_name"]) == (5, 5, "finish")
    assert progress["state"] == "finishing" and progress["job"] == job.job_id
    (entry,) = ledger(village, "party-a", job)
    assert entry["to"] == ["analyst"] and entry["bits"] == 64 * 16 and "gram" in entry["what"]
    with village.party("party-a", "client", "somebody") as stub:
        reply = stub.Describe(party_pb2.DescribePartyRequest(), timeout=CALL)
    assert reply.traffic.exchanges > 0 and reply.bytes_by_peer["party-b"] == reply.bytes_sent
    assert reply.jobs == 0 and reply.datasets >= 1 and reply.share_bytes >= 40 * 4 * 8


@pytest.mark.parametrize("jumps", [False, True])
def test_an_early_stop_leaves_out_what_may_be_left_out(village: Village, jumps: bool) -> None:
    job = a_job(village, training__early_stop=EARLY_STOP)
    names = list(village.prepare(job)["party-a"].rounds)
    asked = [0, 1, names.index("finish")] if jumps else range(len(names))
    for k in asked:
        replies = village.run_rounds(job, [k])
        assert [reply.stopped for reply in replies.values()] == [k > 0] * 2
    assert np.array_equal(village.result(job, "gram"), gram(patients()[0], 3))
    assert ledger(village, "party-b", job)[0]["what"] == "stop"
    assert replies["party-a"].traffic.declared_openings == 1


def test_rounds_are_not_left_out_without_a_stop(village: Village) -> None:
    job = a_job(village)
    village.prepare(job)
    village.run_rounds(job, [0])
    with pytest.raises(ProtocolError, match=r"round 4 of job .* instead of 1"):
        village.run_at("party-a", job, 4)


def test_a_model_may_be_kept_as_shares_under_a_free_name(village: Village) -> None:
    job = a_job(village, model_output={"keep_shares": "model:1".replace(":", "-")})
    village.run(job)
    shares = []
    for name in job.parties:
        folder = village.services[name].directory / "data" / "kept" / "model-1"
        path = folder / f"{quote('gram', safe='')}.share"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "job.json").read_bytes() == job.canonical()
        key = load_key(folder.parents[1] / "key", create_if_missing=False)
        plain = KeptModels(folder.parent, key).share("model-1", "gram")
        assert plain not in path.read_bytes()
        share, scale = decode_output(plain, name)
        assert scale == 48
        shares.append(share)
        assert village.fetch(name, job) == {} and ledger(village, name, job) == []
    assert np.array_equal(sharing.join(shares), gram(patients()[0], 3 * STEPS))
    again = a_job(village, model_output={"keep_shares": "model-1"})
    with pytest.raises(Conflict, match="'model-1' is kept"):
        village.prepare_party("party-a", again)


def test_what_is_opened_to_all_is_for_every_client(village: Village) -> None:
    job = a_job(village, model_output={"open_to_all": True}, recipients=[])
    village.run(job)
    expected = gram(patients()[0], 3 * STEPS)
    for name in job.parties:
        with village.party(name, "client", "anybody") as stub:
            request = party_pb2.FetchOpenedRequest(job_id=job.job_id)
            reply = stub.FetchOpened(request, timeout=CALL)
        (value,) = reply.values
        assert reply.bound_job == job.canonical() and value.scale == 48
        found = np.frombuffer(value.values, "<u8").reshape(tuple(value.shape))
        assert np.array_equal(found, expected)
        (entry,) = ledger(village, name, job)
        assert entry["what"] == "gram" and entry["to"] == ["all"]
    with pytest.raises(NotFound), village.party("party-a", "client", "anybody") as stub:
        stub.FetchOpened(party_pb2.FetchOpenedRequest(job_id="../../x"), timeout=CALL)


def test_jobs_run_beside_each_other(village: Village) -> None:
    first, second = a_job(village, training__epochs=40), a_job(village, training__epochs=30)
    # both upload the same data set anew: bind the first job to the upload that is there
    first = village.bound(list(second.tables), training__epochs=40)
    with ThreadPoolExecutor() as pool:
        list(pool.map(village.run, (first, second)))
    assert np.array_equal(village.result(first, "gram"), gram(patients()[0], 40 * STEPS))
    assert np.array_equal(village.result(second, "gram"), gram(patients()[0], 30 * STEPS))


# -- what a coordinator may not do ---------------------------------------------------------------


def test_two_specs_for_one_job_id(village: Village) -> None:
    job = a_job(village)
    village.prepare(job)
    other = village.bound(list(job.tables), training__epochs=7, job_id=job.job_id)
    with pytest.raises(ProtocolError, match="two specs for one job id"):
        village.prepare_party("party-a", other)
    with pytest.raises(Conflict, match="two specs for one job id"):
        village.prepare_dealer(other)
    assert village.prepare(job)["party-b"].job_digest == job.digest()  # asked again: as before
    assert not isinstance(village.run_round(job, 0)["party-a"], BaseException)


def test_rounds_run_once_in_order(village: Village) -> None:
    job = a_job(village)
    with pytest.raises(NotFound):
        village.run_at("party-a", job, 0)
    village.prepare(job)
    with pytest.raises(ProtocolError, match=r"round 1 of job .* instead of 0"):
        village.run_at("party-a", job, 1)
    village.run_rounds(job, [0])
    with pytest.raises(ProtocolError, match=r"round 0 of job .* instead of 1"):
        village.run_at("party-a", job, 0)
    with pytest.raises(ProtocolError, match="attempt 2"):
        village.run_at("party-a", job.at_attempt(2), 1)
    with pytest.raises(ProtocolError, match="asked for results"):
        village.fetch("party-a", job)
    village.run_rounds(job, [1])  # nothing was harmed


def test_another_coordinator_has_no_say(village: Village) -> None:
    job = a_job(village)
    announce = dealer_pb2.PrepareDealerRequest(bound_job=job.canonical())
    prepare = party_pb2.PreparePartyRequest(bound_job=job.canonical())
    run = party_pb2.RunRoundRequest(job_id=job.job_id, attempt=1, round=0)
    intruding = ("party-a", "coordinator", "intruder")
    with pytest.raises(Refused, match="'intruder'"), village.dealer(who="intruder") as stub:
        last_of(stub.Prepare(announce, timeout=CALL))
    with pytest.raises(Refused, match="'intruder'"), village.party(*intruding) as stub:
        last_of(stub.Prepare(prepare, timeout=CALL))
    village.prepare(job)
    with pytest.raises(ProtocolError, match="belongs to"), village.party(*intruding) as stub:
        list(stub.RunRound(run, timeout=CALL))
    village.run_rounds(job, [0])


def test_foreign_services_in_a_job_are_refused_by_name(village: Village) -> None:
    tables = list(a_job(village).tables)
    for changes, culprit in (
        ({"dealer": "other-dealer"}, "other-dealer"),
        ({"parties": ("party-a", "stranger")}, "stranger"),
        ({"parties": ("party-b", "stranger")}, "'party-a' is not among its parties"),
    ):
        with pytest.raises(Refused, match=culprit):
            village.prepare_party("party-a", village.bound(tables, **changes))


def test_a_swapped_or_unknown_recipient_is_refused_by_name(village: Village) -> None:
    tables = list(a_job(village).tables)
    swapped = village.bound(tables, recipients=[Recipient(name="analyst", key="ab" * 32)])
    with pytest.raises(Refused, match="key for the recipient 'analyst'"):
        village.prepare_party("party-a", swapped)
    unknown = village.bound(
        tables,
        recipients=[Recipient(name="mallory", key="ab" * 32)],
        model_output={"sealed_to": ["mallory"]},
    )
    with pytest.raises(Refused, match="does not know the recipient 'mallory'"):
        village.prepare_party("party-a", unknown)


def test_a_policy_is_obeyed(village: Village) -> None:
    matrix, info = patients(rows=12, name="few")
    few = village.share(matrix, info, "few")
    with pytest.raises(Refused, match="policy's minimum_rows"):
        village.prepare_party("party-a", village.bound([few], training__batch_size=8))


def test_a_replaced_data_set_is_refused_before_and_during_a_job(village: Village) -> None:
    job = a_job(village)
    matrix, info = patients()
    village.share(matrix, info, "patients")
    with pytest.raises(Refused, match="another upload of the data set 'patients'"):
        village.prepare_party("party-a", job)
    running = a_job(village)
    village.prepare(running)
    village.run_rounds(running, [0])
    village.share(matrix, info, "patients")
    for error in village.run_round(running, 1).values():
        assert isinstance(error, JobFailed) and "patients" in str(error)
    assert_usable(village)


def test_an_attempt_is_taken_once_even_across_a_restart(village: Village) -> None:
    job = a_job(village)
    village.prepare(job)
    assert village.services["party-a"].stop() == 0
    village.revive("party-a")
    with pytest.raises(JobFailed, match="restarted"):
        village.prepare_party("party-a", job)
    with pytest.raises(NotFound):
        village.run_at("party-a", job.model_copy(update={"job_id": "never"}), 0)
    again = job.at_attempt(2)
    village.run(again)
    assert np.array_equal(village.result(again, "gram"), gram(patients()[0], 3 * STEPS))
    with pytest.raises(ProtocolError, match="attempt 1"):
        village.prepare_party("party-b", job)


def test_an_aborted_job_is_gone(village: Village) -> None:
    job = a_job(village)
    village.prepare(job)
    village.run_rounds(job, [0])
    for name in job.parties:
        with village.party(name) as stub:
            request = party_pb2.AbortJobRequest(job_id=job.job_id, attempt=1, reason="cancelled")
            stub.Abort(request, timeout=CALL)
            stub.Abort(request, timeout=CALL)
    with pytest.raises(JobFailed, match="cancelled"):
        village.run_at("party-a", job, 1)
    with pytest.raises(JobFailed, match="cancelled"):
        village.fetch("party-a", job)
    assert_usable(village)


# -- what goes wrong on the way ------------------------------------------------------------------


def disturbed(
    village: Village, job: BoundJob, disturb: Any, parties: tuple[str, ...] | None = None
) -> tuple[dict[str, Any], float]:
    """Disturb the village in the middle of round 1; what `parties` said, and how soon."""
    village.prepare(job)
    village.run_rounds(job, [0])
    moment = []

    def strike() -> None:
        time.sleep(1.0)
        moment.append(time.monotonic())
        disturb()

    thread = threading.Thread(target=strike)
    thread.start()
    with ThreadPoolExecutor() as pool:
        futures = {name: pool.submit(village.run_at, name, job, 1) for name in job.parties}
        wanted = parties or job.parties
        replies = {name: futures[name].exception() or futures[name].result() for name in wanted}
        thread.join()
        seconds = time.monotonic() - moment[0]
        if parties is not None:  # the others are woken, so that their calls end
            for service in village.services.values():
                assert service.process is not None
                service.process.send_signal(signal.SIGCONT)
    return replies, seconds


@pytest.mark.parametrize("place", ["village", "trio"])
def test_a_killed_party_is_named_within_ten_seconds(
    place: str, request: pytest.FixtureRequest
) -> None:
    village: Village = request.getfixturevalue(place)
    job = a_job(village, training__epochs=LONG)
    replies, seconds = disturbed(village, job, village.services["party-b"].kill)
    assert seconds < 10
    for name, error in replies.items():
        if name != "party-b":
            assert isinstance(error, JobFailed), error
            assert "party-b" in str(error.where["service"]), error
    village.revive("party-b")
    assert_usable(village)


def test_a_killed_dealer_is_named_within_ten_seconds(village: Village) -> None:
    job = a_job(village, training__epochs=LONG)
    replies, seconds = disturbed(village, job, village.services["dealer"].kill)
    assert seconds < 10
    for error in replies.values():
        assert isinstance(error, JobFailed), error
        assert "dealer" in str(error.where["service"]), error
    village.revive("dealer")
    assert_usable(village)


@pytest.mark.parametrize("name", ["party-b", "dealer"])
def test_a_service_that_hangs_is_named_within_ten_seconds(village: Village, name: str) -> None:
    process = village.services[name].process
    assert process is not None
    job = a_job(village, training__epochs=LONG)
    try:
        replies, seconds = disturbed(
            village, job, lambda: process.send_signal(signal.SIGSTOP), parties=("party-a",)
        )
        error = replies["party-a"]
        assert isinstance(error, JobFailed) and name in str(error.where["service"]), error
        assert seconds < 11  # ten, and the time to start a thread on a busy machine
    finally:
        process.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    assert_usable(village)


def test_a_coordinator_that_leaves_ends_the_job(village: Village) -> None:
    """Several times: once, a message under way could keep the other party from hearing why."""
    for _ in range(4):
        job = a_job(village, training__epochs=LONG)
        village.prepare(job)
        village.run_rounds(job, [0])
        with village.party("party-a") as stub, ThreadPoolExecutor() as pool:
            request = party_pb2.RunRoundRequest(job_id=job.job_id, attempt=1, round=1)
            call = stub.RunRound(request, timeout=CALL)
            other = pool.submit(village.run_at, "party-b", job, 1)
            next(call)
            call.cancel()
            with pytest.raises(JobFailed, match="coordinator 'coordinator' left"):
                other.result(timeout=10)
    with pytest.raises(JobFailed, match="left in the middle"):
        village.run_at("party-a", job, 2)
    assert_usable(village)


def test_a_party_that_stops_says_so(village: Village) -> None:
    job = a_job(village, training__epochs=LONG)
    replies, seconds = disturbed(village, job, village.services["party-b"].stop)
    assert seconds < 10 and isinstance(replies["party-a"], JobFailed)
    assert "party-b" in str(replies["party-a"].where["service"])
    village.revive("party-b")
    assert_usable(village)
