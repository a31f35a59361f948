"""Certificates renew, the authority rotates, and certificates are revoked, while jobs run."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from masque.client import jobs, opening
from masque.errors import IdentityError, JobFailed
from masque.wire import installing, withdrawing
from masque.wire.authority import Authority, open_authority
from masque.wire.identity import Identity, Role
from masque.wire.recipients import renew_recipient
from masque.wire.tls import find_credentials
from tests.client.networks import LONG, Running, running
from tests.client.shell import Shell

PROJECT = "local"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("certificates")) as made:
        yield made


@pytest.fixture
def masque(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("MASQUE_PROFILE", raising=False)
    return Shell(capsys)


def finish(net: Running) -> None:
    """A short job, with connections of its own, goes well."""
    job_id = net.submit()
    assert jobs.finished(net.services, job_id).state == "succeeded"
    assert opening.fetch(net.services, job_id).has_model


def holders(net: Running) -> dict[Identity, Path]:
    """Everybody with a certificate, and where it is."""
    found = {
        Identity(PROJECT, Role(place.role), place.name): net.network.home
        / place.name
        / "certificates"
        for place in net.network.places
    }
    found[Identity(PROJECT, Role.CLIENT, "analyst")] = net.network.home / "client" / "certificates"
    return found


def no(project: str, shown: str) -> None:
    raise AssertionError(f"asked about {project}, {shown}")


def distribute(net: Running) -> None:
    home = net.network.home / "authority"
    delivery = installing.open_delivery([home / "authority.pem", home / "authority.crl"])
    for directory in holders(net).values():
        installing.install(delivery, directory, no)


def issue_all(net: Running, authority: Authority) -> None:
    for identity, directory in holders(net).items():
        authority.issue(identity, directory, replace=True)
    client = net.network.home / "client"
    renew_recipient(client / "recipients", find_credentials(client / "certificates"))
    for name in net.network.party_names:
        public = client / "recipients" / "analyst.recipient.pub"
        shutil.copyfile(public, net.network.home / name / "recipients" / public.name)


def rounds(net: Running, job_id: str) -> int:
    view = next(view for view in jobs.listed(net.services) if view.job_id == job_id)
    assert view.state == "training", view
    return view.progress.round


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, "not within a minute"
        time.sleep(0.05)


def test_renewal_and_rotation_do_not_stop_a_job(net: Running) -> None:
    job_id = net.submit(LONG)
    net.until_training(job_id)

    def goes_on() -> None:
        reached = rounds(net, job_id)
        eventually(lambda: rounds(net, job_id) > reached + 1)

    authority = open_authority(net.network.home / "authority")
    issue_all(net, authority)
    goes_on()
    rotated = withdrawing.rotate(authority)
    distribute(net)
    goes_on()
    issue_all(net, rotated)
    goes_on()
    withdrawing.retire(rotated)
    distribute(net)
    goes_on()
    jobs.cancel(net.services, job_id)
    finish(net)


def test_a_revoked_party_ends_its_job_and_gets_no_other(masque: Shell, net: Running) -> None:
    home = net.network.home
    job_id = net.submit(LONG)
    net.until_training(job_id)
    options = ("--authority", home / "authority", "--profile", net.profile)
    answer = masque("pki", "revoke", "party-2.party", *options, "--reason", "key-compromise")
    assert answer.code == 0, answer.err
    for name in ("dealer.dealer", "party-1.party", "party-2.party", "coordinator.coordinator"):
        assert f"{name}: list " in answer.out
    with pytest.raises(JobFailed, match=r"has failed \(party-2\)"):
        jobs.finished(net.services, job_id)
    with pytest.raises(IdentityError, match=r"certificate of party 'party-2' was revoked"):
        net.submit()
    identity = Identity(PROJECT, Role.PARTY, "party-2")
    authority = open_authority(home / "authority")
    authority.issue(identity, home / "party-2" / "certificates", replace=True)
    finish(net)


def test_a_revoked_client_is_refused_everywhere(masque: Shell, net: Running) -> None:
    home = net.network.home
    thief = Identity(PROJECT, Role.CLIENT, "thief")
    open_authority(home / "authority").issue(thief, home / "thief")
    content = Path(net.profile).read_text()
    profile = home / "thief.yaml"
    profile.write_text(content.replace("analyst", "thief").replace("client/certificates", "thief"))
    assert masque("jobs", "--profile", profile).code == 0
    options = ("--authority", home / "authority", "--profile", net.profile, "--json")
    told = masque("pki", "revoke", "thief.client", *options).json
    assert [row["identity"] for row in told["revoked"]] == [thief.uri]
    assert all(row["told"] and row["kept"] for row in told["services"])
    for command in (("jobs",), ("datasets",)):
        answer = masque(*command, "--profile", profile)
        assert answer.code == 6
        assert "certificate of client 'thief' was revoked" in answer.error


def test_a_service_that_misses_the_news_is_named(masque: Shell, net: Running) -> None:
    home = net.network.home
    lost = Identity(PROJECT, Role.CLIENT, "lost")
    open_authority(home / "authority").issue(lost, home / "lost")
    os.kill(net.pid("party-1"), signal.SIGKILL)
    options = ("--authority", home / "authority", "--profile", net.profile)
    try:
        answer = masque("pki", "revoke", "lost.client", *options)
        assert answer.code == 5
        assert "party-1.party: NOT TOLD" in answer.out and "party-2.party: list" in answer.out
        assert "party-1.party could not be told" in answer.error
    finally:
        net.revive("party-1")
    answer = masque("pki", "revoke", *options)
    assert answer.code == 0 and "party-1.party: list" in answer.out
