"""The exchange between parties over gRPC: one `swap` is one round of the protocol.

    channels = {name: open_peer_channel(address, identity, credentials), ...}
    with PeerExchange(hub, binding, channels).open() as exchange:
        theirs = exchange.swap(ours)        # as often as the program wants, in one thread

Every swap sends the same payload to every other party and waits for theirs. Nothing depends on what
the payloads hold. A payload beyond `DIRECT` bytes is sent by a thread of its own, chunk by chunk,
while the caller's receives: over a long way it fills the sockets long before it is sent, and if all
parties only sent then, none would read. HTTP/2's window bounds what arrives before it is read.

A failure ends the exchange for good: the first error is raised by `swap`, now and ever after, and
told to the other parties with the name of the culprit, so that all of them report the same one.
A crashed peer is noticed when its connection breaks, one that hangs by keepalive within 10 s, one
that is merely slow after `patience` seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc

from masque.errors import Conflict, JobFailed, MasqueError, ProtocolError, Unavailable, passing
from masque.wire.binding import Binding
from masque.wire.failures import translate
from masque.wire.frames import Assembly, Buffer, check_greeting, chunks_of, frame
from masque.wire.hub import Hub
from masque.wire.links import Link, Traffic
from masque.wire.registration import Registration

PATIENCE = 60.0
OPENING = 30.0
LIFETIME = 24 * 3600.0
DIRECT = 1 << 18
"""Bytes of payload up to which the thread that swaps sends by itself, before it receives."""

_RETRY = 0.2
_DEAF = 2.0
"""Seconds to learn why a peer stopped listening before that itself is the error."""


Meaning = Callable[[str, grpc.RpcError], MasqueError]


def _meaning(peer: str, error: grpc.RpcError) -> MasqueError:
    return translate(error, service=f"party {peer!r}")


class PeerExchange:
    """`masque.mpc.doors.Exchange` between the parties of one attempt of a job.

    `channels` hold one channel per other party, opened with `open_peer_channel`; they stay the
    caller's to close. `patience`: seconds a swap waits for one peer's next message; `opening`:
    seconds for all parties to connect; `lifetime`: deadline of the whole attempt, in seconds;
    `meaning`: what a failed call to a party means.
    `swap` belongs to one thread; `abort` and `close` may be called from any.
    """

    def __init__(
        self,
        hub: Hub,
        binding: Binding,
        channels: Mapping[str, grpc.Channel],
        *,
        patience: float = PATIENCE,
        opening: float = OPENING,
        lifetime: float = LIFETIME,
        meaning: Meaning = _meaning,
    ) -> None:
        assert set(channels) == set(binding.others), "one channel for every other party"
        self._hub, self._binding = hub, binding
        self._patience, self._opening, self._lifetime = patience, opening, lifetime
        self._meaning = meaning
        self._links = [Link(name, channels[name]) for name in binding.others]
        self._registration: Registration | None = None
        self._ending = threading.Lock()
        self._error: MasqueError | None = None
        self._over = threading.Event()
        self._sender = ThreadPoolExecutor(1, "exchange-send")
        self._accepting: tuple[Callable[[], None], float] | None = None
        self._awaited: tuple[Callable[[], None], float] | None = None
        self.rounds = 0
        """Swaps finished so far."""
        self.awaits: str | None = None
        """The party whose message a swap waits for."""

    @property
    def traffic(self) -> dict[str, Traffic]:
        """What went to and came from every peer so far, by name."""
        return {link.peer: link.traffic for link in self._links}

    @property
    def waited(self) -> float:
        """Seconds that swaps have waited for peers."""
        return sum(link.traffic.waited for link in self._links)

    def open(self) -> Self:
        """Connect to every other party and compare what both are about to run.

        Raises `Refused` (the difference is named), `IdentityError`, `Unavailable` (a party does
        not answer within `opening` seconds), `Conflict` (the attempt was used before).
        """
        until = time.monotonic() + self._opening
        self._check_usable()
        self._registration = self._hub.register(self._binding, self.abort)
        threading.Thread(target=self._watch, name="exchange-watch", daemon=True).start()
        try:
            for link in self._links:
                self._connect(link, until)
            streams = self._registration.wait(until)
            for link in self._links:
                link.outgoing = streams[link.peer]
            self._check_usable()  # aborted meanwhile
        except Exception as error:
            first = self._fail(error)
            self._registration.close(self._notice(first))  # an abort before it was made missed it
            raise first from None
        finally:
            self._awaited = None
        return self

    def swap(self, payload: Buffer) -> Sequence[memoryview]:
        """One round: `payload` to all others; theirs, of equal length, in party order.

        Raises `Unavailable` (a peer died, hangs or is too slow), `ProtocolError` (it sent something
        else than was due), `JobFailed` (it gave up and says why), or what `abort` was given.
        """
        self._check_usable()
        assert self._links[0].outgoing is not None, "open the exchange first"
        try:
            received = self._trade(payload)
        except Exception as error:
            raise self._fail(error) from None
        except BaseException:
            self.abort("The worker was interrupted.")
            raise
        self.rounds += 1
        return received

    def abort(self, reason: MasqueError | str) -> None:
        """End the exchange: a `swap` that waits raises `reason`, and the other parties are told.

        `reason` is shown to people at every party: it must hold nothing secret. A text becomes
        a `JobFailed` of this party. Does nothing if the exchange is over.
        """
        if isinstance(reason, str):
            reason = JobFailed(reason, party=self._binding.name, job=self._binding.job)
        self._end(reason, told=self._notice(reason))

    def close(self) -> None:
        """End the exchange in peace. Does nothing if it is over."""
        error = JobFailed("The exchange was closed.", party=self._binding.name)
        self._end(error, told=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort(self._typed(error))

    def _check_usable(self) -> None:
        if self._error is not None:
            raise self._error

    def _trade(self, payload: Buffer) -> list[memoryview]:
        size = len(payload)
        parts = [Assembly(link.peer, self.rounds, size) for link in self._links]
        sent = None
        if size > DIRECT:
            sent = self._sender.submit(self._send, payload)
        else:
            self._send(payload)
        for _ in range(chunks_of(size)):
            for link, part in zip(self._links, parts, strict=True):
                part.add(self._receive(link))
        self._awaited = None
        if sent is not None:
            sent.result()
        for link in self._links:
            link.traffic.sent += size
            link.traffic.received += size
        return [part.payload() for part in parts]

    def _send(self, payload: Buffer) -> None:
        """`payload` to all others, in this thread or in that of `_sender`."""
        for chunk in range(chunks_of(len(payload))):
            message = frame(self.rounds, payload, chunk)
            for link in self._links:
                self._accepting = (link.stop_sending, time.monotonic() + self._patience)
                link.send(message)
        self._accepting = None

    def _receive(self, link: Link) -> bytes:
        start = time.monotonic()
        patience = _DEAF if link.deaf else self._patience
        self.awaits = link.peer
        self._awaited = (link.stop_receiving, start + patience)
        try:
            message = link.receive()
            while link.deaf:  # it has left: the end of its stream says why
                link.receive()
        except StopIteration:
            raise self._ended_early(link) from None
        except grpc.RpcError as error:
            raise self._explain(link, error) from None
        link.traffic.waited += time.monotonic() - start
        self.awaits = None
        return message

    def _connect(self, link: Link, until: float) -> None:
        cut: MasqueError | None = None
        while True:
            link.dial(self._binding, self._lifetime)
            self._awaited = (link.stop_receiving, until)
            if self._over.is_set():
                link.hang_up()
            try:
                check_greeting(link.receive(), link.peer)
            except StopIteration:
                raise self._ended_early(link) from None
            except (grpc.RpcError, MasqueError) as error:
                reason = self._reason(link, error)
                if cut is not None and type(reason) is Conflict:
                    raise cut from None  # the peer had taken the call that was cut off
                late = time.monotonic() + _RETRY > until
                if type(reason) is not Unavailable or late or self._over.wait(_RETRY):
                    raise reason from None
                cut = reason
            else:
                return

    def _watch(self) -> None:
        """In a thread of its own: break off what waits beyond its time."""
        while not self._over.wait(min(0.25, self._patience / 4)):
            for awaited in (self._accepting, self._awaited):
                if awaited is not None and time.monotonic() > awaited[1]:
                    awaited[0]()

    def _reason(self, link: Link, error: grpc.RpcError | MasqueError) -> MasqueError:
        """Why a link could not be opened; a pinned channel says so itself."""
        if isinstance(error, grpc.RpcError):
            return self._explain(link, error)
        return error if "swap" in error.where else self._located(error, link)

    def _explain(self, link: Link, error: grpc.RpcError) -> MasqueError:
        if self._error is not None:
            return self._error
        if link.expired and error.code() is grpc.StatusCode.CANCELLED:
            return self._located(self._expired(link), link)
        found = self._meaning(link.peer, error)
        return found if "reporter" in found.where else self._located(found, link)

    def _expired(self, link: Link) -> Unavailable:
        seconds = self._opening if link.outgoing is None else self._patience
        what = "stopped listening" if link.deaf else f"sent nothing for {seconds:g} s"
        return Unavailable(
            f"Party {link.peer!r} {what}.",
            hint="Check that it is running and not paused or overloaded, and whether it waits for "
            "the dealer or a third party: see its log.",
        )

    def _located(self, error: MasqueError, link: Link) -> MasqueError:
        """`error` with the peer, the job and the swap in its text and fields."""
        stage = "opening" if link.outgoing is None else f"swap {self.rounds}"
        error.message = f"{error.message} (Job {self._binding.job!r}, {stage}.)"
        error.args = (error.message,)
        where = {"party": link.peer, "job": self._binding.job, "swap": self.rounds}
        error.where = {**where, **error.where}
        return error

    def _ended_early(self, link: Link) -> MasqueError:
        ended = ProtocolError(
            f"Party {link.peer!r} ended its exchange while more was due.",
            hint="Run the same version of Masque at both parties.",
        )
        return self._located(ended, link)

    def _typed(self, error: BaseException) -> MasqueError:
        if isinstance(error, MasqueError):
            return error
        name = self._binding.name  # the text of an accident stays here: it may hold anything
        return JobFailed(
            f"Party {name!r} failed on its own account ({type(error).__name__}).",
            hint="Its log has the reason.",
            party=name,
            job=self._binding.job,
        )

    def _notice(self, error: MasqueError) -> MasqueError:
        """What the other parties are told."""
        if "reporter" in error.where:
            return error
        name, where = self._binding.name, error.where
        culprit = where.get("party") or where.get("service") or name
        return JobFailed(
            f"Party {name!r} gave up job {self._binding.job!r} at swap {self.rounds}: "
            f"{error.message}",
            hint=error.hint,
            party=str(culprit),
            reporter=name,
            job=self._binding.job,
            swap=self.rounds,
            again=passing(error) or None,
        )

    def _fail(self, error: Exception) -> MasqueError:
        """End the exchange on `error`; what to raise: the first error, wherever it came from."""
        typed = self._typed(error)
        self._end(typed, told=self._notice(typed))
        self.awaits = None
        for link in self._links:  # dialled, perhaps, after the end
            link.drain()
        assert self._error is not None, "just set"
        if self._error is typed and typed is not error:
            typed.__cause__ = error
        return self._error

    def _end(self, error: MasqueError, *, told: MasqueError | None) -> None:
        with self._ending:
            if self._error is not None:
                return
            self._error = error
        self._over.set()
        self._sender.shutdown(wait=False)
        if self._registration is not None:
            self._registration.close(told)
        for link in self._links:
            link.hang_up()
        for link in self._links:
            link.drain()
