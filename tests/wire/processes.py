"""The service of `conftest`, run as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from masque.wire import CIPHER_SETTING

SERVE = """
import sys
from pathlib import Path
{imports}
from tests.wire.conftest import EchoService, PERMISSIONS
from masque.wire.logs import configure
from masque.wire.server import Server
from masque.wire.tls import find_credentials
configure("party a")
register = [lambda server: server.add_generic_rpc_handlers((EchoService(),))]
with Server(find_credentials(Path(sys.argv[1])), sys.argv[2], PERMISSIONS, register) as server:
    print(server.address, flush=True)
    server.wait()
"""
ROOT = Path(__file__).parents[2]


@dataclass
class Service:
    """A running process and where it listens."""

    address: str
    process: subprocess.Popen[str]


@contextmanager
def service_process(
    directory: Path, imports: str = "import masque.wire", address: str = "127.0.0.1:0", **extra: str
) -> Iterator[Service]:
    """A service in a process of its own, since gRPC reads its settings once a process."""
    environment = {k: v for k, v in os.environ.items() if k != CIPHER_SETTING} | extra
    command = [sys.executable, "-c", SERVE.format(imports=imports), str(directory), address]
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield Service(process.stdout.readline().strip(), process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGKILL), errors
