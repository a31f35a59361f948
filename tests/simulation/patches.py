"""What services import, replaced while worlds run: threads, clocks, gRPC, TLS, SQLite, logs.

Names are replaced where a module of ours holds them, also as defaults of arguments, so that nothing
else in this process notices (`os` is the exception: see `watching`).
"""

from __future__ import annotations

import concurrent.futures
import datetime
import gc
import os
import queue
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType
from typing import Any
from unittest import mock

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from greenlet import getcurrent

from masque.wire import heartbeat, memory, pinned, preflight, server
from masque.wire.identity import Identity
from masque.wire.tls import Credentials
from tests.simulation import calls, databases, locks, servers, threads, watching
from tests.simulation.network import Network
from tests.simulation.worlds import Task, World

PREFIXES = ("masque.", "services.")

Heard = Callable[[str, str, dict[str, Any]], None]


class _Module(ModuleType):
    """A module some of whose names are replaced."""

    def __init__(self, real: ModuleType, **changed: Any) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(changed)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)


class _Moment(datetime.datetime):
    """`datetime.datetime`, whose now is the world's."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return datetime.datetime.fromtimestamp(threads.wall(), tz)


_PRIMITIVES: dict[Any, Any] = {
    threading.Lock: locks.Lock,
    threading.RLock: locks.RLock,
    threading.Condition: locks.Condition,
    threading.Event: locks.Event,
    threading.Thread: threads.Thread,
    threading.Timer: threads.Timer,
    threading.current_thread: threads.current_thread,
    threading.main_thread: threads.main_thread,
    queue.Queue: threads.Queue,
    queue.SimpleQueue: threads.Queue,
    concurrent.futures.ThreadPoolExecutor: threads.ThreadPoolExecutor,
    concurrent.futures.Future: threads.Future,
    concurrent.futures.wait: threads.wait,
    time.monotonic: threads.monotonic,
    time.perf_counter: threads.monotonic,
    time.time: threads.wall,
    time.time_ns: threads.wall_ns,
    time.sleep: threads.sleep,
    os.urandom: watching.urandom,
    sqlite3.connect: databases.Connection,
    datetime.datetime: _Moment,
}


def _replacements() -> dict[int, Any]:
    """What stands in for what, by the identity of the real thing."""
    found: dict[int, Any] = {id(real): sham for real, sham in _PRIMITIVES.items()}
    modules = (threading, queue, time, concurrent.futures, sqlite3, datetime)
    for module in modules:
        changed = {
            name: found[id(value)] for name, value in vars(module).items() if id(value) in found
        }
        found[id(module)] = _Module(module, **changed)
    return found


def _places(found: dict[int, Any]) -> Iterator[tuple[Callable[[Any], None], Any, Any]]:
    """(how to put something there, what is there, what belongs there), for all of our modules."""
    for name, module in sorted(sys.modules.items()):
        if not name.startswith(PREFIXES) or "_pb2" in name:
            continue
        for key, value in list(vars(module).items()):
            if id(value) in found:
                yield _setter(vars(module), key), value, found[id(value)]
            for function in _functions(value, name):
                yield from _defaults(function, found)


def _setter(space: Any, key: Any) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        space[key] = value

    return put


def _functions(value: Any, module: str) -> Iterator[FunctionType]:
    if isinstance(value, FunctionType) and value.__module__ == module:
        yield value
    if isinstance(value, type) and value.__module__ == module:
        for each in vars(value).values():
            if isinstance(each, FunctionType):
                yield each


def _defaults(
    function: FunctionType, found: dict[int, Any]
) -> Iterator[tuple[Callable[[Any], None], Any, Any]]:
    """Defaults of arguments, and what a data class makes them from, are taken at definition."""
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        if id(content) in found:
            yield _cell_setter(cell), content, found[id(content)]
    named = function.__kwdefaults__ or {}
    for key, value in named.items():
        if id(value) in found:
            yield _setter(named, key), value, found[id(value)]
    given = function.__defaults__
    if given and any(id(value) in found for value in given):
        changed = tuple(found.get(id(value), value) for value in given)
        yield _default_setter(function), given, changed


def _cell_setter(cell: Any) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        cell.cell_contents = value

    return put


def _default_setter(function: FunctionType) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        function.__defaults__ = value

    return put


# -- gRPC and TLS --------------------------------------------------------------------------------

_networks: list[Network] = []


def use(network: Network) -> None:
    """From now on, gRPC is this network."""
    _networks[:] = [network]


def _channel(address: str, credentials: Any, options: Any = None) -> calls.Channel:
    return calls.Channel(_networks[0], address, credentials)


def _server(pool: Any, interceptors: Any = (), **_: Any) -> servers.Listener:
    return servers.Listener(_networks[0], pool, interceptors)


def _channel_credentials(self: Credentials, only: Any = None) -> calls.ChannelCredentials:
    return calls.ChannelCredentials(self.identity.uri, self.certificate_pem)


def _check_connection(
    address: str, expected: Identity, credentials: Credentials, *, patience: float = 3.0
) -> x509.Certificate:
    """As far as it is the network's: who listens there, and does it answer?"""
    network, world = _networks[0], World.current
    listener = network.listeners.get(address)
    target = listener.host.name if listener is not None else expected.name
    error: OSError
    if network.silent(world.here.name, target):
        world.sleep(patience)
        error = TimeoutError("timed out")
    else:
        world.sleep(2 * network.delay())
        listener = network.listeners.get(address)
        if listener is not None:
            found: x509.Certificate = listener.certificate
            return found
        error = ConnectionRefusedError(111, "Connection refused")
    raise preflight._broken(error, address, expected) from None


