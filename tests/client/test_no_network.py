"""A whole job touches no network but this machine's own, and asks no name service.

Every service, and the client, is told by a `sitecustomize` of this test to note what it connects
to and which names it looks up; an attempt at anything else than the loopback is refused as well.
gRPC does that in C: where the kernel lets us, all of it runs in a namespace of its own that has
no other way out, so that it would fail.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = """
import ipaddress, os, sys

def _away(address):
    if not isinstance(address, tuple):
        return False  # a socket of this machine's files
    try:
        return not ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return address[0] not in ("", "localhost")

def _hook(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        away, what = _away(arguments[1]), arguments[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        name = arguments[0]
        name = name.decode() if isinstance(name, bytes) else name or ""
        away, what = _away((name,)), name
    else:
        return
    place = os.path.join(os.environ["MASQUE_TEST_NOTES"], str(os.getpid()))
    with open(place, "a") as file:
        file.write(f"{'AWAY' if away else 'here'} {event} {what}\\n")
    if away:
        raise OSError(f"this test knows no network: {what}")

sys.addaudithook(_hook)
"""

JOB = """
import sys
from pathlib import Path
from masque.client import jobs
from tests.client.networks import running

with running(Path(sys.argv[1])) as net:
    assert jobs.finished(net.services, net.submit()).state == "succeeded"
print("trained")
"""
AWAY = """
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))
except OSError:
    pass
try:
    socket.getaddrinfo("masque.example", 443)
except OSError:
    pass
"""

RAISE = f"""{sys.executable} -c '
import fcntl, socket, struct
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(plain, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))'"""
"""Lets the loopback of a new namespace be up (SIOCSIFFLAGS: IFF_UP, IFF_RUNNING)."""


def namespace() -> list[str]:
    """The beginning of a command line that runs the rest without a network; [] if none can be."""
    for how in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
        command = [*how, "sh", "-c", f'{RAISE} && exec "$@"', "sh"]
        try:
            done = subprocess.run([*command, "true"], capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return command
    return []


def noted(folder: Path, program: str, *arguments: str, entering: list[str]) -> tuple[str, str]:
    """What a program, and every process that it starts, wrote and touched."""
    hooks, notes = folder / "hooks", folder / "notes"
    hooks.mkdir()
    notes.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join(filter(None, (str(hooks), str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "MASQUE_TEST_NOTES": str(notes)}
    command = [*entering, sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, "".join(path.read_text() for path in sorted(notes.iterdir()))


@pytest.mark.slow
def test_a_whole_job_needs_nothing_but_this_machine(tmp_path: Path) -> None:
    network = tmp_path / "network"
    network.mkdir()
    said, touched = noted(tmp_path, JOB, str(network), entering=namespace())
    assert "trained" in said
    assert "here socket.connect" in touched, "the hook hears of what there is"
    assert len(list((tmp_path / "notes").iterdir())) > 3, "and of more processes than one"
    assert "AWAY" not in touched, [line for line in touched.splitlines() if "AWAY" in line]


@pytest.mark.parametrize("what", ["socket.connect", "socket.getaddrinfo"])
def test_whoever_went_elsewhere_would_be_seen(tmp_path: Path, what: str) -> None:
    _, touched = noted(tmp_path, AWAY, entering=[])
    assert f"AWAY {what}" in touched


def test_a_namespace_of_its_own_has_no_way_out() -> None:
    entering = namespace()
    if not entering:
        pytest.skip("this kernel gives us none: the hooks alone look")
    program = 'import socket; socket.create_connection(("192.0.2.1", 9), 5)'
    done = subprocess.run(
        [*entering, sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "Network is unreachable" in done.stderr
