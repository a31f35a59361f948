"""What needs no engine: the packages of the image, compose files, the probe, what is cut off."""

from __future__ import annotations

import ctypes
import datetime as dt
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy import requirements, slim
from deploy.onehost import composing, engine, files, host
from masque.client import local_files
from masque.errors import Conflict, InputError
from masque.wire import probe
from masque.wire.authority import create_authority, open_authority
from masque.wire.certificates import describe, fingerprint, load_certificate
from masque.wire.identity import Identity, Role
from masque.wire.server import Server
from masque.wire.settings import ServiceSettings, load_settings
from masque.wire.tls import find_credentials
from services.coordinator.settings import CoordinatorSettings
from services.dealer.settings import DealerSettings
from services.party.settings import PartySettings

ROOT = Path(__file__).resolve().parents[2]
KINDS: dict[str, type[ServiceSettings]] = {
    "dealer": DealerSettings,
    "party": PartySettings,
    "coordinator": CoordinatorSettings,
}


# -- packages ----------------------------------------------------------------------------------


def test_the_packages_of_the_image_are_those_of_the_lock() -> None:
    for path, text in requirements.texts().items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m deploy.requirements`"


def test_services_need_nothing_that_was_left_out() -> None:
    barred = "; ".join(f"sys.modules[{name!r}] = None" for name in sorted(requirements.LEFT_OUT))
    for role in KINDS:
        program = f"import sys; {barred}; import services.{role}.main, masque.client.app"
        subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_pip_is_asked_for_one_version_of_everything() -> None:
    names = [line for line in requirements.for_the_image().splitlines() if line[:1].isalpha()]
    assert len({line.partition("==")[0] for line in names}) == len(names) > 15
    assert not any(";" in line for line in names)


def test_the_image_has_what_it_copies() -> None:
    """Every path of a COPY exists and is let through by .dockerignore."""
    admitted = (ROOT / ".dockerignore").read_text().splitlines()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), line
                assert f"!{source.rstrip('/')}" in admitted, line


@pytest.mark.parametrize(
    "script", sorted((ROOT / "deploy").glob("*.sh")), ids=lambda path: path.name
)
def test_scripts_are_sound(script: Path) -> None:
    shell = script.read_text().partition("\n")[0].rpartition("/")[2].split()[-1]
    subprocess.run([shell, "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111


def test_a_library_works_without_its_sections(tmp_path: Path) -> None:
    import llvmlite.binding  # type: ignore[import-untyped]

    folder = Path(llvmlite.binding.__file__).parent
    source = next(path for path in folder.glob("*.so"))
    package = tmp_path / "package"
    (package / "tests").mkdir(parents=True)
    (package / "header.h").write_text("int x;")
    library = package / "library.so"
    shutil.copyfile(source, library)
    removed = slim.slim(tmp_path)
    assert sorted(path.name for path in package.iterdir()) == ["library.so"]
    assert removed > 1000
    assert ctypes.CDLL(str(library)).LLVMPY_GetHostCPUName is not None


# -- files of a deployment ---------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> host.Host:
    found = host.plan("masque-test", tmp_path, 3, 20000)
    files.write(found)
    composing.write(found, "masque")
    return found


def test_services_understand_their_files(made: host.Host) -> None:
    for service in made.services:
        path = made.folder(service) / f"{service.role}.yaml"
        settings = load_settings(KINDS[service.role], path)
        assert settings.name == service.name
        find_credentials(made.folder(service) / "certificates", f"{service.name}.{service.role}")


def test_every_address_is_met_in_one_network_only(made: host.Host) -> None:
    """Masked values go over the network of the parties, whatever else two of them share."""
    content = yaml.safe_load(made.compose_file.read_text())
    seen: dict[str, str] = {}
    for name, service in content["services"].items():
        for network, joined in service["networks"].items():
            for alias in joined["aliases"]:
                assert alias not in content["services"]
                assert seen.setdefault(alias, network) == network, (name, alias)
    for service in made.services:
        text = (made.folder(service) / f"{service.role}.yaml").read_text()
        for word in text.split():
            address = word.strip("'\"").rpartition(":")[0]
            if "." in address and address != "0.0.0.0":
                assert address in seen, word
    party = load_settings(PartySettings, made.folder(made.services[1]) / "party.yaml")
    assert {seen[address.partition(":")[0]] for address in party.peers.values()} == {"exchange"}


def test_compose_gives_every_service_as_little_as_possible(made: host.Host) -> None:
    content = yaml.safe_load(made.compose_file.read_text())
    for name, service in content["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert list(service["environment"]) == ["SERVICE"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
    inner = set(composing.INNER)
    assert {name for name, found in content["networks"].items() if found.get("internal")} == inner
    members = {name: set(service["networks"]) for name, service in content["services"].items()}
    assert members["dealer"] & members["coordinator"] == {"ordering"}
    assert "exchange" not in members["dealer"] | members["coordinator"]


def test_what_was_made_stays(made: host.Host) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in made.home.rglob("*") if path.is_file()}

    before = contents()
    again = host.plan("masque-test", made.home.parent, None, None)
    files.write(again)
    composing.write(again, "masque")
    assert contents() == before


def test_certificates_near_their_end_are_renewed_and_no_others(made: host.Host) -> None:
    """And the service takes the new one up while it runs."""
    authority = open_authority(made.home / "authority")
    service = made.services[1]
    identity = Identity(local_files.PROJECT, Role.PARTY, service.name)
    folder = made.folder(service) / "certificates"
    names = ["localhost", "127.0.0.1"]
    short = dt.timedelta(days=29)
    authority.issue(identity, folder, hosts=names, lifetime=short, replace=True)
    running = find_credentials(folder)
    before = {path: path.read_bytes() for path in made.home.rglob("*.pem")}
    files.write(made)
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert changed == {folder / f"{identity.stem}.pem"}
    facts = describe(load_certificate(folder / f"{identity.stem}.pem"))
    assert facts.remaining() > dt.timedelta(days=300)
    assert f"{service.name}.exchange" in facts.hosts, "others reach it under the same names"
    assert fingerprint(running.renewed().certificate) == facts.fingerprint


@pytest.mark.parametrize("parties", [1, 17])
def test_parties_are_2_to_16(parties: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot compute"):
        host.plan("masque-test", tmp_path, parties, None)


@pytest.mark.parametrize("name", ["", "../up", "Masque", "a b", "-x"])
def test_names_are_plain(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be the name"):
        host.plan(name, tmp_path, 2, None)


def test_the_number_of_parties_stays(made: host.Host) -> None:
    with pytest.raises(Conflict, match="has 3 parties, not 4"):
        host.plan("masque-test", made.home.parent, 4, None)


@pytest.mark.parametrize("whole", [True, False])
def test_a_volume_is_emptied_of_others_only_when_all_files_have_come(
    tmp_path: Path, whole: bool
) -> None:
    folder, volume = tmp_path / "folder", tmp_path / "volume"
    (folder / "certificates").mkdir(parents=True)
    (folder / "certificates" / "a.pem").write_text("new\n" * 9000)
    (folder / "policy.yaml").write_text("new\n")
    volume.mkdir()
    (volume / "old.yaml").write_text("old\n")
    sent = engine._archive(folder)
    script = engine._REPLACE.replace("/tmp/new", f"{tmp_path}/new")
    command = ["sh", "-euc", script.replace("/etc/masque", str(volume))]
    given = sent if whole else sent[:20_000]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert (done.returncode == 0) is whole
    assert (volume / "old.yaml").exists() is not whole
    if whole:
        found = {path.relative_to(volume) for path in volume.rglob("*")}
        assert found == {path.relative_to(folder) for path in folder.rglob("*")}


# -- the probe ---------------------------------------------------------------------------------


@pytest.fixture
def dealer(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A dealer's server that says NOT_SERVING yet, and its file."""
    create_authority(tmp_path / "authority", "demo").issue(
        Identity("demo", Role.DEALER, "dealer"), tmp_path / "certificates"
    )
    credentials = find_credentials(tmp_path / "certificates", "dealer.dealer")
    with Server(credentials, "127.0.0.1:0", {}, []) as server:
        config = tmp_path / "dealer.yaml"
        config.write_text(
            f"name: dealer\nproject: demo\nlisten: 0.0.0.0:{server.port}\n"
            "tls: {directory: certificates}\ncoordinator: coordinator\n"
        )
        yield server, config


def test_a_probe_tells_serving_from_not_serving(
    dealer: tuple[Server, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server, config = dealer
    assert probe.main(["dealer", str(config)]) == 5
    assert "Dealer 'dealer' is not serving." in capsys.readouterr().err
    server.ready()
    assert probe.main(["dealer", str(config)]) == 0
    server.stop()
    assert probe.main(["dealer", str(config)]) == 5


@pytest.mark.parametrize(
    ("role", "change", "code", "says"),
    [
        ("postman", ("", ""), 6, "'postman' is not a role"),
        ("party", ("", ""), 9, "dealer.party.pem"),
        ("dealer", ("0.0.0.0:", "0.0.0.0:0 #"), 3, "lets the system choose the port"),
        ("dealer", ("name: dealer", "name: 7"), 4, "name"),
        ("dealer", ("certificates", "elsewhere"), 9, "elsewhere"),
    ],
)
def test_a_probe_says_why_not(
    dealer: tuple[Server, Path],
    capsys: pytest.CaptureFixture[str],
    role: str,
    change: tuple[str, str],
    code: int,
    says: str,
) -> None:
    _, config = dealer
    config.write_text(config.read_text().replace(*change))
    assert probe.main([role, str(config)]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert says in error


def test_a_probe_of_a_missing_file_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(["dealer", str(tmp_path / "dealer.yaml")]) == 4
    assert "dealer.yaml cannot be read" in capsys.readouterr().err
