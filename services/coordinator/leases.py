"""Who was asked for something, when he last showed that he lives, and what he is about.

Everybody who is asked shows signs of life while he works, and says how far he is: while he prepares
by the CPU that he has used, in a training round by traffic. Nothing else has a deadline of its own:
who is silent for as long as the lease lasts, or comes no further, is named, with what he was doing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from masque.wire.failures import clean

MARGIN = 5.0
"""Seconds by which we are more patient than parties are with one another: they know better."""

MOST_WORDS = 200
"""Characters of what somebody says that it does."""


@dataclass
class _Sign:
    """Of one service, in seconds of the clock: when it lived, and when it last came further."""

    lived: float
    moved: float
    numbers: tuple[int, int, int] = (-1, -1, -1)
    doing: str = ""
    waits_for: str = ""


@dataclass(frozen=True)
class Late:
    """Who lets the others wait, and what he does instead."""

    culprit: str
    doing: str


class Leases:
    """The leases of one attempt, `seconds` long. Safe in any thread."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock, self._lock = clock, Lock()
        self._signs: dict[str, _Sign] = {}

    def grant(self, peers: Iterable[str]) -> None:
        """These are asked for something now."""
        now = self._clock()
        with self._lock:
            self._signs |= {peer: _Sign(now, now) for peer in peers}

    def alive(self, peer: str, progress: Any) -> None:
        """A sign of life, or a piece of what was asked for; `progress`: how far the work on it is,
        a RoundProgress, where there is some."""
        now = self._clock()
        with self._lock:
            sign = self._signs.setdefault(peer, _Sign(now, now))
            sign.lived = now
            if progress is None:
                sign.moved = now
                return
            traffic = progress.traffic
            numbers = (int(traffic.exchanges), int(traffic.corrections), int(progress.worked))
            if numbers != sign.numbers:
                sign.numbers, sign.moved = numbers, now
            sign.doing = clean(progress.doing, MOST_WORDS)
            sign.waits_for = progress.waits_for

    def late(self, waiting: frozenset[str]) -> Late | None:
        """Whether one of those `waiting` for is silent, or all of them come no further."""
        now = self._clock()
        with self._lock:
            signs = {peer: self._signs[peer] for peer in sorted(waiting) if peer in self._signs}
            known = set(self._signs)
        silent = [p for p, sign in signs.items() if now - sign.lived > self.seconds]
        if silent:
            return Late(", ".join(silent), f"no sign of life for {self.seconds:g} s")
        limit = self.seconds + MARGIN
        if signs and all(now - sign.moved > limit for sign in signs.values()):
            name = _end_of_chain(signs, known)
            doing = signs[name].doing if name in signs else "it lets the others wait"
            return Late(name, f"no progress for {limit:g} s: {doing or 'nothing is known'}")
        return None

    def slowest(self, waiting: frozenset[str]) -> str:
        """Who of those `waiting` for lets the others wait, as far as that can be told."""
        now = self._clock()
        with self._lock:
            signs = {peer: self._signs[peer] for peer in sorted(waiting) if peer in self._signs}
            known = set(self._signs)
        silent = [p for p, sign in signs.items() if now - sign.lived > MARGIN]
        if silent:
            return ", ".join(silent)
        name = _end_of_chain(signs, known) if signs else ""
        own = signs.get(name)
        if not name or (own is not None and (not own.doing or own.waits_for in known)):
            return ", ".join(sorted(waiting))  # it has said nothing, or they wait in a circle
        return name

    def doing(self, waiting: frozenset[str]) -> str:
        """What those `waiting` for are about, in words."""
        with self._lock:
            known = [
                f"{p} {self._signs[p].doing}"
                for p in sorted(waiting)
                if p in self._signs and self._signs[p].doing
            ]
        return ", ".join(known)


def _end_of_chain(signs: dict[str, _Sign], known: set[str]) -> str:
    """Who waits for nobody, or whom the others wait for; one of those `known` anyhow."""
    at, seen = next(iter(signs)), set[str]()
    while at in signs and signs[at].waits_for in known and at not in seen:
        seen.add(at)
        at = signs[at].waits_for
    return at
