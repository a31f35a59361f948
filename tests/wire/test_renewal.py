"""Certificates replaced on disk are taken up by a running server, good ones only."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from masque.wire.certificates import describe, load_certificate
from masque.wire.identity import Identity, Role
from masque.wire.tls import find_credentials, open_channel
from tests.wire.conftest import ECHO, PROJECT, Project, run_service, unary

IDENTITY = Identity(PROJECT, Role.PARTY, "renewing")


def served_fingerprint(address: str) -> str:
    """The certificate that a server shows."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=5)
    return describe(load_certificate(pem.encode())).fingerprint


def test_a_running_server_takes_up_its_new_certificate(project: Project, tmp_path: Path) -> None:
    path = project.authority.issue(IDENTITY, tmp_path)
    party = project.credentials("party", "b")
    for running in run_service(project, find_credentials(tmp_path)):
        address = running.server.address
        first = describe(load_certificate(path)).fingerprint
        assert served_fingerprint(address) == first
        project.authority.issue(IDENTITY, tmp_path, replace=True)
        second = describe(load_certificate(path)).fingerprint
        assert served_fingerprint(address) == second != first
        with open_channel(address, IDENTITY, party) as channel:
            assert unary(channel, ECHO) == b"hello"
        path.write_bytes(b"nonsense")
        assert served_fingerprint(address) == second
        other = Identity(PROJECT, Role.PARTY, "other")
        found = project.authority.issue(other, tmp_path / "other")
        path.write_bytes(found.read_bytes())
        path.with_suffix(".key").write_bytes(found.with_suffix(".key").read_bytes())
        assert served_fingerprint(address) == second
        with open_channel(address, IDENTITY, party) as channel:
            assert unary(channel, ECHO) == b"hello"


def test_a_client_takes_up_its_new_certificate(project: Project, tmp_path: Path) -> None:
    project.authority.issue(IDENTITY, tmp_path)
    old = find_credentials(tmp_path)
    assert old.renewed() is old
    project.authority.issue(IDENTITY, tmp_path, replace=True)
    new = old.renewed()
    assert new.certificate != old.certificate and new.identity == old.identity
    assert new.renewed() is new
    path = tmp_path / "renewing.party.pem"
    content = new.certificate.public_bytes(serialization.Encoding.DER)
    bent = content.replace(
        b"\x86" + bytes([len(IDENTITY.uri)]) + IDENTITY.uri.encode(),
        b"\x8f" * (2 + len(IDENTITY.uri)),
    )
    assert bent != content
    path.write_bytes(ssl.DER_cert_to_PEM_cert(bent).encode())
    assert new.renewed() is new, "its names cannot be read"
    path.unlink()
    assert new.renewed() is new


def test_the_client_must_still_show_one(project: Project) -> None:
    """Credentials that can be renewed require client certificates as before."""
    import grpc

    server = project.credentials("party", "a")
    for running in run_service(project, server):
        channel = grpc.secure_channel(
            running.server.address,
            grpc.ssl_channel_credentials(server.authority_pem),
            options=[("grpc.ssl_target_name_override", server.identity.server_name)],
        )
        with channel, pytest.raises(grpc.RpcError):
            unary(channel, ECHO)
