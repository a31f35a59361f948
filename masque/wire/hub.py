"""A party's switchboard: which peers may listen to which of its jobs, and the streams to them.

One `Hub` lives in the server of a party. An exchange registers its attempt of a job; every other
party of the job calls `Exchange` once and claims what it is about to run (`masque.wire.binding`).

    the stream is ...                                 and the hub ...
    of somebody else than its certificate says        refuses: IdentityError
    meant for another party                           refuses: Refused
    of an attempt that is registered, as expected     accepts: greets, and hands it over
    of the same, but spec, program or parties differ  refuses, and fails the registration: Refused
    of the same, from a party that is not of the job  refuses: IdentityError
    the second one of the same sender                 refuses: Conflict
    of an attempt that failed                         refuses with the reason of the failure
    of an attempt that is over or was overtaken       refuses: Refused
    of an attempt that nobody registered yet          lets it wait `patience` seconds: NotFound

Nothing here grows without bound: streams that wait, and jobs that are remembered, are limited.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import grpc
import structlog

from masque.errors import Conflict, IdentityError, MasqueError, NotFound, Refused, Unavailable
from masque.wire.authorise import caller
from masque.wire.binding import Binding, Claim, read_claim
from masque.wire.identity import Role
from masque.wire.registration import Registration
from masque.wire.streams import ExchangeHandler, Outgoing

Caller = Callable[[grpc.ServicerContext], str]
"""The name of the party that makes a call, by its certificate; raises `IdentityError`."""

PATIENCE = 30.0
_WAITING = 64
_REMEMBERED = 4096
_log = structlog.get_logger("masque.wire.hub")


def calling_party(context: grpc.ServicerContext) -> str:
    """The name in the caller's certificate; `IdentityError` unless it is a party's."""
    who = caller(context)
    if who.role is not Role.PARTY:
        raise IdentityError(f"{who} may not exchange: parties only.", caller=who.uri)
    return who.name


class Hub:
    """All exchanges of the party called `name`, behind the one method `Exchange`."""

    def __init__(
        self,
        name: str,
        *,
        calling: Caller = calling_party,
        patience: float = PATIENCE,
        direct: bool = True,
    ) -> None:
        self.name = name
        self.handler = ExchangeHandler(self.admit, direct=direct)
        self._calling = calling
        self._patience = patience
        self._lock = threading.Lock()
        self._open: dict[str, Registration] = {}
        self._latest: OrderedDict[str, tuple[int, MasqueError | None]] = OrderedDict()
        self._waiting: dict[tuple[str, int, str], tuple[Claim, Outgoing, threading.Timer]] = {}
        self._closed = False

    def mount(self, server: grpc.Server) -> None:
        """Add the method to a server, as the generated `add_..._to_server` do."""
        server.add_generic_rpc_handlers((self.handler,))

    def register(
        self, binding: Binding, on_error: Callable[[MasqueError], None] | None = None
    ) -> Registration:
        """Begin an attempt; `on_error` hears of a peer that wants to run something else.

        Raises `Conflict` if this attempt or a later one was ever registered, or if an earlier one
        is still open: material is dealt for one attempt and never used in two.
        """
        assert binding.name == self.name, "a hub serves one party"
        registration = Registration(binding, self.forget, on_error)
        with self._lock:
            self._check_new(binding)
            self._open[binding.job] = registration
            self._remember(binding)
            keys = [key for key in self._waiting if key[0] == binding.job]
            due = [self._waiting.pop(key) for key in keys if key[1] <= binding.attempt]
        for claim, outgoing, timer in due:
            timer.cancel()
            if outgoing.alive:
                self._settle(registration, claim, outgoing)
        return registration

    def admit(self, context: grpc.ServicerContext, outgoing: Outgoing) -> None:
        """Decide on a stream that has just been opened: keep it, let it wait, or raise."""
        try:
            claim = self._authentic(context)
            registration = self._find(claim, outgoing)
            if registration is not None:
                registration.adopt(claim, outgoing)
        except MasqueError as error:
            _log.warning("stream refused", error=type(error).__name__, text=str(error))
            raise

    def forget(self, registration: Registration, error: MasqueError | None) -> None:
        """Take an attempt out of the table; its number stays used, and why it ended is told."""
        job, attempt = registration.binding.job, registration.binding.attempt
        with self._lock:
            if self._open.get(job) is registration:
                del self._open[job]
                self._latest[job] = (attempt, error)

    def close(self) -> None:
        """Refuse everything from now on, and end what is open."""
        error = Unavailable(f"Party {self.name!r} is stopping.", party=self.name)
        with self._lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting.values()), {}
            registrations = list(self._open.values())
        for _, outgoing, timer in waiting:
            timer.cancel()
            outgoing.finish(error)
        for registration in registrations:
            registration.fail(error)
            registration.close(error)

    def _authentic(self, context: grpc.ServicerContext) -> Claim:
        claim = read_claim(context.invocation_metadata())
        who = self._calling(context)
        if who != claim.sender:
            raise IdentityError(
                f"Party {who!r} called in the name of {claim.sender!r}.",
                hint="A party exchanges with its own certificate only.",
                party=who,
            )
        if claim.receiver != self.name:
            raise Refused(
                f"Party {who!r} called {claim.receiver!r}, and {self.name!r} answered.",
                hint="Check the parties' addresses.",
                party=self.name,
                field="receiver",
            )
        return claim

    def _find(self, claim: Claim, outgoing: Outgoing) -> Registration | None:
        """The registration that `claim` is for; None if the stream was put to wait for it."""
        key = (claim.job, claim.attempt, claim.sender)
        with self._lock:
            if self._closed:
                raise Unavailable(f"Party {self.name!r} is stopping.", party=self.name)
            registration = self._open.get(claim.job)
            if registration is not None and registration.binding.attempt == claim.attempt:
                return registration
            latest, reason = self._latest.get(claim.job, (-1, None))
            if claim.attempt == latest and reason is not None:
                raise reason
            if claim.attempt <= latest:
                raise _stale(self.name, claim, latest)
            earlier = self._waiting.get(key)
            if earlier is not None and earlier[1].alive:
                raise Conflict(
                    f"Party {claim.sender!r} waits for job {claim.job!r} already.",
                    party=claim.sender,
                    job=claim.job,
                )
            if earlier is None and len(self._waiting) >= _WAITING:
                raise Unavailable(
                    f"Too many streams wait at party {self.name!r} for jobs it does not know.",
                    hint="Let the coordinator prepare the job at every party.",
                    party=self.name,
                )
            timer = threading.Timer(self._patience, self._expire, (key, outgoing))
            timer.daemon = True
            self._waiting[key] = (claim, outgoing, timer)
            timer.start()
        return None

    def _expire(self, key: tuple[str, int, str], outgoing: Outgoing) -> None:
        with self._lock:
            found = self._waiting.get(key)
            if found is None or found[1] is not outgoing:
                return
            del self._waiting[key]
        outgoing.finish(_unknown(self.name, key[0], key[1]))

    def _settle(self, registration: Registration, claim: Claim, outgoing: Outgoing) -> None:
        try:
            if claim.attempt < registration.binding.attempt:
                raise _stale(self.name, claim, registration.binding.attempt)
            registration.adopt(claim, outgoing)
        except MasqueError as error:
            _log.warning("stream refused", error=type(error).__name__, text=str(error))
            outgoing.finish(error)

    def _check_new(self, binding: Binding) -> None:
        if self._closed:
            raise Unavailable(f"Party {self.name!r} is stopping.", party=self.name)
        known = f"job {binding.job!r} at party {self.name!r}"
        if binding.job in self._open:
            raise Conflict(
                f"Another attempt of {known} still runs.",
                hint="Abort it first.",
                job=binding.job,
                again=True,
            )
        latest, _ = self._latest.get(binding.job, (-1, None))
        if binding.attempt <= latest:
            raise Conflict(
                f"Attempt {binding.attempt} of {known} was used already.",
                hint=f"Number the next attempt {latest + 1}: an attempt is never repeated.",
                job=binding.job,
            )

    def _remember(self, binding: Binding) -> None:
        self._latest[binding.job] = (binding.attempt, None)
        self._latest.move_to_end(binding.job)
        while len(self._latest) > _REMEMBERED:
            self._latest.popitem(last=False)


def _stale(name: str, claim: Claim, latest: int) -> Refused:
    return Refused(
        f"Attempt {claim.attempt} of job {claim.job!r} is over at party {name!r}, which has seen "
        f"attempt {latest}.",
        hint="Abort that attempt; only the newest one may exchange.",
        party=claim.sender,
        job=claim.job,
        field="attempt",
    )


def _unknown(name: str, job: str, attempt: int) -> NotFound:
    return NotFound(
        f"Party {name!r} has no attempt {attempt} of job {job!r}.",
        hint="The coordinator has not prepared it there, or it ended early: see that party's log.",
        party=name,
        job=job,
    )
