"""How many bytes of shares a store may hold: in all, and of one owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from masque.errors import Refused

Holding = tuple[str, int]
"""Whose, and how many bytes."""


@dataclass(frozen=True)
class Quota:
    """`whole`: of all owners together, with what running jobs keep on disk; `owner`: of each."""

    whole: int | None = None
    owner: int | None = None

    def check_upload(
        self, size: int, owner: str, holdings: Iterable[Holding], spooled: int
    ) -> None:
        """Raises Refused if `size` bytes more of `owner` are too many."""
        found = list(holdings)
        if self._over(size + spooled + sum(held for _, held in found)):
            raise Refused(
                f"the store may hold {self.whole} bytes; this upload does not fit any more.",
                hint="Delete data sets that are no longer needed.",
            )
        theirs = sum(held for name, held in found if name == owner)
        if self.owner is not None and size + theirs > self.owner:
            raise Refused(
                f"{owner!r} may have {self.owner} bytes of shares here; {theirs} are there, and "
                f"{size} more do not fit.",
                hint="Delete data sets that are no longer needed, or ask the party's operator to"
                " raise limits.owner_bytes.",
                owner=owner,
            )

    def check_spool(self, size: int, held: int) -> None:
        """Raises Refused if `size` bytes of a running job are too many beside what is `held`."""
        if self._over(size + held):
            raise Refused(
                f"the store may hold {self.whole} bytes; {size} bytes that a job needs "
                "while it runs do not fit any more.",
                hint="Raise limits.store_bytes of the party, or delete data sets that are no "
                "longer needed; then submit the job again.",
            )

    def _over(self, size: int) -> bool:
        return self.whole is not None and size > self.whole
