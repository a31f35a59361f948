"""What is wrong with a service's file, all of it, found without starting the service.

    python -m services.party check-config --config party.yaml

The file is read as a start would read it; then everything that it names on this machine is looked
at: certificates and keys, directories to be written, addresses to listen at, and what the service
itself adds (policy, recipients, store). Nothing is created or connected to.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from masque.errors import InputError, MasqueError, SpecError
from masque.jobs import document
from masque.jobs.complaints import Complaint, refusal, validated
from masque.jobs.document import Document, Where
from masque.wire import telemetry
from masque.wire.certificates import load_certificate, load_signing_key
from masque.wire.identity import Identity, Role
from masque.wire.server import split_address
from masque.wire.settings import Settings, anchored, own_credentials

Examine = Callable[[Settings], Iterable[Complaint]]
"""What a service looks at beyond what all services have in common."""

SPARE = 64 << 20
"""Bytes that a volume should have free before a service begins to use it."""


def report(
    kind: type[Settings], role: Role, path: Path, examine: Examine[Settings], *, as_json: bool
) -> int:
    """Print what is wrong with the file at `path`; returns the exit code: 0, or 3 for mistakes."""
    try:
        source = document.read(path)
        settings, complaints = check(kind, role, source, path, examine)
    except SpecError as error:  # no YAML at all
        source, settings = Document(str(path), None, {}), None
        complaints = [Complaint((), error.message.removeprefix(str(path)).strip(" :."), error.hint)]
        text = str(error)
    else:
        text = refusal(source, complaints).message if complaints else ""
    if as_json:
        mistakes = [_record(source, complaint) for complaint in complaints]
        print(json.dumps({"file": str(path), "ok": not mistakes, "mistakes": mistakes}, indent=2))
    elif complaints:
        print(f"error: {text}", file=sys.stderr)
    else:
        assert settings is not None
        until = own_credentials(settings, role).certificate.not_valid_after_utc
        who = f"{role} {settings.name!r} of project {settings.project!r}"
        print(f"{who} can start with {path}.")
        print(f"Its certificate is valid until {until:%Y-%m-%d %H:%M} UTC.")
    return InputError.exit_code if complaints else 0


def check(
    kind: type[Settings],
    role: Role,
    source: Document,
    path: Path,
    examine: Examine[Settings],
) -> tuple[Settings | None, list[Complaint]]:
    """The settings, as far as they can be read, and every mistake."""
    settings, complaints = validated(kind, source)
    if settings is None:  # what remains without the wrong keys may be enough to look further
        settings, _ = validated(kind, _without(source, [c.where for c in complaints]))
    if settings is None:
        return None, complaints
    complaints += settings.inconsistencies()
    settings = anchored(settings, path.resolve().parent)
    if not any(complaint.where[:1] == ("tls",) for complaint in complaints):
        complaints += _certificates(settings, role)
    complaints += _listening(("listen",), settings.listen)
    if settings.metrics is not None:
        complaints += _listening(("metrics", "listen"), settings.metrics.listen)
    if settings.telemetry is not None and not telemetry.installed():
        complaints.append(Complaint(("telemetry",), telemetry.MISSING, telemetry.CURE))
    if settings.ready_file is not None:
        complaints += writable(("ready_file",), settings.ready_file.parent)
    return settings, [*complaints, *examine(settings)]


def meaning(where: Where, error: MasqueError) -> Complaint:
    """An error that comes of what stands at `where`."""
    return Complaint(where, f"cannot be used: {error.message.rstrip('.')}", error.hint)


def writable(where: Where, directory: Path) -> Iterator[Complaint]:
    """Whether a directory, which need not exist yet, can be written to, and has some space."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield Complaint(where, f"cannot be used: {existing} is not a directory", "Name another.")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield Complaint(
            where,
            f"cannot be used: {existing} cannot be written by user {os.geteuid()}",
            "Mend its permissions, or name another place.",
        )
    elif (free := shutil.disk_usage(existing).free) < SPARE:
        yield Complaint(
            where,
            f"is on a volume with only {free} bytes free",
            "Free some space there, or name another place.",
        )


def _certificates(settings: Settings, role: Role) -> Iterator[Complaint]:
    tls = settings.tls
    if tls.directory is not None:
        stem = Identity(settings.project, role, settings.name).stem
        files = [("directory", tls.directory / f"{stem}.{end}") for end in ("pem", "key")]
    else:
        assert tls.certificate and tls.key, "checked by inconsistencies"
        files = [("certificate", tls.certificate), ("key", tls.key)]
    found = []
    for load, (field, file) in zip((load_certificate, load_signing_key), files, strict=True):
        try:
            load(file)
        except MasqueError as error:
            found.append(meaning(("tls", field), error))
    if not found:
        try:
            own_credentials(settings, role)
        except MasqueError as error:
            found.append(meaning(("tls",), error))
    yield from found


def _listening(where: Where, address: str) -> Iterator[Complaint]:
    """Whether the address is one of this machine; a port in use may be this very service's."""
    host, _ = split_address(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(target)
    except OSError as error:
        reason = error.strerror or str(error)
        cure = "Name an address of this machine, or 0.0.0.0 for all of them."
        yield Complaint(where, f"is not an address of this machine: {reason}", cure)


def _without(source: Document, wrong: Sequence[Where]) -> Document:
    """The file as it would be without some keys."""
    value = copy.deepcopy(source.value)
    for where in wrong:
        holder = _at(value, where[:-1])
        if where and isinstance(holder, dict):
            holder.pop(where[-1], None)
    return Document(source.name, value, source.lines)


def _at(value: Any, where: Where) -> Any:
    for part in where:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _record(source: Document, complaint: Complaint) -> dict[str, Any]:
    value = _at(source.value, complaint.where) if complaint.where else None
    return {
        "file": source.name,
        "line": source.line(complaint.where) if source.lines else None,
        "field": complaint.field or None,
        "value": value,
        "problem": complaint.problem,
        "cure": complaint.cure,
    }
