"""After the last power cut: what is left on all disks, and whether it is what was acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from masque.data.kept import KeptModels
from masque.data.store import Store as Shares
from masque.errors import NotFound
from masque.jobs.chain import DELETED, OPENED
from masque.jobs.ledger import disclosure
from masque.mpc import sharing
from masque.mpc.types import Ring
from masque.wire.ledgers import VerifiedLedger, verify_ledger
from masque.wire.outputs import decode_output
from services.coordinator.store import Store as Jobs
from tests.services.handmade import gram
from tests.simulation.disks import Disk
from tests.simulation.stories import NAME, Order, Story
from tests.simulation.villages import Village


@dataclass(frozen=True)
class Remains:
    """The disks of a village that has no power any more."""

    village: Village
    story: Story

    def check(self) -> None:
        """Break a rule for everything that is not as it should be. Raises MasqueError for more."""
        shares: list[Ring] = []
        kept: dict[str, list[Ring]] = {}
        trust = self.village.profile("analyst").credentials().trust
        for name in self.village.parties:
            root = self._laid_out(name)
            ledger = verify_ledger(root / "ledger.jsonl", trust)
            with Shares(root) as store:
                shares += self._data(store, name, ledger)
                models = KeptModels(root / "kept", store.key)
                for order in self._keepers():
                    raw = models.share(f"model-of-{order.job_id}", "gram")
                    kept.setdefault(order.job_id, []).append(decode_output(raw, name)[0])
        if shares and not np.array_equal(sharing.join(shares), self.story.clear):
            self._lost("the shares are no longer those of the data")
        self._models(kept)
        self._jobs()

    def _lost(self, text: str) -> None:
        self.village.world.break_rule("acknowledged", f"after a power cut: {text}")

    def _laid_out(self, name: str) -> Path:
        village = self.village
        image = village.services[name].image
        return Disk(village.root / f"{name}-left", village.random, lambda kind: None, image).root

    def _data(self, store: Shares, name: str, ledger: VerifiedLedger) -> list[Ring]:
        """A party's share of the data, or nothing where it was deleted."""
        story = self.story
        noted = [line.entry.get("upload") for line in ledger.chain.lines if line.kind == DELETED]
        for line in ledger.chain.lines:
            if line.kind == OPENED:
                said = disclosure(line)
                story.monitors.noted(name, said.job, said.what, said.to)
        try:
            entry = store.entry(NAME)
        except NotFound:
            if not story.deleted:
                raise
            pending = [p.read_text() for p in (store.directory / "deleted").glob("*.json")]
            waits = any(story.acknowledged in text for text in pending)
            if story.acknowledged not in noted and not waits:
                self._lost(f"{name} has deleted {NAME}, and its ledger does not say so")
            return []
        if story.deleted:
            self._lost(f"{name} has deleted {NAME}, and has it again")
        elif entry.upload_id != story.acknowledged:
            self._lost(f"{name} holds another upload of {NAME}")
        return [store.rows(NAME)]

    def _keepers(self) -> list[Order]:
        ended = self.story.ended
        return [
            order
            for order in self.story.orders
            if order.output == "kept" and ended[order.job_id].state == "succeeded"
        ]

    def _models(self, kept: Mapping[str, list[Ring]]) -> None:
        for order in self._keepers():
            due = gram(self.story.clear, order.epochs * order.steps)
            if not np.array_equal(sharing.join(kept[order.job_id]), due):
                text = f"{order.job_id}: what the parties keep is not the model"
                self.village.world.break_rule("exact", text)

    def _jobs(self) -> None:
        story = self.story
        with Jobs(self._laid_out("coordinator") / "jobs.sqlite") as store:
            for job_id in sorted(story.accepted):
                job = store.job(job_id)
                if job is None:
                    self._lost(f"job {job_id} is gone")
                elif job_id in story.ended:
                    story.monitors.ended(job_id, job.conducted.state.value)
