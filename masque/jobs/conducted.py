"""A job as the coordinator knows it, what happens to it, and what is to be done about it.

The words of `masque.jobs.conducting`, which says what follows from what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from masque.jobs.states import State

STATES = (
    State.SUBMITTED,
    State.WAITING,
    State.PREPARING,
    State.TRAINING,
    State.FINISHING,
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
)
ENDED = frozenset(STATES[5:])


@dataclass(frozen=True)
class Committed:
    """What all parties have on disk: attempt `attempt` goes on at training round `round`."""

    attempt: int
    round: int
    stopped: bool


@dataclass(frozen=True)
class ConductedJob:
    """A job as the coordinator knows it. `round` counts from 0, `round_names` has all of them.

    `waiting` are those asked and not heard of; `program` is the digest of the program that the
    first of them has compiled. `resumed`: what this attempt goes on from, `committed`: the next
    one; `committing`: who has committed the round under way. `due`: parties that have computed
    their results and could not hand them over yet. `fruitless`: times in a row that it was broken
    off and had committed nothing. `reason` and `culprit`: of how it ended, or of what it waits for.
    `begun`: when its turn came, in Unix seconds.
    """

    job_id: str
    parties: tuple[str, ...]
    dealer: str
    state: State = State.SUBMITTED
    attempt: int = 1
    waiting: frozenset[str] = frozenset()
    program: bytes = b""
    round_names: tuple[str, ...] = ()
    round: int = 0
    stopping: frozenset[str] = frozenset()
    stopped: bool = False
    reason: str = ""
    culprit: str = ""
    resumed: Committed | None = None
    committed: Committed | None = None
    committing: frozenset[str] = frozenset()
    due: frozenset[str] = frozenset()
    fruitless: int = 0
    begun: float = 0.0
    again: ClassVar[bool] = False

    @property
    def everybody(self) -> frozenset[str]:
        """The parties and the dealer."""
        return frozenset({*self.parties, self.dealer})

    @property
    def ended(self) -> bool:
        """Will nothing more happen?"""
        return self.state in ENDED


@dataclass(frozen=True)
class Begin:
    """Ours: the job's turn has come, and everybody answers."""

    words: ClassVar[str] = "began"


@dataclass(frozen=True)
class Prepared:
    """A party or the dealer has compiled the program: its digest; a party: its rounds' names."""

    peer: str
    attempt: int
    program: bytes
    round_names: tuple[str, ...]
    words: ClassVar[str] = "said that it is prepared"


@dataclass(frozen=True)
class RoundDone:
    """A party has run (or skipped) training round `round`; `stopped`: it has been told to stop.

    `committed`: it can go on from there, whatever happens.
    """

    peer: str
    attempt: int
    round: int
    stopped: bool
    committed: bool
    words: ClassVar[str] = "said that a training round is done"


@dataclass(frozen=True)
class Fetched:
    """A party's sealed results have arrived, or it has kept its shares."""

    peer: str
    attempt: int
    words: ClassVar[str] = "handed over results"


@dataclass(frozen=True)
class PeerFailed:
    """A peer said no, does not answer, or broke the protocol: `peer` is the culprit.

    `again`: another attempt may go well; `lost`: but not from what was committed, or it has no
    results of this one any more.
    """

    peer: str
    attempt: int
    reason: str
    again: bool = False
    lost: bool = False
    words: ClassVar[str] = "reported a failure"


@dataclass(frozen=True)
class PeerStopped:
    """Somebody whose service it is has stopped a peer, in good order: that is no failure."""

    peer: str
    attempt: int
    words: ClassVar[str] = "reported a stop"


@dataclass(frozen=True)
class Overdue:
    """Ours: `culprit` has shown no sign of life, or no progress, for too long; `doing` what."""

    culprit: str
    doing: str
    words: ClassVar[str] = "gave up waiting"


@dataclass(frozen=True)
class Absent:
    """Ours: before an attempt, `culprit` does not answer."""

    culprit: str
    reason: str
    words: ClassVar[str] = "found somebody absent"


@dataclass(frozen=True)
class Opposed:
    """Ours: before an attempt, `culprit` says that it will not take part."""

    culprit: str
    reason: str
    words: ClassVar[str] = "found somebody opposed"


@dataclass(frozen=True)
class Expired:
    """Ours: the time that the job may take is used up; `doing`: what it was about, `culprit`: who
    let the others wait, if that is known.
    """

    doing: str
    culprit: str = ""
    words: ClassVar[str] = "ran out of time"


@dataclass(frozen=True)
class Cancel:
    """A client wants no more of it."""

    by: str
    words: ClassVar[str] = "cancelled"


@dataclass(frozen=True)
class Stopped:
    """Ours: the coordinator was told to stop, and the job cannot end in time."""

    words: ClassVar[str] = "stopped"


@dataclass(frozen=True)
class Restarted:
    """Ours: the coordinator has come up again and found the job on disk, or broke off itself."""

    reason: str = "the coordinator was restarted"
    words: ClassVar[str] = "restarted"


Told = Prepared | RoundDone | Fetched | PeerFailed | PeerStopped
"""What comes from peers."""

Event = Told | Begin | Overdue | Absent | Opposed | Expired | Cancel | Stopped | Restarted
EVENTS = (
    Begin,
    Prepared,
    RoundDone,
    Fetched,
    PeerFailed,
    PeerStopped,
    Overdue,
    Absent,
    Opposed,
    Expired,
    Cancel,
    Stopped,
    Restarted,
)


@dataclass(frozen=True)
class AskPrepare:
    """Send the bound job of this attempt to `peers`."""

    peers: frozenset[str]


@dataclass(frozen=True)
class AskRound:
    """Tell `peers` to run training round `round`."""

    peers: frozenset[str]
    round: int


@dataclass(frozen=True)
class AskResults:
    """Fetch the sealed results of `peers`."""

    peers: frozenset[str]


@dataclass(frozen=True)
class AskAbort:
    """Tell `peers`, as far as they answer, that the attempt is over and why."""

    peers: frozenset[str]
    reason: str


@dataclass(frozen=True)
class Wait:
    """Look whether everybody is there after a while, the longer the higher `fruitless` is; 0:
    nothing was broken off, somebody was absent.
    """

    fruitless: int


@dataclass(frozen=True)
class Forget:
    """Tell `peers` that the job has ended: nobody need approve it, or keep what it goes on from."""

    peers: frozenset[str]


Effect = AskPrepare | AskRound | AskResults | AskAbort | Wait | Forget
