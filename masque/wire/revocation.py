"""Revocation lists (RFC 5280): the certificates that an authority has withdrawn.

A file `authority.crl` holds one list of each authority, in PEM. A list is believed for the
authority's signature, whoever brings it, and only if its number is higher than that of the list
before it: an old list cannot be played back. A list that is past its date, or a file that can no
longer be read, changes nothing: what was revoked stays revoked.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from masque.errors import IdentityError, MasqueError, NotFound, Refused
from masque.wire.keyfiles import PUBLIC, read_file, write_files

LISTS_FILE = "authority.crl"
LARGEST = 3 << 20
"""Bytes of lists that are looked at: some fifty thousand certificates."""

BLOCK = re.compile(rb"-----BEGIN X509 CRL-----\s[A-Za-z0-9+/=\s]*?-----END X509 CRL-----(?:\s|\Z)")
"""One list in PEM, with what is around it left out."""

_BEGIN = b"-----BEGIN"
_UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension),
    *(x509.ExtensionNotFound, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)
_log = structlog.get_logger("masque.wire")

Serials = frozenset[int]
Listener = Callable[[Serials], None]
Authorities = Sequence[x509.Certificate]


@dataclass(frozen=True)
class RevocationList:
    """One authority's list, whose signature was verified."""

    issuer: str
    number: int
    serials: Serials
    until: dt.datetime | None
    pem: bytes = field(repr=False)


def read_lists(content: bytes, authorities: Authorities, where: str) -> list[RevocationList]:
    """The lists of these authorities in PEM text; those of others are passed over.

    Raises `IdentityError` if a part cannot be read, or if none is signed by these authorities.
    """
    blocks = BLOCK.findall(content)
    if not blocks or len(content) > LARGEST or content.count(_BEGIN) != len(blocks):
        raise _unreadable(where)
    found: dict[str, RevocationList] = {}
    for block in blocks:
        one = _read(block, authorities, where)
        if one is not None and (one.issuer not in found or found[one.issuer].number < one.number):
            found[one.issuer] = one
    if not found:
        raise IdentityError(
            f"{where} holds no revocation list that this project's authority has signed.",
            hint="Ask the authority for its authority.crl.",
            file=where,
            foreign=True,
        )
    return list(found.values())


def _read(block: bytes, authorities: Authorities, where: str) -> RevocationList | None:
    try:
        crl = x509.load_pem_x509_crl(block)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        serials = frozenset(entry.serial_number for entry in crl)
        issuer = next((a for a in authorities if _signed(crl, a)), None)
    except _UNREADABLE:
        raise _unreadable(where) from None
    if issuer is None:
        return None
    pem = crl.public_bytes(serialization.Encoding.PEM)
    name = issuer.fingerprint(hashes.SHA256()).hex()
    return RevocationList(name, number, serials, crl.next_update_utc, pem)


def _signed(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    return crl.issuer == authority.subject and crl.is_signature_valid(key)  # type: ignore[arg-type]


class Revocations:
    """All lists that a process knows, and who wants to hear of new ones. Safe in any thread.

    `files` are read at the start and when they change; what is taken is written to the last.
    """

    def __init__(self, *files: Path) -> None:
        self._files = tuple(dict.fromkeys(files))
        self._lock = threading.Lock()
        self._lists: dict[str, RevocationList] = {}
        self._serials: Serials = frozenset()
        self._seen: object = None
        self._listeners: list[Listener] = []

    def __contains__(self, serial: int) -> bool:
        return serial in self._serials

    @property
    def serials(self) -> Serials:
        """Everything that is revoked."""
        return self._serials

    @property
    def overdue(self) -> bool:
        """Whether a list in force is past its date: there should be a newer one."""
        now = dt.datetime.now(dt.UTC)
        return any(one.until is not None and one.until < now for one in self._lists.values())

    def number(self, authority: x509.Certificate) -> int:
        """The number of an authority's list in force; 0 if there is none."""
        found = self._lists.get(authority.fingerprint(hashes.SHA256()).hex())
        return found.number if found else 0

    def read(self, authorities: Authorities) -> None:
        """Read the files at the start. Raises `IdentityError` if one of them is damaged.

        A file of its own for what is taken holds only what was believed then: if none of these
        authorities has signed it, it is of one that was retired, and is passed over.
        """
        self._seen = self._state(authorities)
        for path in self._files:
            try:
                lists = read_lists(read_file(path, "revocation list"), authorities, str(path))
            except NotFound:
                continue
            except IdentityError as error:
                if path == self._files[0] or not error.where.get("foreign"):
                    raise
                _log.warning("kept revocation list passed over", error=error)
                continue
            self._merge(lists)

    def refresh(self, authorities: Authorities) -> None:
        """Look whether the files have changed; one that is damaged is told of and passed over."""
        state = self._state(authorities)
        with self._lock:
            changed, self._seen = state != self._seen, state
        if not changed:
            return
        for path in self._files:
            try:
                lists = read_lists(read_file(path, "revocation list"), authorities, str(path))
            except NotFound:
                continue
            except MasqueError as error:
                _log.warning("revocation list kept as it was", error=error)
                continue
            self._merge(lists)
            _log.info("revocation list read", file=str(path), revoked=len(self._serials))

    def take(self, content: bytes, authorities: Authorities) -> bool:
        """Believe lists that somebody brings, and keep them; returns whether the disk has them.

        Raises `IdentityError` for what the authorities have not signed, and `Refused` if one of
        them is older than what is in force, or differs from it under the same number.
        """
        lists = read_lists(content, authorities, "what was sent")
        with self._lock:
            for one in lists:
                before = self._lists.get(one.issuer)
                if before is not None and not _follows(one, before):
                    raise _old(one, before)
        self._merge(lists)
        return self._keep()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with all that is revoked whenever it has grown; returns what ends it."""
        with self._lock:
            self._listeners.append(listener)

        def leave() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return leave

    def _merge(self, lists: Sequence[RevocationList]) -> None:
        with self._lock:
            for one in lists:
                before = self._lists.get(one.issuer)
                if before is None or one.number > before.number:
                    self._lists[one.issuer] = one
            serials: Serials = frozenset().union(*(x.serials for x in self._lists.values()))
            grown = serials - self._serials
            self._serials = serials
            listeners = list(self._listeners)
        if grown:
            for listener in listeners:
                listener(serials)

    def _keep(self) -> bool:
        if not self._files:
            return False
        with self._lock:
            content = b"".join(one.pem for one in self._lists.values())
            try:
                write_files({self._files[-1]: (content, PUBLIC)}, replace=True)
            except MasqueError as error:
                _log.error("revocation list not kept: it is in force until the end", error=error)
                return False
        return True

    def _state(self, authorities: Authorities) -> object:
        believed = tuple(authority.fingerprint(hashes.SHA256()) for authority in authorities)
        return believed, tuple(changed(path) for path in self._files)


def changed(path: Path) -> int:
    """A number that differs once the file was replaced; 0 if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_mtime_ns ^ found.st_ino


def _follows(one: RevocationList, before: RevocationList) -> bool:
    return one.number > before.number or (one.number == before.number and one.pem == before.pem)


def _old(one: RevocationList, before: RevocationList) -> MasqueError:
    return Refused(
        f"The revocation list has number {one.number}; number {before.number} is in force.",
        hint="Send the authority's newest authority.crl.",
        number=before.number,
    )


def _unreadable(where: str) -> MasqueError:
    return IdentityError(
        f"{where} is not a revocation list in PEM, or is damaged.",
        hint="Ask the authority for its authority.crl, and install it with `masque pki install`.",
        file=where,
    )
