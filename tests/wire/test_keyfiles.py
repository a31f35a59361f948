"""Private keys: whose files are read, and whose are refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from masque.wire.keyfiles import exposed

ROOT, US, OTHER = 0, 10001, 10002


@pytest.mark.parametrize(
    ("mode", "owner", "user", "refused"),
    [
        (0o600, US, US, False),
        (0o400, US, US, False),
        (0o440, US, US, True),
        (0o604, US, US, True),
        (0o400, ROOT, ROOT, False),
        (0o440, ROOT, ROOT, True),
        (0o440, ROOT, US, False),
        (0o640, ROOT, US, False),
        (0o660, ROOT, US, True),
        (0o444, ROOT, US, True),
        (0o440, OTHER, US, True),
    ],
)
def test_only_root_may_lend_a_key_to_a_group(
    mode: int, owner: int, user: int, refused: bool
) -> None:
    assert exposed(0o100000 | mode, owner, user) is refused


READ = """
import os, sys
from pathlib import Path
from masque.errors import IdentityError
from masque.wire.keyfiles import read_private_file
os.setgroups([]), os.setgid(10001), os.setuid(10001)
try:
    print(read_private_file(Path(sys.argv[1]), "private key").decode())
except IdentityError as error:
    print(error)
"""


@pytest.fixture
def secret() -> Iterator[Path]:
    """As a kubelet mounts a secret with mode 0400 in a pod whose fsGroup is 10001: 0440, root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can lend a file")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "..2026"
        folder.mkdir()
        Path(place).chmod(0o755)
        (folder / "key").write_text("a key")
        (folder / "key").chmod(0o440)
        os.chown(folder / "key", 0, US)
        (Path(place) / "..data").symlink_to("..2026")
        (Path(place) / "key").symlink_to("..data/key")
        yield Path(place) / "key"


@pytest.mark.parametrize(
    ("mode", "owner", "says"),
    [
        (0o440, ROOT, "a key"),
        (0o400, ROOT, "Permission denied"),
        (0o400, US, "a key"),
        (0o444, ROOT, "Other users of this machine can read"),
        (0o440, US, "Other users of this machine can read"),
    ],
)
def test_a_mounted_secret_is_read(secret: Path, mode: int, owner: int, says: str) -> None:
    os.chown(secret.resolve(), owner, US)
    secret.resolve().chmod(mode)
    done = subprocess.run(
        [sys.executable, "-c", READ, secret], capture_output=True, text=True, check=True
    )
    assert says in done.stdout
