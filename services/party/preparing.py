"""Before a job may run at a party: everything that could make the operator say no.

The party believes nothing but the bound job itself, its own store, its own policy and its own
registry of recipients; it compiles the program from the job, and checks what that opens.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from masque.data.checkpoints import Checkpoint, Checkpoints
from masque.data.store import Store
from masque.errors import MasqueError, NotFound, Refused
from masque.jobs.bound import BoundJob
from masque.jobs.conditions import Statement
from masque.jobs.fit import SharedTable
from masque.jobs.held import check_held
from masque.jobs.ledger import Ledger
from masque.jobs.limits import Case
from masque.jobs.policy import Policy
from masque.jobs.spec import EVERYBODY
from masque.jobs.spending import Spending
from masque.jobs.submission import submission_of
from masque.mpc.doors import Source
from masque.mpc.graph import Block
from masque.mpc.program import Opening, Program
from masque.mpc.resume import register_of
from masque.mpc.types import Ring
from masque.wire.conditions import read_statement
from masque.wire.recipients import Recipient, load_recipient
from masque.wire.submissions import HOLDS, check_submission
from masque.wire.tls import Credentials
from masque.wire.trust import Trust

Compile = Callable[[BoundJob], Program]
IDENTIFIERS = ":identifiers"
"""What follows a data set's name in the name of the input that is its identifier digest."""


def compile_job(job: BoundJob) -> Program:
    """The real compiler; imported when it is first needed."""
    from masque.jobs.compile import compile_job as real

    return real(job)


@dataclass(frozen=True)
class Neighbourhood:
    """Whom this party works with: its own name, its peers', the dealer's, the coordinator's."""

    name: str
    peers: frozenset[str]
    dealer: str
    coordinator: str

    def check(self, job: BoundJob, sender: str) -> int:
        """This party's place in the job. Raises Refused naming the service that does not fit."""
        if sender != job.coordinator or sender != self.coordinator:
            raise self._refused(
                job,
                f"it was sent by coordinator {sender!r} in the name of {job.coordinator!r}, and "
                f"this party obeys {self.coordinator!r}",
            )
        if job.dealer != self.dealer:
            raise self._refused(job, f"its dealer is {job.dealer!r}, and ours {self.dealer!r}")
        if self.name not in job.parties:
            raise self._refused(job, f"{self.name!r} is not among its parties")
        unknown = sorted(set(job.parties) - self.peers - {self.name})
        if unknown:
            raise self._refused(job, f"its party {unknown[0]!r} is not among our peers")
        return job.parties.index(self.name)

    def _refused(self, job: BoundJob, why: str) -> Refused:
        return Refused(
            f"party {self.name!r} refuses job {job.job_id}: {why}.",
            hint="Compare the configuration files of coordinator and parties.",
            party=self.name,
            job=job.job_id,
        )


def check_signed(job: BoundJob, own: Credentials, begun: bool, lasts: float) -> None:
    """Has the client that the job names submitted this very job? Refused if not.

    What has `begun` here may go on for `lasts` seconds longer than it may wait for its beginning.
    """
    due = submission_of(job, own.identity.project)
    holds = HOLDS + lasts if begun else HOLDS
    check_submission(job.submission, due, own.trust, str(own.identity), holds=holds, begun=begun)


def trusted_recipients(
    job: BoundJob, directory: Path, trust: Trust, party: str
) -> dict[str, Recipient]:
    """The job's recipients from this party's own registry; Refused if the job has another key."""
    found: dict[str, Recipient] = {}
    for promised in job.recipients:
        name = promised.name
        try:
            recipient = load_recipient(directory, name, trust)
        except NotFound:
            raise Refused(
                f"party {party!r} does not know the recipient {name!r} of job {job.job_id}.",
                hint=f"Its operator puts {name}.recipient.pub into {directory}.",
                party=party,
                recipient=name,
            ) from None
        key = recipient.key.public_bytes_raw().hex()
        if recipient.identity.name != name or key != promised.key:
            raise Refused(
                f"party {party!r} refuses job {job.job_id}: its key for the recipient {name!r} is "
                "not the one that this party trusts.",
                hint=f"If {name} has a new key, replace {name}.recipient.pub at every party; if "
                "not, somebody has exchanged the key.",
                party=party,
                recipient=name,
            )
        found[name] = recipient
    return found


def check_data(job: BoundJob, store: Store, party: str) -> None:
    """Does the store hold the very uploads that the job names? Refused naming the difference."""
    held = [
        SharedTable(
            name=entry.name,
            upload=entry.upload_id,
            info=entry.info,
            conditions=entry.conditions,
        )
        for entry in store.list()
    ]
    check_held(job, held, party)


def openings_by_round(program: Program) -> list[list[Opening]]:
    """What each training round opens unmasked. MasqueError if any of it is not declared."""
    declared = {opening.name: opening for opening in program.openings}
    known: dict[bytes, list[str]] = {}
    rounds: list[list[Opening]] = []
    for training_round in program.rounds:
        names: dict[str, None] = {}
        for call in training_round.calls():
            block = call.block
            if block.digest not in known:
                known[block.digest] = _reveals(block)
            names |= dict.fromkeys(known[block.digest])
        undeclared = sorted(set(names) - set(declared))
        if undeclared:
            raise MasqueError(
                f"the program would open {undeclared[0]!r}, which it does not declare.",
                hint="This is a mistake in Masque: nothing was opened.",
            )
        rounds.append([declared[name] for name in names])
    return rounds


