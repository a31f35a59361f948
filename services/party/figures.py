"""What a party tells Prometheus: sums over its jobs, read when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from masque.data.store import Store
from masque.jobs.states import State
from masque.wire.links import Traffic
from masque.wire.metrics import Metric, by, counter, gauge, jobs
from services.party.attempt import Account, Attempt
from services.party.jobs import Jobs

COMPUTED, FAILED = "computed", "failed"
"""How attempts end."""

STATES = (State.PREPARING, State.READY, State.TRAINING, State.FINISHING)


@dataclass
class Totals:
    """What attempts have seen and sent: all together, by peer, and how they ended."""

    account: Account = field(default_factory=Account)
    links: dict[str, Traffic] = field(default_factory=dict)
    rounds: int = 0
    waiting: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def add(self, attempt: Attempt) -> None:
        """Add an attempt, as it is now."""
        self.account.add(attempt.account())
        self.rounds += attempt.trained
        self.waiting += attempt.material
        for name, link in attempt.links.items():
            total = self.links.setdefault(name, Traffic())
            total.sent += link.sent
            total.received += link.received
            total.waited += link.waited

    def copy(self) -> Totals:
        """The same numbers, apart from these."""
        account = Account()
        account.add(self.account)
        links = {
            name: Traffic(link.sent, link.received, link.waited)
            for name, link in self.links.items()
        }
        return Totals(account, links, self.rounds, self.waiting, Counter(self.ended))


@dataclass(frozen=True)
class Figures:
    """`masque.wire.metrics.Source` of a party. Labels name services of its own configuration."""

    dealer: str
    peers: tuple[str, ...]
    totals: Callable[[], Totals]
    jobs: Jobs
    store: Store
    uploads: Callable[[], int]

    def __call__(self) -> Iterator[Metric]:
        """See `Source`."""
        totals = self.totals()
        yield from self._work(totals)
        yield from self._traffic(totals)
        yield from self._kept()

    def _work(self, totals: Totals) -> Iterator[Metric]:
        account = totals.account
        states = Counter(job.state.state for job in self.jobs.all() if job.unfinished)
        yield from jobs(
            {state.value: states[state] for state in STATES},
            {how: totals.ended[how] for how in (COMPUTED, FAILED)},
        )
        yield counter(
            "masque_training_rounds_total", "Training rounds that have been run.", totals.rounds
        )
        yield counter(
            "masque_protocol_rounds_total",
            "Exchanges of masked values with all other parties.",
            account.exchanges,
        )
        yield counter(
            "masque_declared_openings_total",
            "Values opened as jobs declared (metrics, early-stop bits), each in the ledger.",
            account.declared_openings,
        )
        yield counter(
            "masque_sealed_outputs_total",
            "Shares of outputs that have been sealed to a recipient.",
            account.sealed_outputs,
        )

    def _traffic(self, totals: Totals) -> Iterator[Metric]:
        links = {name: totals.links.get(name) or Traffic() for name in self.peers}
        yield Metric(
            "masque_peer_sent_bytes_total",
            "counter",
            "Bytes of masked values sent to another party, without framing.",
            **by("peer", {name: link.sent for name, link in links.items()}),
        )
        yield Metric(
            "masque_peer_received_bytes_total",
            "counter",
            "Bytes of masked values received from another party, without framing.",
            **by("peer", {name: link.received for name, link in links.items()}),
        )
        waited: dict[tuple[str, ...], float] = {
            ("party", name): link.waited for name, link in links.items()
        }
        yield Metric(
            "masque_waited_seconds_total",
            "counter",
            "Seconds that computing has waited for another service to send something.",
            ("role", "peer"),
            {**waited, ("dealer", self.dealer): totals.account.waiting_for_dealer},
        )
        yield Metric(
            "masque_material_bytes_total",
            "counter",
            "Bytes of material (corrections) dealt to a party, or received from the dealer.",
            **by("peer", {self.dealer: totals.account.corrections}),
        )
        yield Metric(
            "masque_material_waiting_bytes",
            "gauge",
            "Bytes of material in stock: made or received, not yet taken.",
            **by("peer", {self.dealer: totals.waiting}),
        )

    def _kept(self) -> Iterator[Metric]:
        entries = self.store.list()
        yield gauge("masque_datasets", "Data sets of which this party holds a share.", len(entries))
        yield gauge(
            "masque_share_bytes",
            "Bytes that the shares of data sets take.",
            sum(entry.size for entry in entries),
        )
        yield gauge("masque_uploads_running", "Uploads under way.", self.uploads())
