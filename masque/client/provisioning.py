"""Write the kits of a project, and say who must do what since they were last written.

    <out>/<organisation>/...        the files, for the organisation to look at
    <out>/<organisation>.tar.gz     the same in one file: what is sent
    <out>/project.yaml              what they were made from

The same project makes the same bytes. Only files of the kits are written, and none is removed.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from masque.client import kits, project_rules
from masque.client.project import Organisation, Project, load
from masque.errors import IdentityError, InputError, MasqueError
from masque.wire.authority import AUTHORITY_FILE
from masque.wire.certificates import certificate_pem, key_fingerprint, load_authorities
from masque.wire.trust import project_of

RECORD = "project.yaml"


@dataclass(frozen=True)
class Written:
    """One organisation's kit: what of it is new or different, and what that asks of its people."""

    organisation: str
    directory: Path
    archive: Path
    fresh: bool
    changed: tuple[str, ...]
    to_do: tuple[str, ...]


@dataclass(frozen=True)
class Provisioned:
    """All kits. `share_anew`: the parties differ from those of the time before."""

    project: str
    authority: str
    kits: tuple[Written, ...]
    warnings: tuple[str, ...]
    share_anew: bool
    gone: tuple[str, ...]


def provision(project: Project, authority: Path, out: Path, image: str) -> Provisioned:
    """Write every organisation's kit below `out`; `authority` is a directory or a certificate.

    Raises NotFound, IdentityError for the authority of another project, InputError if `out` cannot
    be written.
    """
    certificates = load_authorities(
        authority if authority.is_file() else authority / AUTHORITY_FILE
    )
    if project_of(certificates[0]) != project.project:
        raise IdentityError(
            f"{authority} is the authority of {project_of(certificates[0])!r}, not of"
            f" {project.project!r}.",
            hint=f"Make one: masque pki init --dir D --project {project.project}",
            file=str(authority),
        )
    pem = b"".join(map(certificate_pem, certificates)).decode("ascii")
    before = _before(out)
    try:
        written = [
            _write(project, organisation, _known(before, organisation.name), pem, out, image)
            for organisation in project.organisations
        ]
        record = yaml.safe_dump(project.model_dump(mode="json"), sort_keys=False)
        (out / RECORD).write_text(record, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{error.filename or out} cannot be written: {error.strerror}.",
            hint="Choose another --out, or mend its permissions.",
            directory=str(out),
        ) from None
    names = {organisation.name for organisation in project.organisations}
    return Provisioned(
        project.project,
        key_fingerprint(certificates[0]),
        tuple(written),
        tuple(project_rules.warnings(project)),
        before is not None and _names(before) != _names(project),
        tuple(o.name for o in before.organisations if o.name not in names) if before else (),
    )


def _before(out: Path) -> Project | None:
    """What the kits in `out` were made from; None if there are none."""
    try:
        return load(out / RECORD) if (out / RECORD).exists() else None
    except MasqueError:
        raise InputError(
            f"{out / RECORD}, which says what the kits there were made from, cannot be read.",
            hint="Choose another --out, or remove that file: all kits then count as new.",
            file=str(out / RECORD),
        ) from None


def _known(before: Project | None, name: str) -> Organisation | None:
    return next((o for o in before.organisations if o.name == name), None) if before else None


def _names(project: Project) -> list[str]:
    return [party.name for party in project.parties]


def _write(
    project: Project,
    organisation: Organisation,
    before: Organisation | None,
    authority: str,
    out: Path,
    image: str,
) -> Written:
    directory, archive = out / organisation.name, out / f"{organisation.name}.tar.gz"
    files = kits.contents(project, organisation, authority, image)
    changed = [path for path, text in files.items() if _differs(directory / path, text)]
    for path in changed:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(files[path], encoding="utf-8")
    archive.write_bytes(_packed(organisation.name, files))
    to_do = tuple(_to_do(organisation, before, changed)) if before else ()
    return Written(organisation.name, directory, archive, before is None, tuple(changed), to_do)


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


def _to_do(organisation: Organisation, before: Organisation, changed: list[str]) -> Iterator[str]:
    """What the organisation does about a kit that is not its first."""
    services, told = {service.name for service in before.services}, False
    for service in organisation.services:
        files = [f"{service.name}/{name}" for name in (f"{service.role}.yaml", "policy.yaml")]
        files = [path for path in files if path in changed]
        if service.name not in services:
            told = True
            yield f"{service.name} is new here: follow INSTRUCTIONS.md"
        elif files:
            told = True
            yield (
                f"take over {' and '.join(files)} with compose.yaml, then `docker compose up -d`,"
                f" which starts {service.name} anew"
            )
    if "compose.yaml" in changed and not told:
        yield "take over compose.yaml, then `docker compose up -d`"
    for name in organisation.people:
        if name not in before.people:
            yield f"{name} is new here: follow INSTRUCTIONS.md"
        elif f"clients/{name}/profile.yaml" in changed:
            yield f"{name} takes over clients/{name}/profile.yaml"


def _packed(name: str, files: dict[str, str]) -> bytes:
    """The kit as a .tar.gz below one directory; without dates and owners, so that it repeats."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
