"""What has been disclosed of each data set so far: added up from a party's ledger.

A data set is counted by owner and name, whatever upload: one that is replaced, or deleted and
shared again, goes on where it was, since its rows may be the same. What an attempt of a job
discloses counts for each of the data sets that it was accepted with; an attempt that discloses
anything counts with all its epsilon and delta, and another attempt of the same job counts again.
Attempts that are under way count with the most that they may disclose.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from masque.jobs import chain
from masque.jobs.disclosed import NOTHING, Disclosed, price

Attempt = tuple[str, int]
"""Job and attempt."""

Dataset = tuple[str, str]
"""Owner and name."""


@dataclass
class _Use:
    """One attempt: on which data sets, what it has disclosed, and what it still may."""

    datasets: frozenset[Dataset] = frozenset()
    privacy: Mapping[str, Any] | None = None
    disclosed: Disclosed = NOTHING
    most: Disclosed | None = field(default=None)


class Spending:
    """Give it to `Ledger.follow`. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: dict[Attempt, _Use] = {}

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Take in an entry of the ledger."""
        kind = entry.get("kind")
        if kind not in (chain.ACCEPTED, chain.OPENED):
            return
        with self._lock:
            use = self._uses.setdefault((entry["job"], entry["attempt"]), _Use())
            if kind == chain.ACCEPTED:
                use.datasets |= {(d["owner"], d["name"]) for d in entry["data"]}
                use.privacy = entry["privacy"]
            else:
                bits = use.disclosed.bits + int(entry["bits"])
                use.disclosed = Disclosed(bits, *price(use.privacy))

    def given(self, owner: str, name: str) -> Disclosed:
        """What all attempts have disclosed of a data set, or still may."""
        with self._lock:
            total = NOTHING
            for use in self._uses.values():
                if (owner, name) in use.datasets:
                    total += use.disclosed if use.most is None else use.most
            return total

    def reserve(self, attempt: Attempt, most: Disclosed) -> None:
        """An attempt that was accepted may disclose so much, until it is let go."""
        with self._lock:
            self._uses[attempt].most = most

    def let_go(self, attempt: Attempt) -> None:
        """An attempt is over: what it has disclosed is what counts."""
        with self._lock:
            if attempt in self._uses:
                self._uses[attempt].most = None
