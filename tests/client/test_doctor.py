"""`masque doctor`: what is well is said to be, and each thing that is not, with its cure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from masque.client.doctor.findings import HERE, Finding, Level
from masque.version import __version__
from masque.wire.host import Bounds, Host
from masque.wire.withdrawing import find, revoke
from tests.client.doctored import QUIET, Site, free_port
from tests.client.shell import Shell

PATIENCE = 60.0
BEFORE_TLS = ["name", "port"]
ASKED = ["health", "version", "protocol", "clock", "certificate"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def failed(finding: Finding, code: int, *words: str) -> None:
    assert finding.level is Level.FAIL and finding.exit_code == code
    assert finding.cure
    for word in words:
        assert word in f"{finding.says} {finding.cure}"


# -- services as they are --------------------------------------------------------------------------


def test_all_is_well_for_a_client(masque: Shell, home: Path, profile: Path) -> None:
    answer = masque("doctor", "--json")
    assert answer.code == 0, answer.out
    report = answer.json
    assert report["ready"] and report["identity"] == "masque://local/client/analyst"
    assert report["version"] == __version__ and len(report["protocol"]) == 64
    checks: dict[str, list[str]] = {}
    for finding in report["findings"]:
        checks.setdefault(finding["about"].partition(" at ")[0], []).append(finding["check"])
    assert checks == {
        HERE: ["certificate", "authority", "revoked"],
        "coordinator 'coordinator'": [*BEFORE_TLS, "identity", *ASKED, "disk", "link"],
        "party 'party-1'": [*BEFORE_TLS, "identity", *ASKED, "disk", "link"],
        "party 'party-2'": [*BEFORE_TLS, "identity", *ASKED, "disk", "link"],
        "dealer 'dealer'": [*BEFORE_TLS, "identity", *ASKED],
    }
    assert not report["forecast"]["between"]


@pytest.mark.parametrize(
    ("service", "called"),
    [
        ("dealer/dealer.yaml", []),
        ("party-1/party.yaml", ["dealer 'dealer'", "party 'party-2'"]),
        (
            "coordinator/coordinator.yaml",
            ["dealer 'dealer'", "party 'party-1'", "party 'party-2'"],
        ),
    ],
)
def test_all_is_well_on_the_host_of_a_service(
    masque: Shell, home: Path, service: str, called: list[str]
) -> None:
    """It asks those that the service calls, and nobody else."""
    answer = masque("doctor", "--config", home / service, "--json")
    assert answer.code == 0, answer.out
    findings = answer.json["findings"]
    others = dict.fromkeys(f["about"].partition(" at ")[0] for f in findings if f["about"] != HERE)
    assert list(others) == called
    (port,) = [f for f in findings if f["about"] == HERE and f["check"] == "port"]
    assert "held by this service" in port["says"]
    assert [f["check"] for f in findings].count("link") == len(called)
    forecast = answer.json["forecast"]
    if not called:
        assert forecast is None
        return
    assert forecast["between"] is service.startswith("party")
    assert [p["rounds"] for p in forecast["predictions"]] == [6, 28], "docs/networks.md says so"
    assert all(p["seconds"] > 0 for p in forecast["predictions"])


def test_a_job_of_ones_own_is_predicted(masque: Shell, home: Path, files: Path) -> None:
    config = ("--config", home / "party-1" / "party.yaml", "--job", files / "job.yaml")
    tables = [f"--table={name}={files / 'schema.yaml'}:40" for name in ("left", "right")]
    planned = masque("plan", files / "job.yaml", "--offline", *tables, "--json").json
    answer = masque("doctor", *config, *tables)
    assert answer.code == 0, answer.out
    assert f"job {planned['job']}" in answer.out
    assert f"{planned['total']['rounds']:,}" in answer.out
    answer = masque("doctor", *config)
    assert answer.code == 4 and "is not a shared data set" in answer.err


def test_what_is_printed(masque: Shell, site: Site) -> None:
    address = f"127.0.0.1:{free_port()}"
    path = site.write(peers={"them": address, "others": "no-such-host.invalid:7000"})
    answer = masque("doctor", "--config", path)
    assert answer.code == 5 and answer.err == ""
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"party 'us' ({path}), Masque {__version__}, protocol ")
    assert f"party 'them' at {address}" in lines
    wrong = [index for index, line in enumerate(lines) if line.startswith("  fail")]
    assert len(wrong) == 2
    assert all(lines[index + 1].startswith("        -> ") for index in wrong)
    assert lines[-1].startswith("2 failed, ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--config", "nowhere.yaml"), 4, "nowhere.yaml"),
        ((), 9, "No profile is named"),
        (("--config", "job.yaml"), 4, "missing"),
    ],
)
def test_files_that_cannot_be_used(
    masque: Shell,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(files)
    answer = masque("doctor", *arguments)
    assert answer.code == code and words in answer.err and "Traceback" not in answer.err


# -- the host itself -------------------------------------------------------------------------------


def own(site: Site, check: str, **changes: Any) -> Finding:
    found = [f for f in site.examined(**changes).findings if f.about == HERE and f.check == check]
    assert len(found) == 1
    return found[0]


def test_a_port_that_is_free_or_taken(site: Site) -> None:
    assert "is free" in own(site, "port").says
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        limits = dataclasses.replace(QUIET, patience=0.5)
        failed(own(site, "port", listen=f"127.0.0.1:{port}", limits=limits), 8, "ss -ltnp")
    failed(own(site, "port", listen="192.0.2.1:7000"), 3, "an address of this machine")
    assert own(site, "port", listen="127.0.0.1:0").level is Level.WARN


def test_a_port_that_others_do_not_reach(site: Site) -> None:
    report = site.examined(peers={"them": "no-such-host.invalid:7000"})
    ports = [f for f in report.findings if f.about == HERE and f.check == "port"]
    assert [f.level for f in ports] == [Level.OK, Level.WARN] and "0.0.0.0" in ports[1].cure


def test_certificates_of_ones_own(site: Site) -> None:
    soon = dataclasses.replace(QUIET, days_warn=91)
    finding = own(site, "certificate", limits=soon)
    assert finding.level is Level.WARN and "masque pki" in finding.cure
    key = site.root / "certificates" / "us.party.key"
    key.chmod(0o644)
    failed(own(site, "certificate"), 6, "chmod 600")
    key.unlink()
    failed(own(site, "certificate"), 9, "us.party.key")


def test_an_expired_certificate_of_ones_own(site: Site) -> None:
    """What can be looked at without it still is."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    site.issue(site.root / "certificates", "party", "us", now=past)
    with site.serving("party", "them") as address:
        failed(own(site, "certificate"), 6, "expired")
        assert list(site.peer(address)) == BEFORE_TLS


