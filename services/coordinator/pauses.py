"""How long a job waits until it is looked at again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 120.0
"""Seconds between two attempts: doubled every time, up to the longest."""

LONGEST_LOOK, LONGEST_YES = 2.0, 8.0
"""Likewise, between two looks whether everybody is there with room, and whether people say yes."""


@dataclass
class Pauses:
    """`looks`: in a row that found something in the way; `asks_people`: it was somebody's yes."""

    looks: int = 0
    asks_people: bool = False

    def after(self, fruitless: int) -> float:
        """Seconds: the more, the more often it was in vain; `fruitless` attempts in a row, or 0."""
        look = min(LONGEST_YES if self.asks_people else LONGEST_LOOK, _doubled(self.looks))
        return max(look, min(LONGEST_PAUSE, _doubled(fruitless))) if fruitless else look


def _doubled(times: int) -> float:
    return FIRST_PAUSE * 2.0 ** (min(max(times, 1), 20) - 1)
