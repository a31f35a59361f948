"""A project of several organisations, as `project.yaml` describes it for `masque provision`.

    project: cancer-study
    organisations:
      - name: trustee
        services: [{role: dealer, name: dealer, address: dealer.trustee.example:7000}]
      - name: hospital-a
        services: [{role: party, name: hospital-a, address: masque.hospital-a.example:7000}]
        owners: [ward-3]
      - name: hospital-b
        services: [{role: party, name: hospital-b, address: masque.hospital-b.example:7000}]
      - name: university
        services: [{role: coordinator, name: coordinator, address: masque.university.example:7000}]
        analysts: [analyst]

An address is where others reach the service; it listens on that port. Owners share data; analysts
submit jobs and receive results. Parties are in the order of the file: party i holds share i.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from masque.client import project_rules
from masque.jobs import document
from masque.jobs.complaints import refusal, validated
from masque.jobs.section import Section, listed
from masque.wire.server import split_address

ServiceRole = Literal["dealer", "party", "coordinator"]
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]


class Service(Section):
    """One service: its role and name, and the host and port at which others reach it."""

    role: ServiceRole = Field(examples=["party"])
    name: str = Field(examples=["hospital-a"])
    address: str = Field(examples=["masque.hospital-a.example:7000"])

    @property
    def host(self) -> str:
        """The name or number of its host."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """Where it listens, in its container too."""
        return split_address(self.address)[1]


class Organisation(Section):
    """Who runs which services, and who of its people takes part."""

    name: str = Field(examples=["hospital-a"])
    services: Annotated[tuple[Service, ...], BeforeValidator(listed)] = ()
    owners: Names = ()
    analysts: Names = ()

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody here who has a certificate of a client, once."""
        return tuple(dict.fromkeys((*self.owners, *self.analysts)))


class Project(Section):
    """See the module docstring."""

    project: str = Field(examples=["cancer-study"])
    organisations: Annotated[tuple[Organisation, ...], BeforeValidator(listed)] = Field(
        examples=["[{name: hospital-a, services: [...]}, ...]"]
    )

    def services(self, role: ServiceRole) -> tuple[Service, ...]:
        """All of a role, in the order of the file."""
        return tuple(found for _, found in self.placed() if found.role == role)

    def placed(self) -> Iterator[tuple[Organisation, Service]]:
        """Every service with the organisation that runs it."""
        for organisation in self.organisations:
            for service in organisation.services:
                yield organisation, service

    @property
    def dealer(self) -> Service:
        """The only one."""
        return self.services("dealer")[0]

    @property
    def coordinator(self) -> Service:
        """The only one."""
        return self.services("coordinator")[0]

    @property
    def parties(self) -> tuple[Service, ...]:
        """In order: party i holds share i."""
        return self.services("party")

    @property
    def analysts(self) -> tuple[str, ...]:
        """Who may submit jobs and receive results."""
        return tuple(name for found in self.organisations for name in found.analysts)


def load(path: Path) -> Project:
    """Read a project. Raises SpecError naming file, line and field of every mistake."""
    source = document.read(path)
    project, complaints = validated(Project, source)
    if project is not None:
        complaints = list(project_rules.mistakes(project))
    if project is None or complaints:
        raise refusal(source, complaints)
    return project