def check_outputs(job: BoundJob, program: Program) -> None:
    """Is every output for somebody that the job promises something to? MasqueError if not."""
    for name, output in program.outputs.items():
        strangers = sorted(set(output.to) - set(job.keys) - {EVERYBODY})
        if strangers or (EVERYBODY in output.to and len(output.to) > 1):
            raise MasqueError(
                f"the program hands {name!r} to {', '.join(output.to)}: the job does not say so.",
                hint="This is a mistake in Masque: nothing was handed out.",
            )


def check_released_once(job: BoundJob, program: Program, ledger: Ledger, party: str) -> None:
    """Refused if an earlier attempt has opened a private model to all: its noise was all it had.

    What is sealed leaves a party in one attempt only (`masque.jobs.computing`); what is opened is
    out at once, and another attempt would draw fresh noise.
    """
    release = program.release
    if release is None or EVERYBODY not in release.to:
        return
    earlier = (ledger.of(job.job_id, number) for number in range(1, job.attempt))
    if any(line.entry["what"] == str(release) for lines in earlier for line in lines):
        raise Refused(
            f"{party} refuses job {job.job_id}: an attempt that was broken off may have opened its "
            "model, and another would open it with other noise (privacy).",
            hint="Submit it again under another id: that is another release, with its own epsilon.",
            party=party,
            rule="privacy",
            job=job.job_id,
        )


def check_allowed(policy: Policy, case: Case, store: Store, spent: Spending, party: str) -> None:
    """What the operator allows, and the owners of the data; Refused naming the rule.

    What was disclosed before is added to the case here.
    """
    job = case.job
    owners = {table.name: store.entry(table.name).owner for table in job.shared}
    case = replace(case, given={name: spent.given(owner, name) for name, owner in owners.items()})
    policy.check(case, party)
    now = dt.datetime.now(dt.UTC)
    for table in job.shared:
        if table.conditions:
            statement = read_statement(table.conditions)
            check_parties(statement, job, party)
            statement.conditions.check(case, table.name, statement.owner, now, party)


def approvals(policy: Policy, job: BoundJob) -> list[tuple[str, ...]]:
    """Lists of people of each of which one must say yes to the job: the operator's, the owners'."""
    asked = [policy.approval] if policy.approval else []
    for table in job.shared:
        if table.conditions:
            rule = read_statement(table.conditions).conditions.approval
            asked += [rule] if rule else []
    return list(dict.fromkeys(rule.by for rule in asked if rule.needed(job)))


def check_parties(statement: Statement, job: BoundJob, party: str) -> None:
    """Refused if the data set was shared with other parties than the job has."""
    if set(statement.parties) != set(job.parties):
        raise Refused(
            f"{party} refuses job {job.job_id}: {statement.owner!r} has shared the data set "
            f"{statement.dataset!r} with {', '.join(statement.parties)}, and not with "
            f"{', '.join(job.parties)} (parties).",
            hint=f"Ask {statement.owner!r} to share it with them.",
            party=party,
            rule="parties",
            dataset=statement.dataset,
            owner=statement.owner,
            job=job.job_id,
        )


def checkpoint_of(
    job: BoundJob, program: Program, checkpoints: Checkpoints, party: str
) -> Checkpoint | None:
    """What this attempt goes on from; None if it begins anew.

    Raises Refused if it is lost here, or is not what the coordinator says it is.
    """
    here = job.resume
    if here is None:
        return None
    try:
        found = checkpoints.read(job.job_id, here.attempt, here.round)
    except MasqueError as error:
        raise Refused(
            f"party {party!r} cannot go on with job {job.job_id}: {error.message}",
            hint="It begins anew.",
            party=party,
            job=job.job_id,
            checkpoint="lost",
        ) from None
    registers = {name: program.registers[name].shape for name in _restored(program)}
    due = (job.subject(), here.stopped, registers)
    shapes = {name: share.shape for name, share in found.shares.items()}
    if (found.subject, found.stopped, shapes) != due:
        raise Refused(
            f"party {party!r} refuses to go on with job {job.job_id}: its checkpoint of round "
            f"{here.round} of attempt {here.attempt} is not what {job.coordinator!r} says of it.",
            hint="Check that all services run the same version of Masque.",
            party=party,
            coordinator=job.coordinator,
            job=job.job_id,
        )
    return found


def _restored(program: Program) -> list[str]:
    return [name for each in program.inputs if (name := register_of(each)) is not None]


def source_of(
    job: BoundJob, program: Program, store: Store, checkpoint: Checkpoint | None = None
) -> Source:
    """The door to the store: rows of the uploads that the job names, and of no others.

    And to the checkpoint, if the job goes on from one.
    """
    uploads: Mapping[str, str] = {table.name: table.upload for table in job.shared}

    def read(name: str, rows: slice) -> Ring:
        register = register_of(name)
        if register is not None:
            assert checkpoint is not None, "only a program that goes on from one asks for it"
            return np.ascontiguousarray(checkpoint.shares[register].reshape(-1, 1)[rows])
        dataset = program.inputs[name].dataset.removesuffix(IDENTIFIERS)
        if name.endswith(IDENTIFIERS):
            words: Ring = store.identifiers(dataset).reshape(1, -1)[rows]
        else:
            words = store.rows(dataset, rows)
        if store.entry(dataset).upload_id != uploads[dataset]:
            raise Refused(
                f"the data set {dataset!r} was replaced while job {job.job_id} used it.",
                hint="Submit the job again.",
                dataset=dataset,
            )
        return np.ascontiguousarray(words)

    return read


def _reveals(block: Block) -> list[str]:
    return [str(node.params[0]) for node in block.nodes.values() if node.op == "reveal"]
