"""What services still hold of jobs once all of them have ended: nothing, after a while.

Room at the coordinator, attempts at parties, ways between them, material at the dealer; and on the
disks of parties, checkpoints and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from masque.wire.hub import Hub
from services.coordinator.room import Room
from services.dealer.register import Register
from services.party.workshop import PartyWorkshop
from tests.simulation.villages import LEASE, Village
from tests.simulation.worlds import Host, World

PATIENCE = 2 * LEASE + 60.0
"""Seconds after the last job within which everything is given back: what hears of no end by itself
waits for a lease, and who was away is told when it is back.
"""

LOOK = 1.0
"""Seconds between two looks: each goes through all folders."""

HOLDERS: dict[type[Any], Callable[[Any], object]] = {
    Room: lambda room: [*room._claims, *room._waiting],
    PartyWorkshop: lambda workshop: sorted(map(str, workshop._open)),
    Hub: lambda hub: [*hub._open, *hub._waiting],
    Register: lambda register: register.active,
}
"""What holds something of jobs, and how to see it."""

FOLDERS = ("checkpoints", "results")
"""What parties have on disk for jobs under way."""


@dataclass(eq=False)
class Leftovers:
    """What is left in a village."""

    village: Village
    held: list[tuple[Host, Any]] = field(default_factory=list)

    def found(self) -> list[str]:
        """What is not given back yet, in words; of services that are up."""
        words = []
        for host, holder in self.held:
            what = HOLDERS[type(holder)](holder)
            if what and not host.dead and not host.hung:
                words.append(f"{host.name} holds {what} ({type(holder).__name__})")
        for name in self.village.parties:
            service = self.village.services[name]
            if not service.host.dead and not service.host.hung:
                root = service.disk.root
                files = [path for folder in FOLDERS for path in (root / folder).glob("**/*")]
                words += [f"{name} has {path.relative_to(root)}" for path in files]
        return words

    def check(self, world: World) -> None:
        """Wait until nothing is left; break the rule if something stays."""
        end = world.now + PATIENCE
        while (left := self.found()) and world.now < end and not world.violations:
            world.run(lambda: False, world.now + LOOK)
        if left and not world.violations:
            world.break_rule("leaves nothing", "; ".join(left[:4]))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Know of everything that holds something of jobs from here on."""
        with ExitStack() as patches:
            for kind in HOLDERS:
                made = _noted(kind.__init__, self.held)
                patches.enter_context(mock.patch.object(kind, "__init__", made))
            yield


def _noted(real: Callable[..., None], held: list[tuple[Host, Any]]) -> Callable[..., None]:
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        held.append((World.current.here, self))

    return init