class _Deterministic(ec.ECDSA):
    """Signatures that follow from what is signed."""

    def __init__(self, algorithm: Any, *_: Any, **__: Any) -> None:
        super().__init__(algorithm, deterministic_signing=True)


def _key(curve: Any, backend: Any = None) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(os.urandom(31), "big") + 1, curve)


class _Builder(x509.CertificateBuilder):
    """The same for certificates."""

    def sign(self, private_key: Any, algorithm: Any, *_: Any, **__: Any) -> x509.Certificate:
        return super().sign(private_key, algorithm, ecdsa_deterministic=True)


# -- logs ----------------------------------------------------------------------------------------


def _listen(heard: Heard) -> Callable[[Any, str, Any], Any]:
    def listen(logger: Any, level: str, fields: Any) -> Any:
        if isinstance(getcurrent(), Task):
            heard(level, str(fields.pop("event", "")), fields)
        raise structlog.DropEvent

    return listen


@contextmanager
def logging_to(heard: Heard) -> Iterator[None]:
    """Services' logs go to `heard`: level, event, fields."""
    before = structlog.get_config()
    structlog.configure(
        processors=[_listen(heard)],
        wrapper_class=structlog.make_filtering_bound_logger(10),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def simulated() -> Iterator[None]:
    """While it lasts, our modules run on whatever `World` is current."""
    found = _replacements()
    places = list(_places(found))
    with ExitStack() as stack:
        for put, real, _ in places:
            stack.callback(put, real)
        for put, _, sham in places:
            put(sham)
        for target, name, sham in (
            (grpc, "secure_channel", _channel),
            (grpc, "server", _server),
            (Credentials, "for_channel", _channel_credentials),
            (Credentials, "for_server", lambda self: self.certificate),
            (pinned, "check_connection", _check_connection),
            (preflight, "check_connection", _check_connection),
            (ec, "ECDSA", _Deterministic),
            (ec, "generate_private_key", _key),
            (x509, "CertificateBuilder", _Builder),
            (heartbeat, "thread_clock", lambda: lambda: 0.0),
            (memory, "give_back_soon", lambda seconds=0.0: None),
            (memory, "of_this_machine", lambda: 8 << 30),
            (server, "INSTALLED", 3600.0),
        ):
            stack.enter_context(mock.patch.object(target, name, sham))
        stack.enter_context(watching.watching())
        gc.collect()
        gc.freeze()
        gc.disable()
        stack.callback(gc.enable)
        stack.callback(gc.unfreeze)
        yield
