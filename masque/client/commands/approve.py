"""`masque approve`."""

from __future__ import annotations

from typing import Annotated

import typer

from masque.client import console
from masque.client.commands.options import Json, ProfilePath


def approve(
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Its id; without, list what waits.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Say yes without being asked; with --digest.")
    ] = False,
    digest: Annotated[
        str | None,
        typer.Option("--digest", metavar="DIGITS", help="Of the job that you have read."),
    ] = None,
    deny: Annotated[bool, typer.Option("--deny", help="Say no: the job ends.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; who submitted the job reads it.")
    ] = "",
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Say yes or no to a job that needs a person's yes; see what it would do.

    Without JOB, all those that ask you. The last word counts, until the job has begun. --yes takes
    the digest of the job that you have read, for another may have its id by now.
    """
    from masque.client import approvals
    from masque.client.profile import load
    from masque.client.services import Services
    from masque.errors import InputError

    if (yes and deny) or (job is None and (yes or deny)):
        raise InputError(
            "It takes one job, and one word on it.",
            hint="Give masque approve JOB with --yes or with --deny.",
        )
    if yes and not digest:
        raise InputError(
            f"Your yes would be for whatever has the id {job} by now.",
            hint=f"Read the job (masque approve {job}), and give its digest: "
            f"masque approve {job} --yes --digest DIGITS",
        )
    digest = approvals.check_digest(digest) if digest else ""
    with Services(load(profile)) as services:
        if job is None:
            waiting, more = approvals.waiting(services.parties)
            found = [approvals.described(each) for each in waiting]
            if json:
                console.emit({"jobs": found, "more": more})
            elif not found:
                console.line("No job waits for your yes.")
            for each in () if json else found:
                for text in approvals.lines(each):
                    console.line(text)
            if more and not json:
                console.note(f"{more} more wait for you, and are listed once these are settled.")
            return
        what = approvals.find(services.parties, job)
        approvals.check_same(what, digest)
        described = approvals.described(what)
        if not json:
            for text in approvals.lines(described):
                console.line(text)
        if not (yes or deny):
            if json:
                console.emit(described)
                return
            if not typer.confirm("Shall it run?", err=True):
                console.note(f"Nothing was said. To refuse it: masque approve {job} --deny")
                return
        still = approvals.say(services.parties, what, yes=not deny, reason=reason)
    if json:
        console.emit({"job": job, "yes": not deny, "waits_for": still})
        return
    others = sorted({name for names in still.values() for name in names})
    console.line(
        f"{job}: {'denied' if deny else 'approved'} at {', '.join(still)}"
        + (f"; it still waits for {' or '.join(others)}" if others and not deny else "")
    )
