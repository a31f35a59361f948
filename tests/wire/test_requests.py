"""Requests, approvals and installations: the private key stays where it is used."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from masque.errors import Conflict, IdentityError, MasqueError, NotFound
from masque.wire import withdrawing
from masque.wire.approving import approve, check
from masque.wire.authority import Authority, create_authority
from masque.wire.certificates import certificate_pem, key_fingerprint, load_certificate
from masque.wire.identity import Identity, Role
from masque.wire.installing import install, open_delivery
from masque.wire.requests import agrees, make_request, read_request
from masque.wire.tls import find_credentials

WHO = Identity("demo", Role.PARTY, "hospital-a")
STEM = "hospital-a.party"


class Host:
    """A host with a directory of its own, and the authority on another machine."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / "host"
        self.authority = create_authority(root / "authority", "demo")
        self.asked: list[str] = []

    def request(self, *, renew: bool = False) -> bytes:
        hosts = ["a.example.org", "192.0.2.7"]
        return make_request(self.home, WHO, hosts, renew=renew)[0].read_bytes()

    def approve(self, csr: bytes, authority: Authority | None = None, **options: object) -> Path:
        out = self.root / "reply"
        request = read_request(csr, "request")
        return approve(authority or self.authority, request, out, **options)  # type: ignore[arg-type]

    def install(self, *files: Path) -> None:
        install(open_delivery(files), self.home, lambda _, shown: self.asked.append(shown))

    def reply(self) -> list[Path]:
        return sorted((self.root / "reply").iterdir())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def raised(call: Callable[[], object]) -> MasqueError:
    with pytest.raises(MasqueError) as caught:
        call()
    return caught.value


def no(whose: str, shown: str) -> None:
    raise IdentityError(f"{whose}: {shown} is unknown")


# -- the good way ----------------------------------------------------------------------------------


def test_from_request_to_service(host: Host) -> None:
    csr = host.request()
    assert (host.home / f"{STEM}.next.key").stat().st_mode & 0o777 == 0o600
    made = read_request(csr, "request")
    assert (made.identity, made.hosts) == (WHO, ("a.example.org", "192.0.2.7"))
    path = host.approve(csr)
    assert all(b"PRIVATE" not in file.read_bytes() for file in host.reply())
    certificate = load_certificate(path)
    assert key_fingerprint(certificate) == made.fingerprint
    host.install(*host.reply())
    assert host.asked == [key_fingerprint(host.authority.certificate)]
    found = find_credentials(host.home)
    assert found.identity == WHO and found.certificate == certificate
    assert sorted(path.name for path in host.home.iterdir()) == [
        "authority.pem",
        f"{STEM}.csr",
        f"{STEM}.key",
        f"{STEM}.pem",
    ]


def test_a_request_is_asked_for_again_with_the_same_key(host: Host) -> None:
    first, second = host.request(), host.request()
    assert read_request(first, "").fingerprint == read_request(second, "").fingerprint


def test_renewal_leaves_the_key_in_use_alone(host: Host) -> None:
    host.approve(host.request())
    host.install(*host.reply())
    before = (host.home / f"{STEM}.key").read_bytes()
    assert isinstance(raised(host.request), Conflict)
    csr = host.request(renew=True)
    assert (host.home / f"{STEM}.key").read_bytes() == before
    running = find_credentials(host.home)
    error = raised(lambda: host.approve(csr))
    assert isinstance(error, Conflict) and "--renew" in error.hint
    path = host.approve(csr, renew=True)
    # A service that reads in the midst of the installation, when only the certificate is there:
    (host.home / f"{STEM}.pem").write_bytes(path.read_bytes())
    assert running.renewed().certificate == load_certificate(path)
    assert find_credentials(host.home).certificate == load_certificate(path)
    host.install(*host.reply())
    assert (host.home / f"{STEM}.key").read_bytes() != before
    assert not (host.home / f"{STEM}.next.key").exists()
    assert find_credentials(host.home).certificate == load_certificate(path)
    assert len(host.asked) == 1, "the authority is known by now"


def test_the_old_pair_is_used_while_the_new_is_half_there(host: Host) -> None:
    host.approve(host.request())
    host.install(*host.reply())
    running = find_credentials(host.home)
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (host.home / f"{STEM}.key").write_bytes(pem)
    assert running.renewed() is running
    assert "does not belong" in str(raised(lambda: find_credentials(host.home)))


def test_fingerprints_as_people_type_them() -> None:
    shown = "cc0c 0573 d8a3 1329 ad5f d213 44c9 3f72 06ef 447e"
    for good in (shown, shown.upper(), shown.replace(" ", ":"), "cc0c0573d8a31329ad5f", shown[:24]):
        assert agrees(good, shown), good
    for bad in ("", "yes", "cc0c", shown[:23], "cc0c 0573 d8a3 1329 ad50", shown + " 00"):
        assert not agrees(bad, shown), bad


# -- requests --------------------------------------------------------------------------------------


def csr_of(*names: x509.GeneralName, key: object = None) -> bytes:
    signer = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    csr = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    return csr.public_bytes(serialization.Encoding.PEM)


