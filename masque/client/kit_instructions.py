"""The instructions of a kit: ten steps at most, with the commands of this very organisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from masque.client.project import Organisation, Project, Service

USER = "10001:10001"
"""Whom the image runs as."""

KEYS = "docker compose run --rm keys"
"""The container that makes keys, without a network."""

_HEAD = """\
# {who}: your part of {project}

{where} Behind each step: docs/deployment.md, *Separate hosts*.

"""
_HOST = "Run the commands in this directory, on the host; `docker-compose` 1.29 will do as well."
_PERSON = "Run the commands in this directory, on your machine, where `masque` is installed."
_INSTALL = "install it, with the authority's fingerprint as you noted it"
_LAST = "Before the first job, when all organisations have started"
_COMPARE = "telephone, read out the fingerprint that was printed, and note the authority's."


def for_organisation(project: Project, organisation: Organisation, image: str) -> str:
    """INSTRUCTIONS.md of a kit."""
    steps = list(_services(project, organisation, image)) if organisation.services else []
    for name in organisation.people:
        steps.append(f"Hand `clients/{name}` to {name}, who follows the INSTRUCTIONS.md in it.")
    return _page(organisation.name, project, _HOST, steps)


def for_person(project: Project, name: str) -> str:
    """INSTRUCTIONS.md of an owner or analyst."""
    return _page(name, project, _PERSON, list(_person(project, name)))


def _page(who: str, project: Project, where: str, steps: Sequence[str]) -> str:
    head = _HEAD.format(who=who, project=project.project, where=where)
    return head + "".join(f"{at}. {step}\n" for at, step in enumerate(steps, 1))


def _services(project: Project, organisation: Organisation, image: str) -> Iterator[str]:
    services = organisation.services
    folders = " ".join(service.name for service in services)
    yield f"Load the image {image}, which whoever built it has saved: `docker load -i masque.tar`"
    yield f"Let the containers' user own what it uses: `sudo chown -R {USER} {folders}`"
    made = _commands(
        f"{KEYS} {request(project, found.role, found.name, _keys(found), _met(found))}"
        for found in services
    )
    yield f"Make the keys, which never leave this host: {made}"
    asked = _commands(f"{_keys(found)}/{_stem(found)}.csr" for found in services)
    yield f"Send {asked} to the keeper of the authority; {_COMPARE}"
    taken = _commands(f"{KEYS} {install(_stem(found), _keys(found))}" for found in services)
    yield f"Put what comes back into this directory, and {_INSTALL}: {taken}"
    parties = [found.name for found in services if found.role == "party"]
    if parties:
        policies = _commands(f"{name}/policy.yaml" for name in parties)
        places = _commands(f"{name}/recipients" for name in parties)
        yield (
            f"Read {policies}, which says what may be computed. Put the `.recipient.pub` files that"
            f" the analysts send you into {places}."
        )
    yield f"Open the way: {'; '.join(_way(project, found) for found in services)}."
    yield "Start, and look whether all are healthy: `docker compose up -d`, `docker compose ps`"
    looked = _commands(
        f"docker compose exec {found.name} masque-service doctor" for found in services
    )
    yield f"{_LAST}: {looked}"


def _person(project: Project, name: str) -> Iterator[str]:
    stem = f"{name}.client"
    made = request(project, "client", name, "certificates")
    yield f"Make your key, which never leaves your machine: `{made}`"
    yield f"Send `certificates/{stem}.csr` to the keeper of the authority; {_COMPARE}"
    yield f"Put what comes back into this directory, and {_INSTALL}: `{install(stem)}`"
    if name in project.analysts:
        parties = ", ".join(party.name for party in project.parties)
        yield (
            "Make the keys that results are sealed to: `masque pki recipient --certificates"
            f" certificates --out recipients`. Send `recipients/{name}.recipient.pub` to the"
            f" operators of {parties}, and keep the other file: results open with it alone."
        )
    yield f"{_LAST}: `masque doctor --profile profile.yaml`"


def request(project: Project, role: str, name: str, folder: str, hosts: Iterable[str] = ()) -> str:
    """The command that makes a key and asks for its certificate."""
    met = "".join(f" --host {host}" for host in hosts)
    return f"masque pki request {role} {name} --project {project.project}{met} --out {folder}"


def install(stem: str, folder: str = "certificates") -> str:
    """The command that takes up what the keeper of the authority sends back."""
    return f"masque pki install authority.pem {stem}.pem --into {folder}"


def _way(project: Project, service: Service) -> str:
    """Who calls a service, and whom it calls: for whoever keeps the firewall."""
    parties = [party for party in project.parties if party != service]
    dealer, coordinator = project.dealer, project.coordinator
    callers, called = {
        "dealer": ([*parties, coordinator], []),
        "party": ([*parties, coordinator], [*parties, dealer]),
        "coordinator": ([], [*parties, dealer]),
    }[service.role]
    hosts = [*dict.fromkeys(found.host for found in callers), "people's machines"]
    targets = ", ".join(found.address for found in called) or "nobody"
    calls = f"calls {targets}"
    return f"{service.name} is called at port {service.port} from {', '.join(hosts)}, and {calls}"


def _keys(service: Service) -> str:
    return f"{service.name}/certificates"


def _stem(service: Service) -> str:
    return f"{service.name}.{service.role}"


def _met(service: Service) -> tuple[str, ...]:
    return service.host, "localhost"


def _commands(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)
