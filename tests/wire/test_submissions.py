"""What a client signs when it submits a job: who believes it, and when."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from masque.errors import IdentityError, Refused
from masque.jobs.bound import BoundJob
from masque.jobs.ledger import Ledger
from masque.jobs.submission import submission_of
from masque.wire import receipts, withdrawing
from masque.wire.authority import create_authority
from masque.wire.identity import Identity, Role
from masque.wire.ledgers import signer_of
from masque.wire.revocation import Revocations
from masque.wire.submissions import (
    HOLDS,
    believe_submission,
    check_submission,
    read_submission,
)
from masque.wire.tls import CredentialFiles, Credentials
from tests.jobs.examples import bound
from tests.services.submitted import submitted
from tests.wire.conftest import PROJECT, Project

DAY = 86_400.0
JUDGE = "party 'ann'"


@pytest.fixture
def own(tmp_path: Path) -> Project:
    return Project(tmp_path, create_authority(tmp_path / "authority", PROJECT))


def until(project: Project, days: float) -> Credentials:
    """The analyst's, with a certificate that was issued 80 days ago and ends in `days`."""
    identity = Identity(PROJECT, Role.CLIENT, "analyst")
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=80)
    lifetime = dt.timedelta(days=80 + days)
    directory = project.root / "analyst"
    path = project.authority.issue(identity, directory, now=start, lifetime=lifetime)
    files = CredentialFiles(path, path.with_suffix(".key"), directory / "authority.pem")
    return files.load(Revocations(directory / "authority.crl"), at=start)


def check(job: BoundJob, project: Project, *, begun: bool, holds: float = HOLDS) -> None:
    due, trust = submission_of(job, PROJECT), project.authority.trust
    check_submission(job.submission, due, trust, JUDGE, holds=holds, begun=begun)


def test_it_is_believed_as_it_was_signed(own: Project) -> None:
    job = submitted(bound(), own.credentials("client", "analyst"))
    check(job, own, begun=False)
    said = read_submission(job.submission)
    assert abs(said.time - time.time()) < 60
    assert (said.client, said.job_id, said.parties) == ("analyst", "job-1", ("party-0", "party-1"))
    assert said.recipients == job.keys
    assert job.subject() != bound().subject(), "everybody agrees on it"


def test_the_order_of_parties_is_the_coordinators(own: Project) -> None:
    job = submitted(bound(), own.credentials("client", "analyst"))
    turned = bound(parties=["party-1", "party-0"], submission=job.submission)
    check(turned, own, begun=False)


def test_an_expired_certificate_begins_nothing_and_ends_nothing(own: Project) -> None:
    job = submitted(bound(), until(own, -1.0), time=time.time() - 2 * DAY)
    with pytest.raises(Refused, match="The certificate of client 'analyst' expired at"):
        check(job, own, begun=False)
    check(job, own, begun=True)
    due = submission_of(job, PROJECT)
    assert believe_submission(job.submission, due, own.authority.trust).client == "analyst"


def test_nobody_signs_after_the_end_of_its_certificate(own: Project) -> None:
    job = submitted(bound(), until(own, -1.0))
    for begun in (False, True):
        with pytest.raises(Refused, match="expired at"):
            check(job, own, begun=begun)


def test_a_revoked_certificate_neither_begins_nor_goes_on(own: Project) -> None:
    job = submitted(bound(), own.credentials("client", "analyst"))
    withdrawing.revoke(own.authority, withdrawing.find(own.authority, "analyst.client"))
    for begun in (False, True):
        with pytest.raises(Refused, match="was revoked by the authority"):
            check(job, own, begun=begun)


def test_it_holds_for_a_while(own: Project) -> None:
    credentials = until(own, 10.0)
    check(submitted(bound(), credentials, time=time.time() - HOLDS + 60), own, begun=False)
    old = submitted(bound(), credentials, time=time.time() - HOLDS - 60)
    with pytest.raises(Refused, match="has signed it 30 days ago") as caught:
        check(old, own, begun=True)
    assert "submit it again" in caught.value.hint
    check(old, own, begun=True, holds=HOLDS + 7 * DAY)


def test_another_authority_of_the_same_project_vouches_for_nobody(
    own: Project, foreign: Project
) -> None:
    job = submitted(bound(), foreign.credentials("client", "analyst"))
    with pytest.raises(Refused, match="was not issued by this authority"):
        check(job, own, begun=False)


def test_nothing_of_it_can_be_changed(own: Project) -> None:
    job = submitted(bound(), own.credentials("client", "analyst"))
    due, trust = submission_of(job, PROJECT), own.authority.trust
    for old, new in (('"demo"', '"dame"'), ('"job-1"', '"job-2"'), ("party-0", "party-2")):
        assert old in job.submission
        with pytest.raises(IdentityError, match="changed or forged"):
            believe_submission(job.submission.replace(old, new), due, trust)
    for text in ("", "{}", "[]", "x" * 40_000, job.submission + " "):
        with pytest.raises(IdentityError):
            believe_submission(text, due, trust)


def test_a_receipt_needs_it(own: Project, tmp_path: Path) -> None:
    """Offline, and although all parties have signed the job as it is."""
    trust, client = own.authority.trust, own.credentials("client", "analyst")
    job = bound(parties=["ann", "ben"])
    other = submitted(job, client, recipients={"analyst": "ee" * 32})
    for made in (job, other, submitted(job, own.credentials("client", "owner"), client="analyst")):
        with pytest.raises(IdentityError, match=r"has not signed|has signed it|does not belong"):
            receipts.join(made, statements(own, made, tmp_path), trust)
    good = submitted(job, client)
    receipt = receipts.join(good, statements(own, good, tmp_path), trust)
    assert receipt.submission.client == "analyst" and receipt.submission.recipients == job.keys


def statements(project: Project, job: BoundJob, folder: Path) -> Iterator[bytes]:
    """What its parties sign of a job that has disclosed nothing."""
    for name in job.parties:
        party = project.credentials("party", name)
        book = Ledger(folder / f"ledger-{name}", time.time, signer_of(party))
        yield receipts.make_statement(job, bytes(32), {}, book, party, time.time())
