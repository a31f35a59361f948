"""Dealer, parties and coordinator on simulated machines: started, killed, started again."""

from __future__ import annotations

import datetime as dt
import gc
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import masque.wire  # noqa: F401 - before grpc
from masque.client.profile import Profile
from masque.errors import MasqueError
from masque.wire.authority import create_authority
from masque.wire.host import Host as HostService
from masque.wire.host import offer_host
from masque.wire.identity import Identity, Role
from masque.wire.recipients import create_recipient
from masque.wire.running import load_kernels
from masque.wire.tls import find_credentials
from services.coordinator import main as coordinator
from services.coordinator.settings import CoordinatorSettings
from services.dealer import main as dealer
from services.dealer.settings import DealerSettings
from services.party import main as party
from services.party.settings import PartySettings
from tests.simulation import locks, patches, shortcuts, watching
from tests.simulation.disks import Disk, Image
from tests.simulation.network import KEEPALIVE, Network, Weather
from tests.simulation.worlds import Host, Killed, World

PROJECT = "demo"
PARTIES = ("party-a", "party-b", "party-c")
CLIENTS = ("owner", "analyst")
LEASE = 20.0
"""Seconds that services wait for a sign of life."""

JOB = 600.0
"""Seconds that a job may take in all."""

AGAIN = 2.0
"""Seconds until somebody starts a service again that could not start."""

_POLICY = "{outputs: [sealed, kept, open], minimum_rows: 1, minimum_batch_rows: 1}"

_ADDRESSES = {
    name: f"10.0.0.{at}:7000"
    for at, name in enumerate(("dealer", *PARTIES, "coordinator", *CLIENTS), start=1)
}


@dataclass(frozen=True)
class Ground:
    """What all worlds of a process share: certificates, and a folder for disks."""

    root: Path

    @property
    def people(self) -> Path:
        """Everybody's certificates."""
        return self.root / "certificates"

    @property
    def recipients(self) -> Path:
        """Their keys, public and private."""
        return self.root / "recipients"


