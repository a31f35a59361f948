"""Do the parties hold what a job names? Compared by upload and by public description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from masque.data.table import parse_table
from masque.errors import MasqueError, ProtocolError, Refused
from masque.jobs.bound import BoundJob
from masque.jobs.fit import SharedTable


def check_held(job: BoundJob, held: Iterable[SharedTable], party: str) -> None:
    """Does `party` hold exactly the uploads that the job names? Raises Refused naming the first
    data set that it lacks, holds another upload of, or knows with other columns or conditions.
    """
    own = {table.name: table for table in held}
    for table in job.shared:
        mine = own.get(table.name)
        if mine is None:
            problem = f"{party} does not hold the data set {table.name!r}"
        elif mine.upload != table.upload:
            problem = f"{party} holds another upload of the data set {table.name!r}"
        elif mine.info != table.info:
            problem = f"{party} knows the data set {table.name!r} with another description"
        elif mine.conditions != table.conditions:
            problem = f"{party} knows the data set {table.name!r} with other conditions"
        else:
            continue
        raise Refused(
            f"{problem} than job {job.job_id} names." if mine else f"{problem}.",
            hint=f"Share {table.name!r} again, to all parties.",
            party=party,
            dataset=table.name,
            job=job.job_id,
        )


def table_told(party: str, name: str, upload: str, table: str, conditions: str) -> SharedTable:
    """A data set as `party` tells of it, its public metadata as JSON. Raises ProtocolError."""
    try:
        info = parse_table(table)
        return SharedTable(name=name, upload=upload, info=info, conditions=conditions)
    except (ValidationError, MasqueError):
        raise ProtocolError(
            f"{party} tells of a data set that is none.",
            hint="Check that all services run the same version of Masque.",
            peer=party,
        ) from None


def agreed_tables(held: Mapping[str, Iterable[SharedTable]]) -> tuple[list[SharedTable], list[str]]:
    """The data sets that all parties hold alike, and in words what is wrong with the others.

    `held` has the data sets of every party by its name.
    """
    by_party = {party: {table.name: table for table in tables} for party, tables in held.items()}
    agreed, problems = [], []
    for name in sorted({name for tables in by_party.values() for name in tables}):
        lacking = [party for party, tables in by_party.items() if name not in tables]
        if lacking:
            problems.append(f"{name!r} is not at {', '.join(lacking)}; share it again")
            continue
        first, *others = ((party, tables[name]) for party, tables in by_party.items())
        different = [party for party, table in others if table != first[1]]
        if different:
            problems.append(_difference(first, (different[0], by_party[different[0]][name])))
            continue
        agreed.append(first[1])
    return agreed, problems


def _difference(one: tuple[str, SharedTable], other: tuple[str, SharedTable]) -> str:
    (here, mine), (there, theirs) = one, other
    same = (mine.upload, mine.info) == (theirs.upload, theirs.info)
    what = "has other conditions" if same else "is another upload"
    return f"{mine.name!r} at {there} {what} than at {here}; share it again"
