"""Going on with a job that was broken off: the program from what its parties had committed.

Which checkpoint an attempt goes on from is part of the bound job, so all parties and the dealer
agree on it by digest; every party then finds that it has this very checkpoint, or says no.
"""

from __future__ import annotations

from masque.errors import ProtocolError
from masque.jobs.bound import BoundJob
from masque.mpc import resume
from masque.mpc.program import Program


def program_of(job: BoundJob, whole: Program) -> Program:
    """The program of this attempt of a job, whose `whole` program was compiled.

    Raises ProtocolError naming the coordinator if there is nothing to go on from.
    """
    here = job.resume
    if here is None:
        return whole
    if here.round >= len(whole.rounds) or whole.rounds[here.round - 1].prepares:
        raise ProtocolError(
            f"{job.coordinator} wants job {job.job_id} to go on with training round {here.round},"
            " which is no place for it.",
            hint="Check that all services run the same version of Masque.",
            peer=job.coordinator,
            job=job.job_id,
        )
    return resume.resumed(whole, here.round, stopped=here.stopped)


def commits(job: BoundJob, program: Program, k: int) -> bool:
    """Is there anything to keep after training round `k` of an attempt?

    Not of what is prepared, restored or passed over, nor of the last round, whose outputs are
    handed over.
    """
    done, here = program.rounds[k], job.resume
    ours = here is None or k >= here.round
    return ours and bool(done.name) and not done.prepares and k + 1 < len(program.rounds)
