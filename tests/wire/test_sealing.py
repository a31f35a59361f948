from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from masque.errors import Conflict, IdentityError, MasqueError, ProtocolError
from masque.wire import hpke
from masque.wire.recipients import (
    RecipientKey,
    create_recipient,
    load_recipient,
    load_recipient_key,
    parse_recipient,
)
from masque.wire.sealing import MAGIC, seal, sealing_context, unseal
from masque.wire.tls import Credentials
from tests.wire.conftest import Project

CONTEXT = sealing_context("job-1", 2, "hospital-a", "weights", bytes(range(32)))
PLAINTEXT = b"\x00\x01share of the weights" * 3
GOLDEN = (
    "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"
    "019726bda272c4282b3c8051142a4b9d1c8852354dd7"
)
GOLDEN_RECIPIENT, GOLDEN_EPHEMERAL = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture(scope="module")
def sender(project: Project) -> Credentials:
    return project.credentials("party", "hospital-a")


@pytest.fixture(scope="module")
def key(project: Project, tmp_path_factory: pytest.TempPathFactory) -> RecipientKey:
    analyst = project.credentials("client", "analyst")
    return create_recipient(tmp_path_factory.mktemp("recipient"), analyst)


@pytest.fixture(scope="module")
def sealed(sender: Credentials, key: RecipientKey) -> bytes:
    return seal(PLAINTEXT, key.recipient, context=CONTEXT, sender=sender)


def open_it(
    sealed: bytes, key: RecipientKey, sender: Credentials, context: bytes = CONTEXT
) -> bytes:
    return unseal(sealed, key, context=context, sender=sender.identity, trust=sender.trust)


@given(plaintext=st.binary(max_size=300))
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_round_trip(plaintext: bytes, sender: Credentials, key: RecipientKey) -> None:
    sealed = seal(plaintext, key.recipient, context=CONTEXT, sender=sender)
    assert open_it(sealed, key, sender) == plaintext
    assert sealed != seal(plaintext, key.recipient, context=CONTEXT, sender=sender)


def test_golden_vector() -> None:
    """Computed with this code and opened by another implementation, below."""
    recipient = X25519PrivateKey.from_private_bytes(GOLDEN_RECIPIENT)
    encrypted = hpke.encrypt(
        b"masque", recipient.public_key(), b"golden", ephemeral=GOLDEN_EPHEMERAL
    )
    assert encrypted.hex() == GOLDEN
    assert hpke.decrypt(encrypted, recipient, b"golden") == b"masque"


def test_agrees_with_another_implementation() -> None:
    other = pytest.importorskip("cryptography.hazmat.primitives.hpke")
    suite = other.Suite(other.KEM.X25519, other.KDF.HKDF_SHA256, other.AEAD.AES_256_GCM)
    recipient = X25519PrivateKey.from_private_bytes(GOLDEN_RECIPIENT)
    assert suite.decrypt(bytes.fromhex(GOLDEN), recipient, b"golden") == b"masque"
    theirs = suite.encrypt(b"other way", recipient.public_key(), CONTEXT)
    assert hpke.decrypt(theirs, recipient, CONTEXT) == b"other way"
    assert len(theirs) == len(b"other way") + hpke.OVERHEAD


def test_every_changed_byte_is_noticed(
    sealed: bytes, sender: Credentials, key: RecipientKey
) -> None:
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises((IdentityError, ProtocolError)):
            open_it(bytes(changed), key, sender)


def test_every_cut_is_noticed(sealed: bytes, sender: Credentials, key: RecipientKey) -> None:
    for length in range(len(sealed)):
        with pytest.raises(ProtocolError, match=r"cut off or damaged"):
            open_it(sealed[:length], key, sender)
    with pytest.raises(ProtocolError, match=r"cut off or damaged"):
        open_it(sealed + b"\x00", key, sender)


