"""Separate hosts, from project.yaml to a revoked certificate, with the commands of the page.

Four hosts with an address and a disk each, 20 ms apart, and later a fifth. What goes from one to
another is carried by `mail`, which looks at it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.wire import NoWire
from masque.client.project import Project, load
from masque.data import bundled
from tests.deploy.organisations import BIN, IN_CONTAINER, ROOT, Host, commands, hosts, run
from tests.test_docs import snippets
from tests.waiting import until

PAGE = ROOT / "docs" / "deployment.md"
PEOPLE = {"ward-3": "hospital-a", "ward-7": "hospital-b", "analyst": "university"}
NAMES = {
    "trustee": "dealer.trustee.example",
    "hospital-a": "masque.hospital-a.example",
    "hospital-b": "masque.hospital-b.example",
    "university": "masque.university.example",
    "hospital-c": "masque.hospital-c.example",
}
THIRD = """\
  - name: hospital-c
    services: [{role: party, name: hospital-c, address: "masque.hospital-c.example:7000"}]
"""
JOB = """\
name: breast-cancer
data: {rows: [ward-3, ward-7], label: malignant, standardize: true, holdout: 0.2}
model: {kind: logistic_regression, l2: 0.001}
training: {epochs: EPOCHS, batch_size: 64, seed: 7,
  optimizer: {kind: sgd, learning_rate: 0.1, momentum: 0.9}}
reveal: {metrics: [accuracy], to: [analyst]}
model_output: {sealed_to: [analyst]}
"""
SHOWN = """
import socket, ssl, sys
raw = socket.create_connection((sys.argv[1], 7000), timeout=10)
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
print(context.wrap_socket(raw).getpeercert(binary_form=True).hex())
"""


def page(test: str) -> list[str]:
    """The commands of the page that a test runs, in order."""
    blocks = [part for part in snippets(PAGE) if part.by and part.by.endswith(f"::{test}")]
    return [line for part in blocks for line in part.text.splitlines()]


class Standing:
    """The project: its hosts, and the keeper of its authority, who is at none of them."""

    def __init__(self, base: Path, made: dict[str, Host]) -> None:
        self.hosts, self.keeper = made, base / "keeper"
        self.keeper.mkdir()
        (text,) = (s.text for s in snippets(PAGE) if s.text.startswith("project: cancer-study"))
        (self.keeper / "project.yaml").write_text(text)

    @property
    def project(self) -> Project:
        return load(self.keeper / "project.yaml")

    def keep(self, line: str) -> str:
        """The keeper types a command."""
        return run(["bash", "-euc", f'PATH="{BIN}:$PATH"; {line}'], line, cwd=self.keeper).stdout

    def hand_out(self, organisation: str) -> None:
        """An organisation gets its kit, and unpacks it."""
        host = self.hosts[organisation]
        mail(self.keeper / "kits" / f"{organisation}.tar.gz", host.disk)
        run(["tar", "xzf", f"{organisation}.tar.gz"], "unpacking", cwd=host.disk)

    def approve(self, host: Host, folder: str, request: str) -> str:
        """A request goes to the keeper, and a certificate back, both fingerprints by telephone.

        Returns how its installation is told the authority's.
        """
        told = spoken(host.run(request, folder=folder).stdout)
        (csr,) = (host.kit / folder / request.rpartition(" ")[2]).glob("*.csr")
        mail(csr, self.keeper)
        approve = page("test_four_hosts_train_and_renew")[2]
        approve = approve.replace("hospital-a.party.csr", csr.name)
        again = " --renew" if " --renew " in request else ""
        theirs = spoken(self.keep(f"{approve}{again} --fingerprint '{told}'"))
        mail(self.keeper / "reply" / csr.with_suffix(".pem").name, host.kit / folder)
        return f" --authority-fingerprint '{theirs}'"

    def certify(self, host: Host, folder: str, lines: list[str]) -> None:
        """What instructions say of certificates."""
        (request,) = (line for line in lines if " pki request " in line)
        (install,) = (line for line in lines if " pki install " in line)
        host.run(install + self.approve(host, folder, request), folder=folder)

    def equip(self, organisation: str) -> None:
        """Everything in the instructions of an organisation, but for its people's."""
        host = self.hosts[organisation]
        lines = commands(host.kit / "INSTRUCTIONS.md")
        if lines:
            self.certify(host, "", lines)

    def enrol(self, person: str) -> None:
        """Everything in a person's instructions."""
        host, folder = self.hosts[PEOPLE[person]], f"clients/{person}"
        lines = commands(host.kit / folder / "INSTRUCTIONS.md")
        self.certify(host, folder, lines)
        for line in (line for line in lines if " pki recipient " in line):
            host.run(line, folder=folder)

    def introduce(self, party: str) -> None:
        """The analyst's public key comes to a party."""
        public = self.hosts["university"].kit / "clients/analyst/recipients/analyst.recipient.pub"
        mail(public, self.hosts[party].kit / party / "recipients")

    def start(self, *names: str) -> None:
        """Start services, all by default, and wait for them."""
        chosen = [
            (self.hosts[organisation.name], service)
            for organisation, service in self.project.placed()
            if service.name in names or not names
        ]
        for host, service in chosen:
            host.start(service.name, service.role)
        for host, service in chosen:
            host.wait(service.name)

    def client(self, person: str, text: str) -> Any:
        """What a command of a person says as JSON."""
        host = self.hosts[PEOPLE[person]]
        return host.masque(f"{text} --profile profile.yaml", folder=f"clients/{person}")

    def share(self, owner: str, how: str) -> None:
        assert owner in how
        self.client(owner, how.removeprefix("masque ").removesuffix(" --profile profile.yaml"))

    def write_job(self, epochs: int) -> None:
        """The analyst's job.yaml."""
        folder = self.hosts["university"].kit / "clients/analyst"
        (folder / "job.yaml").write_text(JOB.replace("EPOCHS", str(epochs)))

    def job(self, job: str) -> Any:
        jobs = self.client("analyst", "jobs")["jobs"]
        return next(found for found in jobs if found["job_id"] == job)

    def accuracy(self, job: str) -> float:
        return float(self.client("analyst", f"result {job}")["metrics"]["accuracy"])


