"""What a party's jobs need done, with the real parts: store, policy, registry, dealer, peers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from masque.data.checkpoints import Checkpoints
from masque.data.store import Store
from masque.errors import Conflict, MasqueError, Refused
from masque.jobs.bound import BoundJob
from masque.jobs.chain import ACCEPTED
from masque.jobs.computing import ComputedJob
from masque.jobs.disclosed import Disclosed, by_program
from masque.jobs.ledger import Ledger
from masque.jobs.limits import Case
from masque.jobs.policy import Policy
from masque.jobs.resuming import program_of
from masque.jobs.spending import Spending
from masque.mpc.doors import Source
from masque.mpc.program import Opening, Program
from masque.wire import heartbeat, memory
from masque.wire.binding import Binding
from masque.wire.exchange import PeerExchange
from masque.wire.hub import Hub
from masque.wire.identity import Role
from masque.wire.pinned import Pinned
from masque.wire.recipients import Recipient
from masque.wire.streams import peer_options
from services.party import preparing
from services.party.approvals import MOST, Approvals
from services.party.around import DealerStream, Surroundings
from services.party.attempt import Attempt, Doors
from services.party.deliveries import Deliveries
from services.party.figures import COMPUTED, FAILED, Totals
from services.party.jobs import Memory
from services.party.results import Outcome, Results, Sealed
from services.party.settings import PartyLimits
from services.party.stock import Listener, Stock


class PartyWorkshop:
    """`services.party.job.Workshop` for one party."""

    def __init__(
        self,
        around: Surroundings,
        store: Store,
        policy: Policy,
        recipients: Path,
        memory: Memory,
        ledger: Ledger,
        results: Results,
        deliveries: Deliveries,
        checkpoints: Checkpoints,
        approvals: Approvals,
        hub: Hub,
        limits: PartyLimits,
        compile: preparing.Compile,
    ) -> None:
        self._around, self._store, self._policy = around, store, policy
        self._recipients, self._memory, self._ledger = recipients, memory, ledger
        self._results, self._deliveries = results, deliveries
        self._hub, self._limits, self._checkpoints = hub, limits, checkpoints
        self._compile = compile
        self._spent = Spending()
        ledger.follow(self._spent)
        self._approvals = approvals
        self._compiled: tuple[bytes, Program] | None = None
        self._known: dict[bytes, tuple[Sequence[Opening], Disclosed]] = {}
        self._judging, self._publishing = threading.Lock(), threading.Lock()
        self._lock = threading.Lock()
        self._open: set[Attempt] = set()
        self._ended = Totals()

    def remember(self, job: ComputedJob) -> None:
        """See `Workshop`."""
        heartbeat.begin("writes down the attempt")
        self._memory.store(job)

    def review(self, job: BoundJob, sender: str) -> list[str]:
        """Would this party compute the job? Refused if not; who must still say yes, else."""
        self._check(job, sender)
        asked = preparing.approvals(self._policy, job)
        return self._approvals.missing(job, asked)

    def compile(self, job: BoundJob, sender: str, failed: Listener) -> Attempt:
        """See `Workshop`; the checks are those of `preparing`."""
        heartbeat.begin("checks the job")
        index, recipients = self._check(job, sender)
        program = program_of(job, self._program(job))
        assert program.parties == len(job.parties), "one seat for every party"
        with self._judging:
            self._accept(job, program)
        try:
            return self._attempt(job, program, index, recipients, failed)
        except BaseException:
            self._spent.let_go((job.job_id, job.attempt))
            raise

    def _check(self, job: BoundJob, sender: str) -> tuple[int, dict[str, Recipient]]:
        """This party's place and the recipients of a job that is allowed as a whole."""
        around, name = self._around, self._around.name
        index = self.check_named(job, sender)
        preparing.check_data(job, self._store, name)
        trust = around.credentials.renewed().trust
        recipients = preparing.trusted_recipients(job, self._recipients, trust, name)
        self._results.check_free(job)
        with self._lock:
            self._check_name(job)
        case = Case(job, *self._discloses(job))
        preparing.check_allowed(self._policy, case, self._store, self._spent, name)
        return index, recipients

    def _discloses(self, job: BoundJob) -> tuple[Sequence[Opening], Disclosed]:
        """What a job opens and discloses. One that waits for people is not compiled every time."""
        subject = job.subject()
        with self._lock:
            known = self._known.get(subject)
        if known is None:
            program = self._program(job)
            known = program.openings, by_program(program, job.spec.privacy)
            with self._lock:
                self._known[subject] = known
                while len(self._known) > MOST:
                    del self._known[next(iter(self._known))]
        return known

    def _program(self, job: BoundJob) -> Program:
        """The whole program of a job; what was reviewed just now is not compiled again."""
        subject = job.subject()
        with self._lock:
            known = self._compiled
        if known is not None and known[0] == subject:
            return known[1]
        heartbeat.begin("compiles the job")
        program = self._compile(job)
        heartbeat.begin("checks the job")
        with self._lock:
            self._compiled = (subject, program)
        return program

    def _accept(self, job: BoundJob, program: Program) -> None:
        """Is the job allowed? If so, what it may disclose of its data sets counts from now on."""
        name, store = self._around.name, self._store
        preparing.check_released_once(job, program, self._ledger, name)
        case = Case(job, program.openings, by_program(program, job.spec.privacy))
        preparing.check_allowed(self._policy, case, store, self._spent, name)
        missing = self._approvals.begin(job, preparing.approvals(self._policy, job))
        if missing:
            raise Refused(
                f"{name} does not begin job {job.job_id} before {' or '.join(missing)} has said "
                "yes.",
                hint=f"They say it by: masque approve {job.job_id}",
                party=name,
                rule="approval",
                job=job.job_id,
                again=True,
            )
        privacy = job.spec.privacy
        self._ledger.note(
            ACCEPTED,
            job=job.job_id,
            attempt=job.attempt,
            subject=job.subject().hex(),
            client=job.client,
            data=[
                {"owner": store.entry(t.name).owner, "name": t.name, "upload": t.upload}
                for t in job.shared
            ],
            privacy=privacy.model_dump(mode="json") if privacy else None,
        )
        self._spent.reserve((job.job_id, job.attempt), case.gives)

    def _attempt(
        self,
        job: BoundJob,
        program: Program,
        index: int,
        recipients: dict[str, Recipient],
        failed: Listener,
    ) -> Attempt:
        name = self._around.name
        preparing.check_outputs(job, program)
        openings = preparing.openings_by_round(program)
        heartbeat.begin("reads what it goes on from")
        checkpoint = preparing.checkpoint_of(job, program, self._checkpoints, name)
        source = preparing.source_of(job, program, self._store, checkpoint)
        commitments = {table.name: self._store.entry(table.name).commitment for table in job.shared}
        doors = self._doors(job, program, index, source, failed)
        attempt = Attempt(job, program, index, openings, recipients, doors)
        attempt.commitments = commitments
        try:
            with self._lock:
                self._check_name(job)
                self._check_room(attempt)
                self._open.add(attempt)
        except MasqueError as error:
            attempt.abort(error)
            raise
        return attempt

    @property
    def memory_lent(self) -> int:
        """Bytes that jobs may declare together."""
        return self._limits.memory_bytes or memory.of_this_machine() // 2

    @property
    def memory_taken(self) -> int:
        """Bytes that jobs have declared."""
        with self._lock:
            return sum(attempt.memory for attempt in self._open)

    def _check_name(self, job: BoundJob) -> None:
        """Two jobs at once must not keep their models under one name: some of each would stay."""
        name = job.spec.model_output.keep_shares
        for other in self._open:
            taken = other.job.spec.model_output.keep_shares
            if name is not None and name == taken and other.job.job_id != job.job_id:
                raise Conflict(
                    f"job {other.job.job_id} is under way at party {self._around.name!r}, and will "
                    f"keep its model as {name!r}.",
                    hint="Choose another name for keep_shares.",
                    field="model_output.keep_shares",
                )

    def _check_room(self, attempt: Attempt) -> None:
        lent, name = self.memory_lent, self._around.name
        taken = sum(other.memory for other in self._open)
        if taken + attempt.memory <= lent:
            return
        fits = attempt.memory <= lent
        raise Refused(
            f"party {name!r} lends {lent >> 20} MiB to jobs, of which {taken >> 20} are taken, and "
            f"job {attempt.job.job_id} needs {attempt.memory >> 20}.",
            hint="Wait until another job has ended."
            if fits
            else f"Its operator can raise limits.memory_bytes; or use smaller batches than "
            f"{attempt.job.spec.training.batch_size}.",
            party=name,
            job=attempt.job.job_id,
            again=fits or None,
        )

    def check_named(self, job: BoundJob, sender: str) -> int:
        """This party's place in the job, which its client has signed.

        Refused if `sender` or a named service is not ours, or for what was not signed. Before it is
        remembered, so that nothing but what was signed ever counts as begun.
        """
        around = self._around
        neighbourhood = preparing.Neighbourhood(
            around.name, frozenset(around.peers), around.dealer, around.coordinator
        )
        index = neighbourhood.check(job, sender)
        begun = self._memory.recall(job.job_id).subject == job.subject()
        preparing.check_signed(job, around.credentials.renewed(), begun, self._limits.job_seconds)
        return index

    def finish(self, attempt: Attempt) -> Outcome:
        """See `Workshop`."""
        party = attempt.complete()
        job, program = attempt.job, attempt.program
        outcome = self._results.make(job, program, party, attempt.recipients)
        receipt = self._results.receipt(job, program, attempt.commitments)
        return replace(outcome, sealed=(*outcome.sealed, receipt))

    def publish(self, attempt: Attempt, outcome: Outcome) -> None:
        """See `Workshop`."""
        job = attempt.job
        with self._publishing:
            self._results.publish(job, outcome)
        self._deliveries.store(job.job_id, job.attempt, job.digest(), outcome.sealed)

    def results(self, job_id: str, attempt: int) -> Sequence[Sealed]:
        """See `Workshop`."""
        return self._deliveries.read(job_id, attempt)

    def discard(self, job_id: str) -> None:
        """See `Workshop`."""
        self._deliveries.discard(job_id)

    def closed(self, attempt: Attempt, *, computed: bool) -> None:
        """See `Workshop`."""
        with self._lock:
            self._open.discard(attempt)
            self._ended.add(attempt)
            self._ended.ended[COMPUTED if computed else FAILED] += 1
        self._spent.let_go((attempt.job.job_id, attempt.job.attempt))
        memory.give_back_soon()

    def totals(self, *, ended: bool = False) -> Totals:
        """What all attempts have seen and sent since the start; `ended`: those that are over."""
        with self._lock:
            totals = self._ended.copy()
            for attempt in () if ended else self._open:
                totals.add(attempt)
        return totals

    def _doors(
        self, job: BoundJob, program: Program, index: int, source: Source, failed: Listener
    ) -> Doors:
        around, limits = self._around, self._limits
        channels = {name: self._reach(name, failed) for name in job.parties if name != around.name}
        binding = Binding(job.job_id, job.attempt, job.parties, index, job.digest(), program.digest)
        exchange = PeerExchange(
            self._hub,
            binding,
            {name: pinned.channel for name, pinned in channels.items()},
            patience=limits.lease_seconds,
            opening=limits.lease_seconds,
            lifetime=limits.job_seconds,
            meaning=lambda name, error: channels[name].meaning(error),
        )
        stock = Stock(
            around.dealer,
            lambda: DealerStream(around, job, program, failed, limits.job_seconds),
            failed,
            budget=limits.prefetch_bytes,
            patience=limits.lease_seconds,
        )

        def let_go() -> None:
            for pinned in channels.values():
                pinned.close()

        return Doors(
            stock, exchange, source, self._ledger, self._checkpoints, let_go, self._store.spool
        )

    def _reach(self, name: str, failed: Listener) -> Pinned:
        """The way to another party; the job ends if that one's certificate is revoked."""
        around, identity = self._around, self._around.identity(Role.PARTY, name)

        def revoked(error: MasqueError) -> None:
            error.where["party"] = name
            failed(error)

        return Pinned(
            around.peers[name], identity, around.credentials, peer_options(identity), revoked
        )
