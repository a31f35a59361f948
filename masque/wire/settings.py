"""The configuration file of a service: read strictly, every mistake with its line and its cure.

Paths in a file are relative to the file. What all services have in common is here; each adds its
own keys in a subclass of `ServiceSettings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from masque.errors import IdentityError
from masque.jobs import document
from masque.jobs.complaints import Complaint, refusal, validated
from masque.jobs.document import Where
from masque.jobs.section import Section
from masque.wire.identity import Identity, Role
from masque.wire.server import split_address
from masque.wire.tls import Credentials, find_credentials, load_credentials


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


def _address(value: Any) -> Any:
    if isinstance(value, str):
        try:
            split_address(value)
        except Exception as error:
            raise ValueError(str(error)) from None
    return value


PathField = Annotated[Path, BeforeValidator(_path)]
Address = Annotated[str, BeforeValidator(_address)]
DnsName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
LogLevel = Literal["debug", "info", "warning", "error"]


class TlsSettings(Section):
    """Where the certificate is: a `directory` as `masque pki` fills it, or three files.

    `revoked`: where revocation lists are kept that the service is told of while it runs; by
    default `authority.crl` beside the authority's certificate.
    """

    directory: PathField | None = Field(None, examples=["certificates"])
    certificate: PathField | None = None
    key: PathField | None = None
    authority: PathField | None = None
    revoked: PathField | None = None


class PeerSettings(Section):
    """Another service: its name, and where it listens."""

    name: DnsName = Field(examples=["dealer"])
    address: Address = Field(examples=["127.0.0.1:7000"])


class MetricsSettings(Section):
    """Where Prometheus may ask for numbers, over plain HTTP."""

    listen: Address = Field("127.0.0.1:9464", examples=["127.0.0.1:9464"])


class TelemetrySettings(Section):
    """The OTLP/HTTP collector that spans are sent to."""

    otlp: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+/?$")] = Field(
        examples=["http://127.0.0.1:4318"]
    )


class ServiceSettings(Section):
    """What every service's file says.

    With port 0 in `listen` the system chooses one; `ready_file` is then where to read which.
    `stop_seconds`: how long work under way may go on after SIGTERM.
    """

    name: DnsName = Field(examples=["hospital-a"])
    project: DnsName = Field(examples=["demo"])
    listen: Address = Field("127.0.0.1:0", examples=["127.0.0.1:7001"])
    ready_file: PathField | None = None
    tls: TlsSettings = Field(examples=["{directory: certificates}"])
    log_level: LogLevel = "info"
    stop_seconds: Annotated[float, Field(ge=0, le=3600)] = 8.0
    metrics: MetricsSettings | None = None
    telemetry: TelemetrySettings | None = None

    @property
    def volume(self) -> Path | None:
        """A place on the volume that holds what the service keeps; None if it keeps nothing."""
        return None

    def inconsistencies(self) -> list[Complaint]:
        """What is wrong with it although each value alone is right."""
        tls = self.tls
        files = [tls.certificate, tls.key, tls.authority]
        if tls.directory is not None and any(files):
            cure = "Remove directory, or certificate, key and authority."
            return [Complaint(("tls",), "names a directory and files", cure)]
        if tls.directory is None and not all(files):
            cure = "Add a directory, or all three of certificate, key and authority."
            return [Complaint(("tls",), "names no directory and not all files", cure)]
        return []


def distinct(field: str, peers: Iterable[tuple[Where, str, str]]) -> Iterator[Complaint]:
    """Complaints about (where, name, address) of peers that share a name or an address."""
    names: set[str] = set()
    addresses: dict[str, str] = {}
    for where, name, address in peers:
        if name in names:
            yield Complaint(where, f"is the second {name!r}", f"Each of {field} has its own name.")
        elif address in addresses:
            cure = "Each service listens at an address of its own."
            yield Complaint(where, f"has the address of {addresses[address]!r}, {address}", cure)
        names.add(name)
        addresses.setdefault(address, name)


Settings = TypeVar("Settings", bound=ServiceSettings)
AnySection = TypeVar("AnySection", bound=Section)


def load_settings(kind: type[Settings], path: Path) -> Settings:
    """Read a service's file. Raises SpecError naming file, line and field of every mistake."""
    return read_settings(kind, document.read(path), path)


def read_settings(kind: type[Settings], source: document.Document, path: Path) -> Settings:
    """The same of a file that was read already."""
    settings, complaints = validated(kind, source)
    if settings is not None:
        complaints = settings.inconsistencies()
    if settings is None or complaints:
        raise refusal(source, complaints)
    return anchored(settings, path.resolve().parent)


def load_part(kind: type[Settings], path: Path) -> Settings:
    """Read the keys that `kind` knows of a service's file; the others are not its business."""
    source = document.read(path)
    if isinstance(source.value, dict):
        known = {key: source.value[key] for key in kind.model_fields if key in source.value}
        source = document.Document(source.name, known, source.lines)
    return read_settings(kind, source, path)


def own_credentials(settings: ServiceSettings, role: Role) -> Credentials:
    """The certificate that the file names, which must be that of this very service.

    Raises IdentityError or NotFound, naming the file or both identities.
    """
    tls, wanted = settings.tls, Identity(settings.project, role, settings.name)
    if tls.directory is not None:
        found = find_credentials(tls.directory, wanted.stem, revoked=tls.revoked)
    else:
        assert tls.certificate and tls.key and tls.authority, "checked by load_settings"
        found = load_credentials(tls.certificate, tls.key, tls.authority, revoked=tls.revoked)
    if found.identity != wanted:
        raise IdentityError(
            f"The certificate is that of {found.identity.uri}, not of {wanted.uri}.",
            hint="Name its file in tls, or correct name and project.",
            found=found.identity.uri,
        )
    return found


def anchored(section: AnySection, base: Path) -> AnySection:
    """The same with every relative path, at any depth, made absolute from `base`."""
    changes: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            changes[name] = base / value.expanduser()
        elif isinstance(value, Section):
            changes[name] = anchored(value, base)
    return section.model_copy(update=changes)