def mail(file: Path, to: Path) -> None:
    """Carry a file from one to another; no private key may be in it, packed or not."""
    told = run(["tar", "xzOf", str(file)], "unpacking").stdout if file.suffix == ".gz" else None
    assert "PRIVATE" not in (file.read_text() if told is None else told), file
    shutil.copy(file, to)


def spoken(text: str) -> str:
    """The fingerprint that somebody reads out from what a command has said."""
    (found,) = re.findall(r"fingerprint: ([0-9a-f]{4}(?: [0-9a-f]{4}){9})", text)
    return str(found)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Kits made and handed out, keys made, data shared; skipped, and said, where it cannot be."""
    base = tmp_path_factory.mktemp("hosts")
    try:
        with hosts(base, NAMES) as made:
            found = Standing(base, made)
            for line in page("test_four_hosts_train_and_renew")[:2]:
                found.keep(line)
            for organisation in found.project.organisations:
                found.hand_out(organisation.name)
                found.equip(organisation.name)
            for person in PEOPLE:
                found.enrol(person)
            for party in found.project.parties:
                found.introduce(party.name)
            found.start()
            bundled.write("breast-cancer", base, hospitals=2)
            for owner, file in (("ward-3", "hospital-a.csv"), ("ward-7", "hospital-b.csv")):
                folder = made[PEOPLE[owner]].kit / "clients" / owner
                shutil.copy(base / file, folder / f"{owner}.csv")
                shutil.copy(base / "schema.yaml", folder)
                found.share(owner, f"share {owner}.csv --schema schema.yaml --name {owner}")
            yield found
    except NoWire as reason:
        pytest.skip(f"separate hosts are NOT TESTED: {reason}")


def test_the_page_says_what_the_instructions_say(standing: Standing) -> None:
    """All its commands for hospital-a and the analyst are in the kits."""
    home = standing.hosts["hospital-a"].kit
    there = commands(home / "INSTRUCTIONS.md")
    there += commands(standing.hosts["university"].kit / "clients/analyst/INSTRUCTIONS.md")
    for line in page("test_the_page_says_what_the_instructions_say"):
        assert line in there
    for line in page("test_a_kit_on_a_real_engine"):
        assert line in there or line.startswith("tar xzf hospital-a.tar.gz")
    assert {line.removeprefix(IN_CONTAINER).split()[0] for line in there} <= {
        "masque", "docker", "sudo",
    }  # fmt: skip


def test_keys_stay_where_they_were_made(standing: Standing) -> None:
    keys = [path for host in standing.hosts.values() for path in host.disk.rglob("*.key")]
    names = [path.name for path in keys if path.name not in ("store.key", "commitment.key")]
    assert len(names) == len(set(names)) == 4 + 3 + 1  # services, people, the analyst's other
    assert {path.name for path in standing.keeper.rglob("*.key")} == {"authority.key"}
    for path in keys:
        assert path.stat().st_mode & 0o077 == 0


def test_the_doctor_finds_every_host_well(standing: Standing) -> None:
    """Nothing fails, seen from a party; what is doubtful may be this machine's own doing."""
    report = standing.hosts["hospital-a"].masque("doctor --config hospital-a/party.yaml")
    levels = {(found["about"], found["check"]): found["level"] for found in report["findings"]}
    assert "fail" not in levels.values()
    for service in standing.project.parties[1:]:
        (about,) = {about for about, _ in levels if f"'{service.name}'" in about}
        assert levels[about, "identity"] == levels[about, "protocol"] == "ok"


