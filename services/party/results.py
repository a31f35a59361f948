"""The end of a job at a party: sealed to recipients, kept as shares, or opened to everybody.

    data/kept/               models kept as shares, encrypted (`masque.data.kept`)
    data/opened/<job>.json   what a job opened to all: public

Every output is entered into the ledger before anything of it can be fetched. At last the party
signs what it has done, for the receipt; that is for nobody alone, and travels with what is sealed.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masque.data.disk import make_directory, replace
from masque.data.kept import KeptModels
from masque.errors import Conflict, MasqueError, NotFound
from masque.jobs.bound import BoundJob
from masque.jobs.ledger import Ledger
from masque.jobs.spec import EVERYBODY
from masque.mpc.party import Party
from masque.mpc.program import Output, Program
from masque.mpc.types import Ring
from masque.wire.outputs import encode_output
from masque.wire.receipts import OUTPUT, make_statement
from masque.wire.recipients import Recipient
from masque.wire.sealing import seal, sealing_context
from masque.wire.tls import Credentials


@dataclass(frozen=True)
class Sealed:
    """One output's share, for one recipient's eyes; or, for no recipient, the party's receipt."""

    output: str
    recipient: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Opened:
    """One output that was opened to everybody: shape, fraction bits, uint64 little-endian."""

    output: str
    shape: tuple[int, ...]
    scale: int
    values: bytes = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What a job has come to at this party: `sealed` to be fetched, `kept` as shares, `opened`."""

    sealed: tuple[Sealed, ...]
    kept: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    opened: tuple[Opened, ...] = ()


class Results:
    """What becomes of outputs at the party that `credentials` belong to, below `data`."""

    def __init__(
        self, credentials: Credentials, data: Path, ledger: Ledger, kept: KeptModels
    ) -> None:
        self._credentials, self._ledger = credentials, ledger
        self._kept, self._opened = kept, data / "opened"
        make_directory(self._opened)

    def check_free(self, job: BoundJob) -> None:
        """Conflict if the job would keep its model under a name that is taken."""
        name = job.spec.model_output.keep_shares
        if name is not None and self._kept.maker(name) not in (None, job.job_id):
            raise Conflict(
                f"a model {name!r} is kept at party {self._credentials.identity.name!r} already.",
                hint="Choose another name for keep_shares.",
                field="model_output.keep_shares",
            )

    def make(
        self, job: BoundJob, program: Program, party: Party, recipients: Mapping[str, Recipient]
    ) -> Outcome:
        """Seal, or make ready to be kept or published, every output."""
        kept: dict[str, bytes] = {}
        sealed: list[Sealed] = []
        opened: list[Opened] = []
        for name, output in program.outputs.items():
            if output.to == (EVERYBODY,):
                opened.append(_opened(name, output, party.opened[name]))
                continue
            plain = encode_output(party.output(name).reshape(output.shape), output.scale)
            if not output.to:
                kept[name] = plain
            for recipient in output.to:
                self._record(job, name, output, recipient)
                sealed.append(self._seal(job, name, plain, recipients[recipient]))
        return Outcome(tuple(sealed), kept, tuple(opened))

    def publish(self, job: BoundJob, outcome: Outcome) -> None:
        """Keep and publish, in the place of what an earlier attempt of the job did.

        Raises Conflict if another job keeps a model under the name by now.
        """
        if outcome.kept:
            self.check_free(job)
            name = job.spec.model_output.keep_shares or job.job_id
            self._kept.keep(name, job.canonical(), outcome.kept)
        if outcome.opened:
            self._publish(job, outcome.opened)

    def receipt(self, job: BoundJob, program: Program, commitments: Mapping[str, str]) -> Sealed:
        """What this party has done for a job, signed; `commitments` to its shares by data set."""
        credentials, now = self._credentials.renewed(), time.time()
        statement = make_statement(
            job, program.digest, commitments, self._ledger, credentials, now, program.release
        )
        return Sealed(OUTPUT, "", statement)

    def opened(self, job_id: str) -> tuple[bytes, list[Opened]]:
        """(bound job, values) of what a finished job opened to everybody; NotFound if nothing."""
        path = self._opened / f"{job_id}.json"
        try:
            return _published(json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise NotFound(
                f"job {job_id} has opened nothing to everybody here.",
                hint="Its results are sealed to their recipients, or it has not finished.",
                job=job_id,
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise MasqueError(
                f"what job {job_id} has opened to everybody cannot be read here any more.",
                hint="Run the job again under another id.",
                file=str(path),
            ) from None

    def _seal(self, job: BoundJob, name: str, plain: bytes, recipient: Recipient) -> Sealed:
        own = self._credentials.identity.name
        context = sealing_context(job.job_id, job.attempt, own, name, job.digest())
        sender = self._credentials.renewed()
        content = seal(plain, recipient, context=context, sender=sender)
        return Sealed(name, recipient.identity.name, content)

    def _record(self, job: BoundJob, name: str, output: Output, recipient: str) -> None:
        bits = 64
        for extent in output.shape:
            bits *= extent
        what = f"share of {name}, sealed"
        self._ledger.record(job.job_id, job.attempt, what, bits, (recipient,))

    def _publish(self, job: BoundJob, opened: Sequence[Opened]) -> None:
        items = [
            {
                "output": item.output,
                "shape": list(item.shape),
                "scale": item.scale,
                "raw": base64.b64encode(item.values).decode(),
            }
            for item in opened
        ]
        record = {"job": job.canonical().decode("ascii"), "outputs": items}
        write_whole(self._opened / f"{job.job_id}.json", json.dumps(record).encode())


def _published(found: Any) -> tuple[bytes, list[Opened]]:
    values = [
        Opened(item["output"], tuple(item["shape"]), item["scale"], base64.b64decode(item["raw"]))
        for item in found["outputs"]
    ]
    return found["job"].encode("ascii"), values


def write_whole(path: Path, content: bytes) -> None:
    """Write a private file so that a crash leaves the old one, the new one, or none."""
    try:
        replace(path, content)
    except OSError as error:
        raise MasqueError(
            f"{path} cannot be written: {error.strerror}.", hint="Free space at the party."
        ) from None


def _opened(name: str, output: Output, values: Ring) -> Opened:
    raw = values.reshape(output.shape).astype("<u8").tobytes()
    return Opened(name, output.shape, output.scale, raw)
