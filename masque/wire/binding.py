"""What a stream between two parties is bound to: one attempt of one job, one spec, one program.

A party that calls another one's `Exchange` claims, in the metadata of the call, who it is and what
it is about to run. The party that is called compares the claim with its own view, field by field,
and refuses with an error that names the difference. Pure: no network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from masque.errors import IdentityError, MasqueError, ProtocolError, Refused

_JOB, _ATTEMPT, _SENDER, _RECEIVER, _PARTIES, _SPEC, _PROGRAM = KEYS = (
    "masque-job",
    "masque-attempt",
    "masque-sender",
    "masque-receiver",
    "masque-parties",
    "masque-spec",
    "masque-program",
)
"""The metadata of an `Exchange` call."""

_DIGEST_BYTES = 32
_MAX_ATTEMPT = 2**32 - 1
_MAX_TEXT = 4096


@dataclass(frozen=True)
class Binding:
    """One party's view of one attempt of a job.

    `parties` in the order of the job, this one at `index`; `spec` and `program` are the SHA-256
    digests of the bound job and of the program compiled from it, 32 bytes each.
    """

    job: str
    attempt: int
    parties: tuple[str, ...]
    index: int
    spec: bytes
    program: bytes

    def __post_init__(self) -> None:
        assert 0 <= self.index < len(self.parties) >= 2, "at least two parties, this one among them"
        assert len(set(self.parties)) == len(self.parties), "every party once"
        assert 0 <= self.attempt <= _MAX_ATTEMPT, "an attempt is a 32-bit number"
        assert len(self.spec) == len(self.program) == _DIGEST_BYTES, "digests have 32 bytes"
        for text in (self.job, *self.parties):
            assert _is_word(text), "names are printable ASCII without blanks and commas"

    @property
    def name(self) -> str:
        """This party."""
        return self.parties[self.index]

    @property
    def others(self) -> tuple[str, ...]:
        """The other parties, in the order of the job."""
        return self.parties[: self.index] + self.parties[self.index + 1 :]

    def claim(self, receiver: str) -> tuple[tuple[str, str], ...]:
        """The metadata with which this party calls `receiver`."""
        values = (
            self.job,
            str(self.attempt),
            self.name,
            receiver,
            ",".join(self.parties),
            self.spec.hex(),
            self.program.hex(),
        )
        return tuple(zip(KEYS, values, strict=True))


@dataclass(frozen=True)
class Claim:
    """What the metadata of a call says; nothing of it is believed yet."""

    job: str
    attempt: int
    sender: str
    receiver: str
    parties: tuple[str, ...]
    spec: bytes
    program: bytes


def read_claim(metadata: Iterable[tuple[str, str | bytes]]) -> Claim:
    """Parse the metadata of a call; `ProtocolError` if a field is missing, doubled or malformed."""
    values: dict[str, str] = {}
    for key, value in metadata:
        if key not in KEYS:
            continue
        if key in values or not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise _malformed(key)
        values[key] = value
    for key in KEYS:
        if key not in values:
            raise _malformed(key)
    parties = tuple(values[_PARTIES].split(","))
    for key, words in ((_PARTIES, parties), *((k, (values[k],)) for k in KEYS[:4])):
        if not all(_is_word(word) for word in words):
            raise _malformed(key)
    return Claim(
        job=values[_JOB],
        attempt=_attempt(values[_ATTEMPT]),
        sender=values[_SENDER],
        receiver=values[_RECEIVER],
        parties=parties,
        spec=_digest(_SPEC, values[_SPEC]),
        program=_digest(_PROGRAM, values[_PROGRAM]),
    )


def check_claim(claim: Claim, binding: Binding) -> None:
    """Raise what sets `claim` apart from this party's own view of the same attempt.

    `IdentityError` if the sender takes no part in the job, else `Refused`, which names the field in
    `where["field"]`: parties, spec or program.
    """
    if claim.sender not in binding.others:
        raise IdentityError(
            f"Party {claim.sender!r} takes no part in job {binding.job!r} at party "
            f"{binding.name!r}.",
            hint=f"Its parties are {', '.join(binding.parties)}.",
            party=claim.sender,
            job=binding.job,
        )
    if claim.parties != binding.parties:
        theirs, ours = ", ".join(claim.parties), ", ".join(binding.parties)
        raise _differs("parties", claim, binding, f"{theirs} against {ours}")
    for field, theirs_, ours_ in (
        ("spec", claim.spec, binding.spec),
        ("program", claim.program, binding.program),
    ):
        if theirs_ != ours_:
            short = f"{theirs_.hex()[:12]} against {ours_.hex()[:12]}"
            raise _differs(field, claim, binding, short)


_CURES = {
    "parties": "Every party must list the same parties in the same order: submit the job again.",
    "spec": "The coordinator must give every party the same job: compare `masque jobs` at both, "
    "and submit it again.",
    "program": "The parties compile the same job to different programs: run the same version of "
    "Masque at both.",
}
_NAMES = {"parties": "list of parties", "spec": "job specification", "program": "program"}


def _differs(field: str, claim: Claim, binding: Binding, values: str) -> MasqueError:
    return Refused(
        f"Job {binding.job!r}: the {_NAMES[field]} of party {claim.sender!r} differs from that of "
        f"party {binding.name!r} ({values}).",
        hint=_CURES[field],
        party=claim.sender,
        job=binding.job,
        field=field,
    )


def _is_word(text: str) -> bool:
    return text.isascii() and text.isprintable() and bool(text) and not set(text) & set(" ,")


def _attempt(text: str) -> int:
    if not text.isdigit() or len(text) > 10 or int(text) > _MAX_ATTEMPT:
        raise _malformed(_ATTEMPT)
    return int(text)


def _digest(key: str, text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        raise _malformed(key) from None
    if len(digest) != _DIGEST_BYTES or digest.hex() != text:
        raise _malformed(key)
    return digest


def _malformed(key: str) -> ProtocolError:
    return ProtocolError(
        f"An exchange was opened with {key} missing, doubled or malformed.",
        hint="Run the same version of Masque at both parties.",
        field=key,
    )
