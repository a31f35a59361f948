"""What a project must keep to: names, addresses, and who is kept apart from whom.

The separations are those of SECURITY.md. What would break the guarantee for everybody is a mistake;
what weakens it, or makes them weaker than they look, is a warning.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from masque.errors import InputError
from masque.jobs.complaints import Complaint, shown
from masque.jobs.document import Where
from masque.wire.identity import NAME, SCHEME
from masque.wire.server import split_address

if TYPE_CHECKING:
    from masque.client.project import Organisation, Project, Service

RESERVED = {
    "services": {"clients": "the files of people are there", "keys": "a container is called so"},
    "people": {"all": "it means everybody in a job file", "parties": "it means all parties there"},
}
MOST_PARTIES = 64

_NAME_RULE = "Use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit."
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_APART = "Let an organisation run the dealer that runs no party: see SECURITY.md, What breaks it."


def mistakes(project: Project) -> Iterator[Complaint]:
    """Everything for which the project is refused."""
    if not NAME.fullmatch(project.project):
        yield Complaint(("project",), f"cannot be {shown(project.project)}", _NAME_RULE)
    yield from _names(project)
    addresses = list(_addresses(project))
    yield from addresses
    yield from _numbers(project)
    if not addresses:
        yield from _separation(project)


def warnings(project: Project) -> Iterator[str]:
    """What is allowed, and should be known."""
    for organisation in project.organisations:
        roles = Counter(service.role for service in organisation.services)
        if roles["dealer"] and roles["coordinator"]:
            yield (
                f"{organisation.name} runs the dealer and the coordinator: whoever runs both sees"
                " every mask and every sealed result side by side. Keep the dealer by itself."
            )
        if roles["party"] > 1:
            yield (
                f"{organisation.name} runs {roles['party']} parties: they count as one, since"
                " whoever runs both may pool what they hold."
            )
        if roles["dealer"] and organisation.people:
            yield (
                f"{organisation.name} runs the dealer, and its people take part"
                f" ({', '.join(organisation.people)}): the dealer should have no interest in"
                " the data."
            )


def _names(project: Project) -> Iterator[Complaint]:
    services: set[str] = set()
    people: set[str] = set()
    organisations: set[str] = set()
    for at, organisation in enumerate(project.organisations):
        where: Where = ("organisations", at)
        yield from _name((*where, "name"), organisation.name, organisations)
        organisations.add(organisation.name)
        if not organisation.services and not organisation.people:
            yield Complaint(where, "has neither services nor people", "Give it some, or remove it.")
        for number, service in enumerate(organisation.services):
            place = (*where, "services", number, "name")
            yield from _name(place, service.name, services, RESERVED["services"])
            services.add(service.name)
        for kind in ("owners", "analysts"):  # one person may be both
            listed: list[str] = list(getattr(organisation, kind))
            for number, name in enumerate(listed):
                taken = people | set(listed[:number])
                yield from _name((*where, kind, number), name, taken, RESERVED["people"])
        people |= set(organisation.people)


def _name(
    where: Where, name: str, taken: Set[str], reserved: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Complaint]:
    if not NAME.fullmatch(name):
        yield Complaint(where, f"cannot be {shown(name)}", _NAME_RULE)
    elif name in reserved:
        yield Complaint(where, f"cannot be {name!r}: {reserved[name]}", "Choose another name.")
    elif name in taken:
        yield Complaint(where, f"is {name!r}, as another one is", "Choose another name.")


def _addresses(project: Project) -> Iterator[Complaint]:
    taken: dict[str, str] = {}
    for at, organisation in enumerate(project.organisations):
        for number, service in enumerate(organisation.services):
            where: Where = ("organisations", at, "services", number, "address")
            complaint = _address(where, service.address)
            if complaint is None and service.address in taken:
                other = taken[service.address]
                complaint = Complaint(where, f"is that of {other!r}", "Choose another port.")
            if complaint is not None:
                yield complaint
            taken.setdefault(service.address, service.name)


def _address(where: Where, address: str) -> Complaint | None:
    try:
        host, port = split_address(address)
    except InputError:
        return Complaint(where, f"cannot be {shown(address)}", "Write host:port.")
    if not 1024 <= port <= 65535:
        cure = "Services run without privileges: choose a port of 1024 to 65535."
        return Complaint(where, f"has the port {port}", cure)
    here = "Write the name or number at which the other organisations reach this host."
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            return Complaint(where, "is this machine itself to everybody who reads it", here)
        if not _HOST.fullmatch(host) or host.endswith(f".{SCHEME}"):
            return Complaint(where, f"cannot be {shown(address)}", f"In lower case. {here}")
        return None
    if number.is_loopback or number.is_unspecified or number.is_multicast:
        return Complaint(where, f"has the host {host}, where nobody else reaches it", here)
    return None


def _numbers(project: Project) -> Iterator[Complaint]:
    where: Where = ("organisations",)
    for role in ("dealer", "coordinator"):
        count = sum(service.role == role for _, service in project.placed())
        if count != 1:
            yield Complaint(where, f"have {count} {role}s between them", "There must be one.")
    parties = sum(service.role == "party" for _, service in project.placed())
    if not 2 <= parties <= MOST_PARTIES:
        cure = f"There must be 2 to {MOST_PARTIES}, each at an organisation of its own."
        yield Complaint(where, f"have {parties} computing parties between them", cure)
    if not project.analysts:
        yield Complaint(where, "have no analysts", "Name who submits jobs and receives results.")


def _separation(project: Project) -> Iterator[Complaint]:
    everything = "whoever runs both learns all data"
    for at, organisation in enumerate(project.organisations):
        roles = {service.role for service in organisation.services}
        if {"dealer", "party"} <= roles:
            problem = f"runs the dealer and a party: {everything}"
            yield Complaint(("organisations", at), f"({organisation.name}) {problem}", _APART)
    homes = {organisation.name for organisation, found in project.placed() if found.role == "party"}
    if len(homes) == 1 and len(project.parties) > 1:
        problem = f"run all parties at {homes.pop()}, which then has all shares"
        yield Complaint(("organisations",), problem, "Two organisations at least must compute.")
    yield from _shared_hosts(project)


def _shared_hosts(project: Project) -> Iterator[Complaint]:
    """A host has one owner: services of two organisations on it are one organisation's."""
    placed = sorted(_places(project), key=lambda found: found[2].host)
    for (_, first, one), (where, second, other) in pairwise(placed):
        if one.host == other.host and first.name != second.name:
            problem = f"is on the host of {one.name!r}, which {first.name} runs"
            yield Complaint(where, problem, "Give every organisation a host of its own.")


def _places(project: Project) -> Iterator[tuple[Where, Organisation, Service]]:
    for at, organisation in enumerate(project.organisations):
        for number, service in enumerate(organisation.services):
            yield ("organisations", at, "services", number, "address"), organisation, service