def test_disks(site: Site) -> None:
    with site.serving("party", "them") as address:
        full = dataclasses.replace(QUIET, free_fail=2.0**62)
        failed(own(site, "disk", limits=full), 3, "are needed")
        failed(site.peer(address, full)["disk"], 4, "Ask its operator")
        scarce = dataclasses.replace(QUIET, free_warn=2.0**62)
        assert own(site, "disk", limits=scarce).level is Level.WARN
        assert site.peer(address, scarce)["disk"].level is Level.WARN


def test_more_data_than_the_disk_takes(masque: Shell, site: Site) -> None:
    (site.root / "schema.yaml").write_text("columns:\n  x: {type: number, range: [0, 1]}\n")
    table = f"--table=a={site.root / 'schema.yaml'}:2000000000"
    plenty = masque("doctor", "--config", site.write(), *[table] * 64, "--json")
    disk = next(f for f in plenty.json["findings"] if f["check"] == "disk")
    assert disk["level"] == "fail" and "1024.0 GB are needed" in disk["says"]
    assert plenty.code == disk["exit_code"] == 3


# -- a peer that is not as it should be ------------------------------------------------------------


def test_nobody_there(site: Site) -> None:
    found = site.peer(f"127.0.0.1:{free_port()}")
    assert list(found) == BEFORE_TLS
    failed(found["port"], 5, "Nothing listens", "Start the service")


def test_a_name_without_an_address(site: Site) -> None:
    found = site.peer("no-such-host.invalid:7000")
    assert list(found) == ["name"]
    failed(found["name"], 5, "no-such-host.invalid", "DNS")


