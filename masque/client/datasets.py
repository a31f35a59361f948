"""What the parties hold, compared: a data set is usable when all of them hold the same upload."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from masque.client.services import BRIEF, Peer
from masque.data.table import TableInfo
from masque.errors import IdentityError, NotFound
from masque.jobs.complaints import suggestion
from masque.jobs.conditions import Conditions
from masque.jobs.fit import SharedTable
from masque.jobs.held import agreed_tables, table_told
from masque.v1 import party_pb2 as messages
from masque.wire.conditions import read_statement


@dataclass(frozen=True)
class Held:
    """One data set at one party."""

    table: SharedTable
    owner: str
    created: str


@dataclass(frozen=True)
class DatasetView:
    """A data set in a list; `problem` says why it cannot be used, if it cannot."""

    name: str
    owner: str
    created: str
    info: TableInfo
    parties: tuple[str, ...]
    problem: str = ""
    conditions: Conditions | None = None


def held(party: Peer) -> list[Held]:
    """What one party holds."""
    with party.calling() as stub:
        reply = stub.ListDatasets(messages.ListDatasetsRequest(), timeout=BRIEF)
    return [
        Held(
            table_told(party.name, d.name, d.upload_id, d.table_json, d.conditions),
            d.owner,
            d.created,
        )
        for d in reply.datasets
    ]


def everywhere(parties: Sequence[Peer]) -> dict[str, list[Held]]:
    """What every party holds, asked at the same time."""
    with ThreadPoolExecutor(len(parties)) as threads:
        return dict(zip([p.name for p in parties], threads.map(held, parties), strict=True))


def datasets(parties: Sequence[Peer]) -> list[DatasetView]:
    """All data sets by name, with what is wrong with those that the parties do not share alike."""
    found = everywhere(parties)
    _, problems = agreed_tables({p: [h.table for h in held] for p, held in found.items()})
    views = []
    for name in sorted({h.table.name for held in found.values() for h in held}):
        having = {p: h for p, held in found.items() for h in held if h.table.name == name}
        first = next(iter(having.values()))
        problem = next((text for text in problems if text.startswith(repr(name))), "")
        rules, wrong = _rules(first.table)
        problem = problem or wrong
        views.append(
            DatasetView(
                name,
                first.owner,
                first.created,
                first.table.info,
                tuple(having),
                problem,
                rules,
            )
        )
    return views


def _rules(table: SharedTable) -> tuple[Conditions | None, str]:
    """The conditions of a data set, and why they keep everybody from using it, if they do."""
    if not table.conditions:
        return None, ""
    try:
        rules = read_statement(table.conditions).conditions
    except IdentityError:
        return None, f"{table.name!r} has conditions that cannot be read here"
    over = rules.expired(dt.datetime.now(dt.UTC))
    return rules, f"{table.name!r} was for use until {rules.expires}" if over else ""


def delete(parties: Sequence[Peer], name: str) -> tuple[str, ...]:
    """Remove a data set of ours everywhere; returns the parties that had it. Raises NotFound."""
    found = everywhere(parties)
    names = sorted({h.table.name for held in found.values() for h in held})
    having = [p for p in parties if any(h.table.name == name for h in found[p.name])]
    if not having:
        raise NotFound(
            f"There is no data set {name!r} at any party.",
            hint=suggestion(name, names),
            dataset=name,
        )
    for party in having:
        with party.calling() as stub:
            stub.DeleteDataset(messages.DeleteDatasetRequest(name=name), timeout=BRIEF)
    return tuple(party.name for party in having)
