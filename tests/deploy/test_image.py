"""The image: small, without tools, run by nobody in particular, and honest about itself."""

from __future__ import annotations

import pytest

import masque
from tests.deploy.engine import inspect, run

pytestmark = pytest.mark.engine

MOST_BYTES = 450_000_000
TOOLS = "pip pip3 gcc cc g++ ld as make cmake cargo git curl wget".split()


def inside(image: str, *command: str, check: bool = True) -> str:
    """What a command says in a container as strict as those of `make up`, without volumes."""
    strict = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    done = run("docker", "run", "--rm", "--network", "none", *strict, image, *command, check=check)
    return (done.stdout + done.stderr).strip()


def test_it_is_small(image: str) -> None:
    assert inspect("image", image)["Size"] < MOST_BYTES


def test_it_says_what_it_is(image: str) -> None:
    config = inspect("image", image)["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "Masque"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == masque.__version__
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", "masque-service", "probe"]
    assert config["StopSignal"] == "SIGTERM"


def test_the_command_line_is_in_it(image: str) -> None:
    assert inside(image, "masque", "version") == masque.__version__
    assert "init" in inside(image, "masque", "pki", "--help")


def test_there_are_no_tools_to_build_with(image: str) -> None:
    found = inside(image, "sh", "-c", f"command -v {' '.join(TOOLS)} || true")
    assert found == ""
    modules = (
        "import importlib.util as u; print([m for m in ('pip','setuptools') if u.find_spec(m)])"
    )
    assert inside(image, "python", "-c", modules) == "[]"


def test_its_user_may_write_nowhere(image: str) -> None:
    looked = "find / -xdev -type d -writable ! -path '/proc/*' ! -path '/dev/*' 2>/dev/null"
    writable = run("docker", "run", "--rm", image, "sh", "-c", f"id -u; {looked} || true").stdout
    user, *folders = writable.split()
    assert user == "10001"
    assert set(folders) <= {"/tmp", "/var/tmp", "/run/lock", "/etc/masque", "/var/lib/masque"}


def test_nothing_in_it_gains_privileges(image: str) -> None:
    """No set-user-id program is of use to a user who is told `no-new-privileges`."""
    status = inside(image, "cat", "/proc/self/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status


def test_no_key_is_in_it(image: str) -> None:
    looked = "find / -xdev ( -name *.key -o -name *.recipient.* -o -name profile.yaml )"
    found = run("docker", "run", "--rm", "--user", "0", image, *looked.split()).stdout
    assert found == ""


@pytest.mark.parametrize("service", ["", "postman"])
def test_a_service_must_be_chosen(image: str, service: str) -> None:
    command = ["docker", "run", "--rm", "--network", "none", "--env", f"SERVICE={service}", image]
    done = run(*command, check=False)
    assert done.returncode == 3
    assert f"SERVICE is '{service}'. Set it to dealer, party or coordinator." in done.stderr


def test_a_volume_that_cannot_be_written_is_told(image: str) -> None:
    strict = ["--read-only", "--network", "none", "--env", "SERVICE=dealer"]
    done = run("docker", "run", "--rm", *strict, image, check=False)
    assert done.returncode == 3
    assert "/var/lib/masque cannot be written by user 10001" in done.stderr


def test_a_missing_configuration_is_told(image: str) -> None:
    done = run(
        "docker", "run", "--rm", "--network", "none", "--env", "SERVICE=party", image, check=False
    )
    assert done.returncode == 4
    assert "/etc/masque/party.yaml cannot be read" in done.stderr


def test_kernels_are_loaded_not_compiled(image: str) -> None:
    """On the processor that the image was built on: another kind compiles its own."""
    copied = "cp -r /opt/masque/kernels /tmp/k && export NUMBA_CACHE_DIR=/tmp/k"
    count = "find /tmp/k -name '*.nbc' | wc -l"
    program = f"{copied} && {count} && python -m masque.mpc.warm >/dev/null && {count}"
    before, after = run("docker", "run", "--rm", image, "sh", "-c", program).stdout.split()
    assert int(before) > 20
    assert before == after
