"""A client's submission, signed by itself and believed by everybody whom the job concerns.

Nobody who relays a job, the coordinator least of all, can invent one in a client's name, change
what one trains, opens or to whom, or run it under another id.
"""

from __future__ import annotations

import time

from masque.errors import IdentityError, InputError, Refused
from masque.jobs.bound import LARGEST_SUBMISSION
from masque.jobs.submission import Submission
from masque.wire.certificates import verify
from masque.wire.ledgers import moment
from masque.wire.statements import Signed, read_signed, sign_statement
from masque.wire.tls import Credentials
from masque.wire.trust import Trust

_SIGNED = b"masque submission 1\x00"

HOLDS = 30 * 86_400.0
"""Seconds for which a job may begin after it was signed."""


def sign_submission(what: Submission, credentials: Credentials) -> str:
    """The submission, signed by the holder of `credentials`."""
    return sign_statement(what, _SIGNED, credentials)


def read_submission(text: str) -> Submission:
    """What a client says it has signed; nothing is believed yet. Raises IdentityError."""
    return _read(text).said


def believe_submission(
    text: str, due: Submission, trust: Trust, *, now: bool = False
) -> Submission:
    """What the client has signed, if that is what is `due`; an IdentityError that says why not.

    The certificate must have been valid when it signed, as the statement itself tells; with `now`,
    at this moment too. It must not be revoked.
    """
    if not text:
        raise _unbelievable(f"its client {due.client!r} has not signed it")
    signed = _read(text)
    what = f"What {due.client!r} has submitted"
    at = moment(signed.said.time)
    identity, certificate = signed.verify(_SIGNED, trust, due.client, what, at)
    if now:
        verify(certificate, trust)
    words = signed.said.difference(due)
    if words or identity.project != due.project:
        raise _unbelievable(f"{due.client!r} has signed it {words or 'in another project'}")
    return signed.said


def check_submission(
    text: str, due: Submission, trust: Trust, judge: str, *, holds: float = HOLDS, begun: bool
) -> None:
    """Has the client that a job names submitted it? Refused naming the coordinator if not.

    `judge`: the service that asks. A job that has `begun` here is judged at the time of signing,
    whatever has become of the certificate; any other also now. `holds`: seconds since signing.
    """
    try:
        found = believe_submission(text, due, trust, now=not begun)
        days = (time.time() - found.time) / 86_400.0
        if days * 86_400.0 > holds:
            raise _unbelievable(
                f"{due.client!r} has signed it {days:.0f} days ago, and what is signed holds for "
                f"{holds / 86_400.0:.0f}"
            )
    except (IdentityError, InputError) as error:
        raise Refused(
            f"{judge} refuses job {due.job_id} of coordinator {due.coordinator!r}: "
            f"{error.message.rstrip('.')} (submission).",
            hint=f"If {due.client!r} wants it, submit it again with the version of Masque that the "
            "services run; if not, ask who runs the coordinator.",
            coordinator=due.coordinator,
            rule="submission",
            client=due.client,
            job=due.job_id,
        ) from None


def _read(text: str) -> Signed[Submission]:
    try:
        return read_signed(text, Submission, LARGEST_SUBMISSION)
    except ValueError:
        raise _unbelievable("what its client should have signed cannot be read") from None


def _unbelievable(why: str) -> IdentityError:
    return IdentityError(f"{why}.", hint="Submit the job again.")