@given(noise=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_an_error_of_ours(noise: bytes, sender: Credentials, key: RecipientKey) -> None:
    for blob in (noise, MAGIC + noise):
        with pytest.raises(MasqueError):
            open_it(blob, key, sender)


@pytest.mark.parametrize(
    "context",
    [
        sealing_context("job-2", 2, "hospital-a", "weights", bytes(range(32))),
        sealing_context("job-1", 1, "hospital-a", "weights", bytes(range(32))),
        sealing_context("job-1", 2, "hospital-b", "weights", bytes(range(32))),
        sealing_context("job-1", 2, "hospital-a", "bias", bytes(range(32))),
        sealing_context("job-1", 2, "hospital-a", "weights", bytes(32)),
    ],
)
def test_belongs_to_one_place(
    context: bytes, sealed: bytes, sender: Credentials, key: RecipientKey
) -> None:
    with pytest.raises(ProtocolError, match=r"another job, attempt or output"):
        open_it(sealed, key, sender, context)


def test_contexts_never_run_together() -> None:
    assert sealing_context("a,1", 1, "b", "c", b"") != sealing_context("a", 1, "1,b", "c", b"")
    assert sealing_context('a"', 1, "b", "c", b"") != sealing_context("a", 1, '"b', "c", b"")


def test_wrong_key(sealed: bytes, sender: Credentials, project: Project, tmp_path: Path) -> None:
    other = create_recipient(tmp_path, project.credentials("client", "other"))
    with pytest.raises(IdentityError, match=r"sealed to another key than that of client 'other'"):
        open_it(sealed, other, sender)


def test_wrong_signers(
    sealed: bytes, sender: Credentials, key: RecipientKey, project: Project, foreign: Project
) -> None:
    for role, name in (("party", "hospital-b"), ("coordinator", "hospital-a")):
        other = project.credentials(role, name)
        forged = seal(PLAINTEXT, key.recipient, context=CONTEXT, sender=other)
        with pytest.raises(IdentityError, match=rf"was signed by {role} '{name}'"):
            open_it(forged, key, sender)
    stranger = foreign.credentials("party", "hospital-a")
    forged = seal(PLAINTEXT, key.recipient, context=CONTEXT, sender=stranger)
    with pytest.raises(IdentityError, match=r"not issued by this authority"):
        open_it(forged, key, sender)
    # The coordinator's key under the party's certificate
    liar = project.credentials("coordinator", "coordinator")
    liar = Credentials(sender.identity, sender.certificate, liar.key, sender.trust)
    forged = seal(PLAINTEXT, key.recipient, context=CONTEXT, sender=liar)
    with pytest.raises(IdentityError, match=r"true signature"):
        open_it(forged, key, sender)


def test_a_result_that_waited(sealed: bytes, sender: Credentials, key: RecipientKey) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=200)
    common = {"context": CONTEXT, "trust": sender.trust}
    with pytest.raises(IdentityError, match=r"expired"):
        unseal(sealed, key, sender=sender.identity, at=later, **common)  # type: ignore[arg-type]
    assert open_it(sealed, key, sender) == PLAINTEXT


def test_recipient_files(project: Project, tmp_path: Path) -> None:
    analyst = project.credentials("client", "analyst")
    made = create_recipient(tmp_path, analyst)
    assert (tmp_path / "analyst.recipient.key").stat().st_mode & 0o777 == 0o600
    public = load_recipient(tmp_path, "analyst", analyst.trust)
    assert public.identity == analyst.identity
    assert public.key.public_bytes_raw() == made.key.public_key().public_bytes_raw()
    loaded = load_recipient_key(tmp_path, "analyst", analyst.trust)
    assert loaded.recipient.text == made.recipient.text
    assert "\n" not in public.text and len(public.text) < 2000
    with pytest.raises(Conflict):
        create_recipient(tmp_path, analyst)
    create_recipient(tmp_path / "other", analyst)
    (tmp_path / "other" / "analyst.recipient.pub").rename(tmp_path / "analyst.recipient.pub")
    with pytest.raises(IdentityError, match=r"is not the private key of"):
        load_recipient_key(tmp_path, "analyst", analyst.trust)


def test_nobody_can_put_another_key_under_a_name(
    project: Project, foreign: Project, tmp_path: Path
) -> None:
    analyst = project.credentials("client", "analyst")
    line = create_recipient(tmp_path, analyst).recipient.text.split()
    other = create_recipient(tmp_path, project.credentials("client", "other")).recipient
    theirs = other.text.split()
    forgeries = {
        "true signature": [*line[:2], theirs[2], *line[3:]],
        "names": [line[0], theirs[1], *line[2:]],
        "damaged": [*line[:2], "AAAA", *line[3:]],
        "not the public key": line[:4],
    }
    for reason, parts in forgeries.items():
        with pytest.raises(IdentityError, match=reason):
            parse_recipient(" ".join(parts), analyst.trust)
    impostor = create_recipient(tmp_path / "f", foreign.credentials("client", "analyst"))
    with pytest.raises(IdentityError, match=r"not issued by this authority"):
        parse_recipient(impostor.recipient.text, analyst.trust)


def test_secrets_stay_out_of_representations(key: RecipientKey, sealed: bytes) -> None:
    assert "key" not in repr(key).replace("RecipientKey", "")
    assert hashlib.sha256(PLAINTEXT).digest() not in sealed and PLAINTEXT not in sealed
