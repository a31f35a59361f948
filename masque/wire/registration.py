"""One attempt of a job at one party: the streams of its peers, gathered until all are there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from masque.errors import Conflict, MasqueError, Refused, Unavailable
from masque.wire.binding import Binding, Claim, check_claim
from masque.wire.frames import GREETING
from masque.wire.streams import Outgoing


class Registration:
    """One attempt of a job at this party, and the streams to its peers as they come in."""

    def __init__(
        self,
        binding: Binding,
        forget: Callable[[Registration, MasqueError | None], None],
        on_error: Callable[[MasqueError], None] | None,
    ) -> None:
        self.binding = binding
        self._forget = forget
        self._on_error = on_error
        self._change = threading.Condition()
        self._taken: set[str] = set()
        self._streams: dict[str, Outgoing] = {}
        self._error: MasqueError | None = None

    def wait(self, until: float) -> dict[str, Outgoing]:
        """The streams by peer, once all are in; `until` is a moment of `time.monotonic`.

        Raises what made a stream of this attempt unacceptable, or `Unavailable`, which names the
        parties that never called.
        """
        others = self.binding.others
        with self._change:
            while self._error is None and len(self._streams) < len(others):
                if not self._change.wait(max(0.0, until - time.monotonic())):
                    break
            if self._error is not None:
                raise self._error
            missing = [name for name in others if name not in self._streams]
            if missing:
                raise _missing(self.binding, missing)
            return dict(self._streams)

    def adopt(self, claim: Claim, outgoing: Outgoing) -> None:
        """Greet the peer and keep the stream, or raise why not."""
        try:
            self._take(claim)
        except Refused as error:
            self.fail(error)
            raise
        outgoing.send(GREETING)
        with self._change:
            self._streams[claim.sender] = outgoing
            ended = self._error
            self._change.notify_all()
        if ended is not None:
            raise ended

    def fail(self, error: MasqueError) -> None:
        """Let `wait` raise `error`, and tell the owner."""
        with self._change:
            if self._error is not None:
                return
            self._error = error
            self._change.notify_all()
        if self._on_error is not None:
            self._on_error(error)

    def close(self, error: MasqueError | None = None) -> None:
        """End the streams, telling the peers why; the attempt can never be registered again."""
        self._forget(self, error)
        with self._change:
            self._error = self._error or error or Refused("The exchange was closed.")
            streams = list(self._streams.values())
            self._change.notify_all()
        for outgoing in streams:
            outgoing.finish(error)

    def _take(self, claim: Claim) -> None:
        with self._change:
            if claim.sender in self._taken:
                raise Conflict(
                    f"Party {claim.sender!r} listens to job {claim.job!r} already.",
                    hint="Only a new attempt of the job may connect again.",
                    party=claim.sender,
                    job=claim.job,
                )
            if self._error is not None:
                raise self._error
            check_claim(claim, self.binding)
            self._taken.add(claim.sender)


def _missing(binding: Binding, missing: list[str]) -> Unavailable:
    names = " and ".join(repr(name) for name in missing)
    return Unavailable(
        f"Party {names} did not open its exchange of job {binding.job!r} with party "
        f"{binding.name!r} in time.",
        hint="Check that it runs, that it was given the job, and that it can reach this party.",
        party=missing[0],
        job=binding.job,
    )
