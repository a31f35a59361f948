"""The network between machines: delays, cuts, partitions, silence; and who listens where.

A message takes a while, drawn anew for each, but no message of a stream overtakes another of it.
While a link is partitioned, or a machine hangs, messages wait; when that lasts as long as a ping
may take (`KEEPALIVE`), the connection is dead and both ends learn it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.worlds import Host, World

if TYPE_CHECKING:
    from tests.simulation.calls import Call
    from tests.simulation.servers import Listener

KEEPALIVE = 8.0
"""Seconds until a dead connection is noticed: a ping after four, answered within four."""

REFUSED = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:{at}: Failed to connect to "
    "remote host: connect: Connection refused (111)"
)
TIMED_OUT = "failed to connect to all addresses; last error: UNKNOWN: ipv4:{at}: timed out"
RESET = "recvmsg:Connection reset by peer"
SILENT = "keepalive watchdog timeout"


@dataclass
class Weather:
    """How a network behaves. Seconds, and shares of one. What comes `twice` may come the second
    time up to `behind` seconds after the first.
    """

    least: float = 0.0002
    most: float = 0.003
    slow: float = 0.0
    slowest: float = 0.5
    twice: float = 0.0
    behind: float = 0.0


@dataclass(eq=False)
class Network:
    """All links of a world. Hosts are known by name, whichever of their lives they are in."""

    world: World
    random: Random
    weather: Weather
    listeners: dict[str, Listener] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    apart: dict[frozenset[str], int] = field(default_factory=dict)
    _held: list[tuple[frozenset[str], Callable[[], None]]] = field(default_factory=list)
    _cuts: int = 0

    def delay(self) -> float:
        """How long a message takes."""
        weather, random = self.weather, self.random
        if weather.slow and random.random() < weather.slow:
            return weather.slowest * random.random()
        return weather.least + (weather.most - weather.least) * random.random()

    def silent(self, one: str, other: str) -> bool:
        """Whether nothing comes through between two hosts just now."""
        if frozenset((one, other)) in self.apart:
            return True
        return any(name in self.hosts and self.hosts[name].hung for name in (one, other))

    def carry(self, one: str, other: str, deliver: Callable[[], None], after: float = 0.0) -> float:
        """Deliver something from `one` to `other` once it has travelled, not before `after`.

        Returns when it arrives, if nothing comes between.
        """
        world = self.world
        arrival = max(after, world.now + self.delay())

        def arrive() -> None:
            if self.silent(one, other):
                self._held.append((frozenset((one, other)), deliver))
            else:
                deliver()

        world.upon(arrival, arrive)  # not after a span: rounding would let it overtake
        return arrival

    def part(self, pairs: Iterable[tuple[str, str]]) -> int:
        """Let nothing through between these; `heal` with the number that is returned ends it."""
        self._cuts += 1
        number = self._cuts
        for pair in pairs:
            link = frozenset(pair)
            self.apart[link] = number
            self.world.note(f"partition {' '.join(sorted(link))}")
        self.world.at(KEEPALIVE, lambda: self._give_up(number))
        return number

    def heal(self, number: int) -> None:
        """End a partition: what waited goes on."""
        for link in [link for link, cut in self.apart.items() if cut == number]:
            del self.apart[link]
            self.world.note(f"healed {' '.join(sorted(link))}")
        self.flush()

    def flush(self) -> None:
        """Deliver, in order, what nothing holds up any more."""
        held, self._held = self._held, []
        for link, deliver in held:
            if self.silent(*sorted(link)):
                self._held.append((link, deliver))
            else:
                deliver()

    def hang(self, host: Host) -> None:
        """A host does nothing any more; its connections die if that lasts."""
        host.hang()
        self.world.at(KEEPALIVE, lambda: self._silence(host))

    def resume(self, host: Host) -> None:
        """It goes on."""
        host.resume()
        self.flush()

    def cut(self, one: str, other: str | None = None, *, why: str = RESET) -> None:
        """Break the connections between two hosts, or all of one, now."""
        for call in list(self.calls.values()):
            ends = {call.client.name, call.target}
            if one in ends and (other is None or other in ends):
                call.broken(why)

    def bury(self, host: Host, after: float) -> None:
        """A host is dead: whoever talks with it learns that so many seconds later."""
        for address, listener in list(self.listeners.items()):
            if listener.host is host:
                del self.listeners[address]
        left = [c for c in self.calls.values() if host in (c.client, c.server)]
        why = RESET if after < 1 else SILENT

        def learn() -> None:
            for call in left:
                call.broken(why)

        self.world.at(after, learn)

    def _give_up(self, number: int) -> None:
        for link in [link for link, cut in self.apart.items() if cut == number]:
            self._held = [(at, deliver) for at, deliver in self._held if at != link]
            self.cut(*sorted(link), why=SILENT)

    def _silence(self, host: Host) -> None:
        if host.hung and not host.dead:
            self._held = [(at, deliver) for at, deliver in self._held if host.name not in at]
            self.cut(host.name, why=SILENT)
