"""What jobs and kills leave on disk and in logs: ledgers whole, nothing twice, no checkpoint."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from masque.wire.ledgers import verify_ledger
from tests.survival.villages import Village, until


def check(place: Village, job_ids: Sequence[str]) -> None:
    """Everything below; `job_ids` are those that have ended. AssertionError says what is wrong."""
    trust = place.net.services.credentials.trust
    for party in place.net.network.party_names:
        verify_ledger(place.file(party, "ledger.jsonl"), trust)
        folder = place.file(party, "checkpoints")
        assert until(partial(_empty, folder), 30), f"{party} keeps {list(folder.iterdir())}"
        check_attempts(place, party, "job accepted for checking", job_ids)
    dealer = place.net.network.places[0].name
    check_attempts(place, dealer, "job announced", job_ids)
    streams = Counter(
        (said["job"], said["attempt"], said["party"])
        for said in log_of(place, dealer)
        if said["event"] == "party connected"
    )
    twice = [key for key, count in streams.items() if count > 1]
    assert streams, "the dealer's log tells of streams"
    assert not twice, f"material was given out twice: {twice}"
    for name in place.names:
        accidents = [said for said in log_of(place, name) if said["level"] == "error"]
        assert not accidents, f"{name} had an accident: {accidents[0]}"


def check_attempts(place: Village, name: str, event: str, job_ids: Sequence[str]) -> None:
    """A service takes up attempts of a job in their order, each once."""
    taken: dict[str, list[int]] = defaultdict(list)
    for said in log_of(place, name):
        if said["event"] == event:
            taken[said["job"]].append(said["attempt"])
    for job_id in job_ids:
        attempts = taken[job_id]
        assert attempts, f"{name} took part in {job_id}"
        assert attempts == sorted(set(attempts)), f"{name} took up {job_id} as {attempts}"


def log_of(place: Village, name: str) -> Iterator[dict[str, Any]]:
    """The lines of a service's log, in order; one that a kill has torn is left out."""
    path = place.net.place(name).log
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            said = json.loads(line[max(0, line.find('{"')) :])
        except ValueError:
            continue
        if isinstance(said, dict) and {"event", "level"} <= said.keys():
            yield said


def _empty(folder: Path) -> bool:
    return not list(folder.iterdir())