class Quiet(BaseHTTPRequestHandler):
    """Answers like any web server, and keeps no log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def web_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_plain_text_and_silence(site: Site) -> None:
    with web_server() as address:
        failed(site.peer(address)["identity"], 5, "does not speak TLS", "in party.yaml")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = site.peer(address, dataclasses.replace(QUIET, patience=0.5))
    assert list(found) == [*BEFORE_TLS, "identity"]
    failed(found["identity"], 5, "says nothing", "hangs")


def test_somebody_else_is_there(site: Site) -> None:
    with site.serving("party", "stranger") as address:
        found = site.peer(address)
    assert list(found) == [*BEFORE_TLS, "identity"]
    failed(found["identity"], 6, "Party 'stranger' answers", "party 'them' was expected")
    with site.serving("coordinator", "them") as address:
        failed(site.peer(address)["identity"], 6, "Coordinator 'them' answers")


def test_an_expired_certificate(site: Site) -> None:
    with site.serving("party", "them", expired=True) as address:
        failed(site.peer(address)["identity"], 6, "has expired", "Renew it")
    soon = dataclasses.replace(QUIET, days_warn=91)
    with site.serving("party", "them") as address:
        assert site.peer(address, soon)["certificate"].level is Level.WARN


def test_certificates_that_were_revoked(site: Site) -> None:
    with site.serving("party", "them") as address:
        content = revoke(site.authority, find(site.authority, "them.party"))
        (site.root / "certificates" / "authority.crl").write_bytes(content)
        assert own(site, "revoked").says == "1 on list 1"
        failed(site.peer(address)["identity"], 6, "party 'them'", "revoked")
        content = revoke(site.authority, find(site.authority, "us.party"))
        (site.root / "certificates" / "authority.crl").write_bytes(content)
        failed(own(site, "certificate"), 6, "revoked", "masque pki request")


def test_one_that_is_not_ready(site: Site) -> None:
    with site.serving("party", "them", ready=False) as address:
        found = site.peer(address)
    assert list(found) == [*BEFORE_TLS, "identity", "health"]
    failed(found["health"], 5, "not serving")


def test_another_version_and_another_protocol(site: Site) -> None:
    with site.serving("party", "them", version="99.0") as address:
        found = site.peer(address)
    failed(found["version"], 10, f"Masque 99.0, this is {__version__}", "same version")
    assert found["protocol"].level is Level.OK and found["link"].level is Level.OK
    with site.serving("party", "them", protocol=bytes(32)) as address:
        found = site.peer(address)
    assert found["version"].level is Level.OK
    failed(found["protocol"], 10, "000000000000", "same version")


def test_one_that_is_too_old_to_be_asked(site: Site) -> None:
    with site.serving("party", "them", host=None) as address:
        found = site.peer(address)
    failed(found["version"], 10, "does not know this call", "same version")


@pytest.mark.parametrize(
    ("off", "level"), [(0, Level.OK), (10, Level.WARN), (-10, Level.WARN), (-3600, Level.FAIL)]
)
def test_clocks(site: Site, off: int, level: Level) -> None:
    def clock() -> int:
        return time.time_ns() + off * 10**9

    with site.serving("party", "them", clock=clock) as address:
        found = site.peer(address)["clock"]
    assert found.level is level
    assert abs(float(found.figures["ahead"]) - off) < 1.5
    if off:
        assert ("ahead of" if off > 0 else "behind") in found.says and "chrony" in found.cure


def test_a_way_that_cannot_be_measured(site: Site) -> None:
    """It is no reason not to begin."""
    with site.serving("party", "them", bounds=Bounds(budget=1 << 20)) as address:
        found = site.peer(address)
    assert found["link"].level is Level.WARN and "Try again in a minute" in found["link"].cure


class Asleep(Host):
    """Never tells anything."""

    over = threading.Event()

    def Describe(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.over.wait(PATIENCE)
        return super().Describe(request, context)


def test_one_that_hangs(site: Site) -> None:
    try:
        with site.serving("party", "them", host=Asleep) as address:
            found = site.peer(address, dataclasses.replace(QUIET, patience=1))
            Asleep.over.set()  # before the server is stopped
    finally:
        Asleep.over.set()
    failed(found["version"], 5, "did not answer in time")


@contextmanager
def dripping() -> Iterator[str]:
    """A server that keeps everybody waiting: a byte now and then, so that no step is too late."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    record = b"\x16\x03\x03\x40\x00" + bytes(1 << 14)

    def drip(connection: socket.socket) -> None:
        with closing(connection):
            for index in range(len(record)):
                if over.wait(0.1):
                    return
                try:
                    connection.send(record[index : index + 1])
                except OSError:
                    return

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_nobody_is_waited_for_longer_than_allowed(site: Site) -> None:
    """Whatever a peer does, and others are examined all the same."""
    with dripping() as address, site.serving("party", "them") as good:
        limits = dataclasses.replace(QUIET, patience=8, seconds=7)
        report = site.examined(limits, peers={"slow": address, "them": good})
    answers = [f for f in report.findings if f.check == "answer"]
    assert [f.about for f in answers] == [f"party 'slow' at {address}"]
    failed(answers[0], 5, "kept us waiting for more than 7 s")
    assert any(f.check == "link" and f.about.endswith(good) for f in report.findings)
    assert report.exit_code == 5
