"""The dealer's configuration file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from masque.jobs.section import Section
from masque.wire.settings import DnsName, ServiceSettings


class DealerLimits(Section):
    """What the dealer spends at most: bytes that wait for one party, jobs at once, seconds.

    `lease_seconds`: after which an attempt that no party has come for makes room for another.
    """

    queue_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 34)] = 32 << 20
    jobs: Annotated[int, Field(ge=1, le=1000)] = 16
    lease_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0


class DealerSettings(ServiceSettings):
    """`coordinator` is the only one that this dealer obeys; without it, any of the project."""

    coordinator: DnsName | None = Field(None, examples=["coordinator"])
    limits: DealerLimits = DealerLimits()
