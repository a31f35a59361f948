"""What an attempt at a party opens: for how long, and what is left of it if it comes to nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from masque.errors import NotFound
from services.party import around, preparing, workshop
from services.party.around import Surroundings
from services.party.settings import PartyLimits
from services.party.workshop import PartyWorkshop
from tests.jobs.examples import bound
from tests.services.handmade import compile_handmade

WEEKS = 30 * 86_400.0


def nothing(*_: object, **__: object) -> None:
    return None


@pytest.fixture
def party() -> PartyWorkshop:
    """Without anything on disk."""
    anything: Any = SimpleNamespace(follow=nothing, spool=None)
    credentials: Any = SimpleNamespace(
        identity=SimpleNamespace(name="party-0", project="demo", uri="")
    )
    around = Surroundings(
        credentials, {"party-1": "127.0.0.1:1"}, "dealer", "127.0.0.1:2", "coordinator"
    )
    limits = PartyLimits(job_seconds=WEEKS)
    parts: dict[str, Any] = dict.fromkeys(PartyWorkshop.__init__.__annotations__, anything)
    parts |= {"around": around, "recipients": Path(), "limits": limits}
    parts |= {"compile": compile_handmade}
    del parts["return"]
    return PartyWorkshop(**parts)


def test_a_data_set_that_goes_just_then_leaves_no_way_open(
    party: PartyWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    for name in ("check_outputs", "checkpoint_of", "source_of"):
        monkeypatch.setattr(preparing, name, nothing)

    def gone(name: str) -> None:
        raise NotFound(f"there is no data set {name!r} here.")

    party._store = SimpleNamespace(entry=gone)  # type: ignore[assignment]
    monkeypatch.setattr(PartyWorkshop, "_doors", lambda *_: opened.append("doors"))
    job = bound()
    with pytest.raises(NotFound):
        party._attempt(job, compile_handmade(job), 0, {}, nothing)
    assert opened == []


def test_the_streams_of_an_attempt_last_as_long_as_a_job_may(
    party: PartyWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}

    def exchange(*_: object, **options: Any) -> None:
        found["lifetime"] = options["lifetime"]

    def stock(dealer: str, open: Any, *_: object, **__: object) -> None:
        open()

    class Stub:
        def __init__(self, channel: object) -> None:
            pass

        def Correlations(self, request: object, timeout: float) -> None:
            found["timeout"] = timeout

    monkeypatch.setattr(workshop, "PeerExchange", exchange)
    monkeypatch.setattr(workshop, "Stock", stock)
    monkeypatch.setattr(around, "DealerStub", Stub)
    for module in (around, workshop):
        monkeypatch.setattr(module, "Pinned", lambda *_, **__: SimpleNamespace(channel=None))
    job, source = bound(), None
    party._doors(job, compile_handmade(job), 0, source, nothing)  # type: ignore[arg-type]
    assert found == {"lifetime": WEEKS, "timeout": WEEKS}
