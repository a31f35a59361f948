"""Jobs that a client has signed, for tests that send them by hand."""

from __future__ import annotations

import time
from typing import Any

from masque.jobs.bound import BoundJob
from masque.jobs.submission import submission_of
from masque.wire.submissions import sign_submission
from masque.wire.tls import Credentials


def submitted(job: BoundJob, by: Credentials, **changes: Any) -> BoundJob:
    """The job as `by` has signed it just now; `changes`: what it has signed instead."""
    due = submission_of(job, by.identity.project)
    what = due.model_copy(update={"time": time.time()} | changes)
    return job.model_copy(update={"submission": sign_submission(what, by)})
