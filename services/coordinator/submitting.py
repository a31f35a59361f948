"""A job as a client has submitted it, and what is looked at before anybody else is asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pydantic import ValidationError

from masque.errors import IdentityError, SpecError
from masque.jobs.bound import Recipient
from masque.jobs.spec import JobSpec
from masque.jobs.submission import submission
from masque.v1.coordinator_pb2 import SubmitRequest
from masque.wire.recipients import parse_recipient
from masque.wire.submissions import check_submission
from masque.wire.trust import Trust
from services.coordinator.settings import CoordinatorSettings


@dataclass(frozen=True)
class Submitted:
    """`text`: the job file; `client`: who has sent it; `signed`: its submission, with signature."""

    job_id: str
    text: str = field(repr=False)
    recipients: tuple[Recipient, ...]
    client: str
    signed: str = field(repr=False)

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that are the same when the same is submitted again, and signed anew."""
        digest = hashlib.sha256()
        parts = [self.job_id, self.client, self.text]
        for recipient in sorted(self.recipients, key=lambda r: r.name):
            parts += [recipient.name, recipient.key]
        for part in parts:
            raw = part.encode("utf-8", "replace")
            digest.update(len(raw).to_bytes(8, "big") + raw)
        return digest.digest()

    def check(self, spec: JobSpec, settings: CoordinatorSettings, trust: Trust) -> None:
        """Who vouches for the recipients' keys, and has the client signed the job, `spec`?

        Each party asks the same again. Raises IdentityError, Refused.
        """
        for recipient in self.recipients:
            _check_recipient(recipient, trust)
        due = submission(
            spec,
            {recipient.name: recipient.key for recipient in self.recipients},
            project=settings.project,
            client=self.client,
            job_id=self.job_id,
            coordinator=settings.name,
            parties=[party.name for party in settings.parties],
        )
        judge = f"coordinator {settings.name!r}"
        check_submission(self.signed, due, trust, judge, begun=False)


def read_request(request: SubmitRequest, client: str) -> Submitted:
    """What `client` sends. Raises SpecError for a recipient that is not written as one."""
    recipients = tuple(_recipient(r.name, r.key, r.proof) for r in request.recipients)
    return Submitted(request.job_id, request.spec_yaml, recipients, client, request.submission)


def _recipient(name: str, key: str, proof: str) -> Recipient:
    try:
        return Recipient(name=name, key=key, proof=proof)
    except ValidationError:
        raise SpecError(
            f"{name[:64]!r} with its key is not a recipient.",
            hint="Submit the content of its .recipient.pub file.",
            field="recipients",
        ) from None


def _check_recipient(recipient: Recipient, trust: Trust) -> None:
    found = parse_recipient(recipient.proof, trust)
    if (found.identity.name, found.key.public_bytes_raw().hex()) != (
        recipient.name,
        recipient.key,
    ):
        raise IdentityError(
            f"The proof of the recipient {recipient.name!r} is that of another name or key.",
            hint="Submit the content of its .recipient.pub file.",
            recipient=recipient.name,
        )