def test_four_hosts_train_and_renew(standing: Standing) -> None:
    """A certificate is renewed while a job runs, and the job succeeds."""
    host = standing.hosts["hospital-a"]
    where = ("python", "-c", SHOWN, NAMES["hospital-a"])

    def shown() -> str:
        program = [str(BIN / where[0]), *where[1:]]
        return run(standing.hosts["trustee"].command(*program), "what is shown").stdout

    before = shown()
    _, _, _, request, approve, install = page("test_four_hosts_train_and_renew")
    assert approve == f"{page('test_four_hosts_train_and_renew')[2]} --renew"
    standing.approve(host, "", request)
    standing.write_job(epochs=12)
    standing.client("analyst", "train job.yaml --id first")
    until(lambda: standing.job("first")["state"] == "training", "the job does not run")
    host.run(install)
    assert standing.job("first")["state"] == "training", "renewed while it runs"
    assert shown() != before
    watch = "masque watch first --profile profile.yaml"
    standing.hosts["university"].run(watch, folder="clients/analyst")
    assert standing.job("first")["state"] == "succeeded"
    assert standing.accuracy("first") > 0.9


def test_a_third_party_joins(standing: Standing) -> None:
    provision, *take_over, again, share = page("test_a_third_party_joins")
    assert again == "docker compose up -d"
    with (standing.keeper / "project.yaml").open("a") as file:
        file.write(THIRD)
    said = standing.keep(provision)
    assert "share their data anew" in said
    standing.hand_out("hospital-c")
    standing.equip("hospital-c")
    standing.introduce("hospital-c")
    for name, service in (
        ("hospital-a", "hospital-a"), ("hospital-b", "hospital-b"), ("university", "coordinator"),
    ):  # fmt: skip
        host = standing.hosts[name]
        assert f"starts {service} anew" in said
        mail(standing.keeper / "kits" / f"{name}.tar.gz", host.disk)
        for line in take_over:
            role = "coordinator" if service == "coordinator" else "party"
            text = line.replace("hospital-a/hospital-a/party", f"{name}/{service}/{role}")
            text = text.replace("hospital-a", name)
            run(["sh", "-euc", text], text, cwd=host.disk)
        host.stop(service)
    for person, home in PEOPLE.items():
        profile = f"clients/{person}/profile.yaml"
        shutil.copy(standing.keeper / "kits" / home / profile, standing.hosts[home].kit / profile)
    standing.start("hospital-a", "hospital-b", "hospital-c", "coordinator")
    standing.write_job(epochs=3)
    refused = standing.hosts["university"].run(
        "masque train job.yaml --profile profile.yaml", folder="clients/analyst", check=False
    )
    assert refused.returncode != 0 and "hospital-c" in refused.stderr
    for owner in ("ward-3", "ward-7"):
        standing.share(owner, share.replace("ward-3", owner))
    standing.client("analyst", "train job.yaml --id three --watch")
    assert standing.job("three")["state"] == "succeeded"
    assert standing.accuracy("three") > 0.8


def test_what_is_revoked_is_refused_at_once(standing: Standing) -> None:
    revoke, tell = page("test_what_is_revoked_is_refused_at_once")
    standing.client("ward-7", "datasets")
    standing.keep(revoke)
    folder = standing.hosts["university"].kit / "clients/analyst"
    mail(standing.keeper / "authority" / "authority.crl", folder)
    said = standing.hosts["university"].run(tell, folder="clients/analyst").stdout
    for _, service in standing.project.placed():
        assert re.search(rf"{service.name}.{service.role}: list \d+ is in force", said), said
    refused = standing.hosts["hospital-b"].run(
        "masque datasets --profile profile.yaml", folder="clients/ward-7", check=False
    )
    assert refused.returncode == 6 and "revoked" in refused.stderr
    names = {found["name"] for found in standing.client("ward-3", "datasets")["datasets"]}
    assert names == {"ward-3", "ward-7"}
