"""What finished jobs hand over, sealed, until their coordinator has said that they have ended.

    data/results/<job>.json     the attempt, the bound job's digest, and every sealed item

It is there before the coordinator is told that training is done. So a party that was restarted
still hands over the results of that very attempt, and need not compute, or release, them again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from masque.data.disk import make_directory, sync, unwritable
from masque.errors import MasqueError
from services.party.results import Sealed, write_whole

_log: Any = structlog.get_logger("masque.party")


@dataclass(frozen=True)
class Delivery:
    """The items of one attempt of a job whose bound job has this digest."""

    attempt: int
    digest: bytes
    items: tuple[Sealed, ...] = field(repr=False)


class Deliveries:
    """Those below `directory`, one a job."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        make_directory(directory)

    def store(self, job_id: str, attempt: int, digest: bytes, items: Sequence[Sealed]) -> None:
        """Returns once it is on disk, in the place of an earlier one. MasqueError if it cannot."""
        record = {
            "attempt": attempt,
            "digest": digest.hex(),
            "items": [
                [item.output, item.recipient, base64.b64encode(item.content).decode()]
                for item in items
            ],
        }
        write_whole(self._path(job_id), json.dumps(record).encode())

    def find(self, job_id: str) -> Delivery | None:
        """What a job hands over; None if there is nothing, or nothing that can be read."""
        try:
            return _delivery(json.loads(self._path(job_id).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            _log.warning("damaged results: the job computes them again", job=job_id)
            return None

    def read(self, job_id: str, attempt: int) -> tuple[Sealed, ...]:
        """The items of an attempt. Raises MasqueError if they are not there any more."""
        found = self.find(job_id)
        if found is None or found.attempt != attempt:
            raise MasqueError(
                f"the results of job {job_id}, attempt {attempt}, cannot be read here any more.",
                hint="Submit the job again under another id.",
                job=job_id,
                results="lost",
            )
        return found.items

    def remove(self, job_id: str) -> None:
        """Returns once they are gone for good. Raises MasqueError if they cannot be removed."""
        path = self._path(job_id)
        try:
            if path.exists():
                path.unlink()
                sync(self._directory)
        except OSError as error:
            raise unwritable(path, error) from None

    def discard(self, job_id: str) -> None:
        """They are of an attempt that is over; what cannot be removed goes at the next start."""
        try:
            self.remove(job_id)
        except MasqueError as error:
            _log.warning("results not removed", job=job_id, error=error)

    def jobs(self) -> list[str]:
        """Jobs of which there is something."""
        return sorted(path.stem for path in self._directory.glob("*.json"))

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.json"


def _delivery(found: Any) -> Delivery:
    items = tuple(
        Sealed(str(output), str(recipient), base64.b64decode(content, validate=True))
        for output, recipient, content in found["items"]
    )
    return Delivery(int(found["attempt"]), bytes.fromhex(found["digest"]), items)