URI = x509.UniformResourceIdentifier(WHO.uri)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not a request"),
        (b"nonsense", "is not a request"),
        (100_000 * b"x", "is not a request"),
        (csr_of(), "is not a request"),
        (csr_of(x509.DNSName("a.example.org")), "asks for no Masque identity, or for several"),
        (csr_of(URI, URI), "or for several"),
        (csr_of(URI, x509.UniformResourceIdentifier("masque://demo/dealer/d")), "or for several"),
        (csr_of(x509.UniformResourceIdentifier("https://a.example.org")), "no Masque identity"),
        (csr_of(x509.UniformResourceIdentifier("masque://demo/owner/a")), "is not a role"),
        (csr_of(URI, x509.DNSName("*.example.org")), "cannot be a host"),
        (csr_of(URI, x509.DNSName("b.party.demo.masque")), "cannot be a host"),
        (csr_of(URI, x509.RFC822Name("a@example.org")), "names of another kind"),
        (csr_of(URI, key=rsa.generate_private_key(65537, 2048)), "another kind of key"),
        (csr_of(URI, key=ec.generate_private_key(ec.SECP384R1())), "another kind of key"),
    ],
)
def test_requests_that_are_refused(content: bytes, why: str) -> None:
    error = raised(lambda: read_request(content, "x.csr"))
    assert isinstance(error, IdentityError) and why in error.message


def test_a_request_that_was_changed_on_the_way(host: Host) -> None:
    csr = x509.load_pem_x509_csr(host.request())
    der = bytearray(csr.public_bytes(serialization.Encoding.DER))
    at = der.index(b"a.example.org")
    der[at : at + 1] = b"b"
    changed = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    assert "changed after it was signed" in str(raised(lambda: read_request(changed, "x.csr")))


def test_requests_that_an_authority_does_not_approve(host: Host, tmp_path: Path) -> None:
    other = create_authority(tmp_path / "other", "other")
    error = raised(lambda: host.approve(host.request(), other))
    assert isinstance(error, IdentityError) and "cannot certify" in error.message
    csr = host.request()
    host.approve(csr)
    host.approve(csr)  # the same key again: a longer life, or another authority
    withdrawing.revoke(host.authority, withdrawing.find(host.authority, STEM))
    error = raised(lambda: check(host.authority, read_request(csr, "x.csr"), renew=True))
    assert isinstance(error, IdentityError) and "for this key was revoked" in error.message
    (host.home / f"{STEM}.next.key").unlink()
    check(host.authority, read_request(host.request(), "x.csr"))


# -- installations ---------------------------------------------------------------------------------


def untouched(host: Host, call: Callable[[], object]) -> MasqueError:
    """What `call` raises, having changed nothing."""
    before = {path: path.read_bytes() for path in host.home.iterdir()}
    error = raised(call)
    assert {path: path.read_bytes() for path in host.home.iterdir()} == before
    return error


def test_an_authority_is_never_trusted_unasked(host: Host) -> None:
    host.approve(host.request())
    delivery = open_delivery(host.reply())
    error = untouched(host, lambda: install(delivery, host.home, no))
    assert key_fingerprint(host.authority.certificate) in error.message
    leaf = [path for path in host.reply() if path.name == f"{STEM}.pem"]
    assert "no authority's certificate" in str(untouched(host, lambda: host.install(*leaf)))


def test_what_is_not_installed(host: Host, tmp_path: Path) -> None:
    path = host.approve(host.request())
    host.install(*host.reply())
    foreign = create_authority(tmp_path / "foreign", "demo")
    elsewhere = tmp_path / "elsewhere"
    other = read_request(make_request(elsewhere, WHO, [])[0].read_bytes(), "")
    key = find_credentials(host.home).key.public_key()

    def certified(name: str, by: Authority, start: dt.timedelta, public: object = key) -> Path:
        now = dt.datetime.now(dt.UTC) + start
        file = tmp_path / name
        made = by.certify(WHO, public, hosts=[], now=now)  # type: ignore[arg-type]
        file.write_bytes(certificate_pem(made))
        return file

    day, none = dt.timedelta(days=1), dt.timedelta(0)
    cases = [
        (certified("foreign.pem", foreign, none), "not issued by this authority"),
        (certified("expired.pem", host.authority, -100 * day), "expired"),
        (certified("early.pem", host.authority, 2 * day), "not valid before"),
        (certified("key.pem", host.authority, none, other.key), "for another key than those"),
        (host.home / f"{STEM}.key", "holds a private key"),
        (host.home / f"{STEM}.csr", "something else than certificates"),
    ]
    for file, why in cases:
        error = untouched(host, lambda file=file: host.install(file))  # type: ignore[misc]
        assert isinstance(error, IdentityError) and why in error.message, file
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_bytes(b"nonsense")
    assert "something else" in str(untouched(host, lambda: host.install(nonsense)))
    gone = tmp_path / "gone.pem"
    assert isinstance(untouched(host, lambda: host.install(gone)), NotFound)
    bundle = tmp_path / "foreign" / "authority.pem"
    delivery = open_delivery([bundle])
    assert "is unknown" in str(untouched(host, lambda: install(delivery, host.home, no)))
    # even if somebody says yes: what is installed would be worthless
    assert "no longer believed" in str(untouched(host, lambda: host.install(bundle)))
    withdrawing.revoke(host.authority, withdrawing.find(host.authority, str(path)))
    host.authority.hand_out(tmp_path / "reply")
    host.install(tmp_path / "reply" / "authority.crl")
    assert "was revoked" in str(untouched(host, lambda: host.install(path)))


def test_an_older_list_changes_nothing(host: Host, tmp_path: Path) -> None:
    host.approve(host.request())
    for name in ("b", "c"):
        host.authority.issue(Identity("demo", Role.PARTY, name), tmp_path / name)
    host.install(*host.reply())
    lists = []
    for name in ("b", "c"):
        path = tmp_path / f"{name}.crl"
        found = withdrawing.find(host.authority, f"{name}.party")
        path.write_bytes(withdrawing.revoke(host.authority, found))
        lists.append(path)
    host.install(lists[1])
    host.install(lists[0])
    assert (host.home / "authority.crl").read_bytes() == lists[1].read_bytes()