@contextmanager
def ground() -> Iterator[Ground]:
    """Simulate while it lasts; certificates are the same ones in every process."""
    memory = Path("/dev/shm")
    place = tempfile.mkdtemp(prefix="masque-", dir=memory if memory.is_dir() else None)
    here = Ground(Path(place))
    try:
        with _killed_in_time(), patches.simulated(), shortcuts.computed_once(), _serving():
            world = World(0)
            host = Host("authority", world)
            world.spawn(host, "issue", partial(_issue, here))
            world.run(lambda: False, 1.0)
            assert not world.errors, world.errors
            yield here
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _killed_in_time() -> Iterator[None]:
    """Who is killed closes no file; Python may say so while it lasts, and not later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()


def _issue(here: Ground) -> None:
    authority = create_authority(here.root / "authority", PROJECT)
    roles = {"dealer": Role.DEALER, "coordinator": Role.COORDINATOR}
    roles |= dict.fromkeys(PARTIES, Role.PARTY) | dict.fromkeys(CLIENTS, Role.CLIENT)
    lifetime = dt.timedelta(days=30)
    for name, role in roles.items():
        authority.issue(Identity(PROJECT, role, name), here.people, lifetime=lifetime)
    analyst = Identity(PROJECT, Role.CLIENT, "analyst")
    (here.root / "policy.yaml").write_text(_POLICY)
    create_recipient(here.recipients, find_credentials(here.people, analyst.stem))


# -- services --------------------------------------------------------------------------------------


@contextmanager
def _serving() -> Iterator[None]:
    with (
        mock.patch.object(dealer, "serve_until_stopped", _serve),
        mock.patch.object(party, "serve_until_stopped", _serve),
        mock.patch.object(coordinator, "serve_until_stopped", _serve),
    ):
        yield


_lives: dict[Host, Service] = {}


def _serve(server: Any, settings: Any, prepare: Any = None, numbers: Any = None) -> None:
    """`masque.wire.running.serve_until_stopped` without signals, ready files and scrapes."""
    service = _lives[World.current.here]
    offer_host(server, HostService(server, settings.volume, protocol=b"simulated"))
    with server:
        if prepare is not None and prepare is not load_kernels:
            prepare()
        server.ready()
        service.up = True
        service.stopping.wait()
        server.stop(0.5, patience=settings.stop_seconds)


Trouble = Callable[[str], Callable[[], None] | None]
"""Hears of every change of a disk, by its kind; what it returns happens instead, and raises."""


@dataclass(eq=False)
class Service:
    """A service in all its lives."""

    village: Village
    role: str
    name: str
    host: Host = field(init=False)
    disk: Disk = field(init=False)
    stopping: locks.Event = field(init=False)
    up: bool = False
    lives: int = 0
    faults: list[Trouble] = field(default_factory=list)

    @property
    def address(self) -> str:
        return _ADDRESSES[self.name]

    def boot(self, image: Image | None = None) -> None:
        """Start the machine with this on its disk, and the service on it."""
        village, world = self.village, self.village.world
        self.lives += 1
        self.up, self.stopping = False, locks.Event()
        self.host = village.network.hosts[self.name] = Host(self.name, world)
        _lives[self.host] = self
        root = village.root / f"{self.name}-{self.lives}"
        steady = "jobs.sqlite" if self.role == "coordinator" else ""
        self.disk = Disk(root, village.random, self._fault, image, steady)
        watching.attach(self.disk)
        world.note(f"boot {self.name}")
        world.spawn(self.host, "main", partial(self._main, root))

    def _fault(self, kind: str) -> Callable[[], None] | None:
        acts = (trouble(kind) for trouble in list(self.faults))
        return next((act for act in acts if act is not None), None)

    def _main(self, root: Path) -> None:
        world = self.village.world
        try:
            match self.role:
                case "dealer":
                    dealer.serve(self.village.dealer_settings(root), shortcuts.compile_any)
                case "party":
                    party.serve(self.village.party_settings(self.name, root), shortcuts.compile_any)
                case _:
                    coordinator.serve(self.village.coordinator_settings(root))
            world.note(f"stopped {self.name}")
        except MasqueError as error:
            world.note(f"{self.name} does not start: {error}")
            self.village.refusals.append(f"{self.name}: {error}")
        self.die(power=False)
        world.at(AGAIN * (1 + self.village.random.random()), self._again)

    def _again(self) -> None:
        if self.host.dead and not self.village.closed:
            self.boot(self.image)

    def die(self, *, power: bool) -> None:
        """The process is killed, or the machine loses its power. In a task of it: then raise."""
        if self.host.dead:
            return
        world, host = self.village.world, self.host
        world.note(f"{'power cut' if power else 'end'} of {self.name}")
        self.image = self.disk.after_power_cut() if power else self.disk.now()
        self.disk.retired = True
        host.dead, self.up = True, False
        self.village.network.bury(host, KEEPALIVE if power else self.village.network.delay())
        world.urgent.append(lambda: world.kill(host))

    def crash(self, *, power: bool, after: float) -> None:
        """Die, and be started again so many seconds later."""
        if not self.host.dead:
            self.die(power=power)
            self.village.world.at(after, self._again)

    def crash_within(self, *, power: bool, after: float) -> None:
        """The same in one of its own tasks."""
        self.crash(power=power, after=after)
        raise Killed

    def stop(self) -> None:
        """SIGTERM; it is started again a while after it has ended."""
        self.village.world.note(f"SIGTERM {self.name}")
        self.stopping.set()


@dataclass(eq=False)
class Village:
    """All services of a world, and the clients' machines."""

    world: World
    ground: Ground
    parties: tuple[str, ...]
    weather: Weather
    at_once: int = 8
    root: Path = field(init=False)
    network: Network = field(init=False)
    services: dict[str, Service] = field(default_factory=dict)
    clients: dict[str, Host] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        seed = self.world.seed
        self.random = Random(f"{seed}/disks")
        self.root = Path(tempfile.mkdtemp(dir=self.ground.root))
        self.world.folder = f"{self.root}/"
        self.network = Network(self.world, Random(f"{seed}/network"), self.weather)
        patches.use(self.network)
        for role, name in (
            ("dealer", "dealer"),
            *(("party", name) for name in self.parties),
            ("coordinator", "coordinator"),
        ):
            self.services[name] = Service(self, role, name)
        for name in CLIENTS:
            self.clients[name] = self.network.hosts[name] = Host(name, self.world)

    def boot(self) -> None:
        """Start everything."""
        for service in self.services.values():
            service.boot()

    @property
    def up(self) -> bool:
        """Whether all services answer."""
        return all(service.up for service in self.services.values())

    def close(self) -> None:
        """Nothing of it goes on."""
        self.closed = True
        hosts = [service.host for service in self.services.values()] + list(self.clients.values())
        for host in hosts:
            host.dead = True
            self.world.kill(host)
        _lives.clear()
        shortcuts.forget()
        if self.world.seed % 50 == 0:
            gc.collect()  # not in the midst of a world, whose finalizers it would call
            gc.freeze()
        watching.detach()
        shutil.rmtree(self.root, ignore_errors=True)

    def profile(self, name: str) -> Profile:
        """What a client knows."""
        peers = [{"name": p, "address": _ADDRESSES[p]} for p in self.parties]
        return Profile.model_validate(
            {
                "project": PROJECT,
                "name": name,
                "tls": {"directory": self.ground.people},
                "coordinator": {"name": "coordinator", "address": _ADDRESSES["coordinator"]},
                "dealer": {"name": "dealer", "address": _ADDRESSES["dealer"]},
                "parties": peers,
                "recipients": self.ground.recipients,
            }
        )

    def _common(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "project": PROJECT,
            "listen": _ADDRESSES[name],
            "tls": {"directory": self.ground.people},
            "stop_seconds": 1.0,
        }

    def dealer_settings(self, root: Path) -> DealerSettings:
        limits = {"lease_seconds": LEASE, "queue_bytes": 1 << 16}
        own = {"coordinator": "coordinator", "limits": limits}
        return DealerSettings.model_validate(self._common("dealer") | own)

    def party_settings(self, name: str, root: Path) -> PartySettings:
        return PartySettings.model_validate(
            self._common(name)
            | {
                "peers": {p: _ADDRESSES[p] for p in self.parties if p != name},
                "dealer": {"name": "dealer", "address": _ADDRESSES["dealer"]},
                "coordinator": "coordinator",
                "data": root,
                "recipients": self.ground.recipients,
                "policy": self.ground.root / "policy.yaml",
                "limits": {"lease_seconds": LEASE, "job_seconds": JOB},
            }
        )

    def coordinator_settings(self, root: Path) -> CoordinatorSettings:
        return CoordinatorSettings.model_validate(
            self._common("coordinator")
            | {
                "store": root / "jobs.sqlite",
                "dealer": {"name": "dealer", "address": _ADDRESSES["dealer"]},
                "parties": [{"name": p, "address": _ADDRESSES[p]} for p in self.parties],
                "jobs": self.at_once,
                "lease_seconds": LEASE,
                "job_seconds": JOB,
            }
        )
