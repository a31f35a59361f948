"""What is looked at on the host itself: certificate and key, the port, the disk."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from masque.client.console import size
from masque.client.doctor.findings import HERE, Finding, Limits, doubtful, fine, wrong
from masque.client.doctor.subject import Subject
from masque.errors import Conflict, InputError, MasqueError, Unavailable
from masque.wire import preflight
from masque.wire.certificates import describe
from masque.wire.host import free_bytes
from masque.wire.server import join_address, reachable_here, split_address, trouble_with_port
from masque.wire.tls import Credentials

RENEW = "Renew it with `masque pki request --renew`: a running service takes it up."
ROTATE = "Have the authority rotated in time: every certificate is to be issued anew."


def certificate(subject: Subject, limits: Limits) -> tuple[Credentials | None, list[Finding]]:
    """Loads the subject's certificate and key, if they can be used; what is found of them."""
    try:
        found = subject.credentials()
    except MasqueError as error:
        return None, [wrong(HERE, "certificate", error)]
    trust = found.trust
    findings = [
        _period("certificate", found.certificate, RENEW, limits),
        *(_period("authority", one, ROTATE, limits) for one in trust.authorities),
    ]
    count = len(trust.revocations.serials)
    number = trust.revocations.number(trust.authorities[0])
    says = f"{count} on list {number}" if number else "there is no list"
    return found, [*findings, fine(HERE, "revoked", says)]


def _period(check: str, pem: x509.Certificate, cure: str, limits: Limits) -> Finding:
    facts = describe(pem)
    days = facts.remaining().total_seconds() / 86_400
    who = facts.subject if facts.identity is None else facts.identity.uri
    text = f"{who}, valid for {days:.0f} days"
    if days < limits.days_warn:
        return doubtful(HERE, check, text, cure, days=round(days, 1))
    return fine(HERE, check, text, days=round(days, 1))


def port(subject: Subject, credentials: Credentials | None, limits: Limits) -> Iterator[Finding]:
    """Whether the service can have its port, or has it."""
    if subject.listen is None:
        return
    host, number = split_address(subject.listen)
    if number == 0:
        cure = f"Give listen in {subject.file.name} a port that the others know."
        yield doubtful(HERE, "port", "the system chooses one at every start", cure)
        return
    trouble = trouble_with_port(host, number)
    if trouble is None:
        yield fine(HERE, "port", f"{subject.listen} is free: the service does not run")
    elif isinstance(trouble, Conflict) and credentials is not None:
        yield _held(subject, credentials, limits, trouble)
    else:
        yield wrong(HERE, "port", trouble)
    if _loopback(host) and not all(_loopback(split_address(p.address)[0]) for p in subject.peers):
        cure = f"Let listen in {subject.file.name} be an address that the others reach, or 0.0.0.0."
        yield doubtful(HERE, "port", f"other hosts do not reach {host}", cure)


def _held(
    subject: Subject, credentials: Credentials, limits: Limits, trouble: MasqueError
) -> Finding:
    """Who has the port: the service itself, or somebody else."""
    assert subject.listen is not None, "asked by port"
    address = join_address(*reachable_here(subject.listen))
    try:
        serving = preflight.check(address, subject.identity, credentials, patience=limits.patience)
    except MasqueError:
        return wrong(HERE, "port", trouble)
    if serving:
        return fine(HERE, "port", f"{subject.listen} is held by this service, which serves")
    told = Unavailable(
        f"{subject.listen} is held by this service, which does not serve.",
        hint="It may be starting or stopping: see its log.",
    )
    return wrong(HERE, "port", told)


def disk(subject: Subject, limits: Limits, needed: int) -> Iterator[Finding]:
    """Whether data can be written, and `needed` bytes of it at that."""
    if subject.volume is None:
        return
    place = subject.volume
    try:
        free = free_bytes(place)
    except OSError as error:
        told = InputError(
            f"{place} cannot be looked at: {error.strerror}.",
            hint="Mend the permissions of its directory, or name another.",
        )
        yield wrong(HERE, "disk", told)
        return
    if not os.access(_nearest(place), os.W_OK | os.X_OK):
        told = InputError(
            f"{_nearest(place)} cannot be written by user {os.getuid()}.",
            hint="Give it to the user that the service runs as: chown, or another volume.",
        )
        yield wrong(HERE, "disk", told)
        return
    least = max(limits.free_fail, float(needed))
    text = f"{size(free)} free for {place}"
    if free < least:
        told = InputError(f"{text}; {size(least)} are needed.", hint="Free space, or move it.")
        yield wrong(HERE, "disk", told, free=free)
    elif free < limits.free_warn:
        yield doubtful(HERE, "disk", text, "Free space before more data is shared.", free=free)
    else:
        yield fine(HERE, "disk", text, free=free)


def _nearest(path: Path) -> Path:
    """The path itself, or the directory in which it would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
