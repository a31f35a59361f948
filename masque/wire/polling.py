"""How gRPC waits for the network in a Masque process: chosen for short waits, not many connections.

By default gRPC moves every arriving byte through threads of its own ("event engine") before the
thread that waits for it. A round of the protocol is a few hundred bytes there and back, so that
waking those threads is most of its time. Here the waiting thread polls its own sockets. Measured on
two cores with mutual TLS (`benchmarks/latency.py`): five or six wakings a swap become three, a swap
of 1 KiB takes three quarters of the time, one of 1 MiB two thirds.

gRPC reads these settings once, when it is imported: `masque.wire` imports this module first. A
variable that is set already is left alone, so that an operator can choose otherwise; everything
then still works, only slower. The module must not import gRPC itself.
"""

from __future__ import annotations

import os
import sys

SETTINGS = {
    # The thread that waits does the polling, not a thread of the event engine.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
    # Each waiting thread polls its own sockets; with epoll one thread polls for all of them.
    "GRPC_POLL_STRATEGY": "poll",
    # Between two swaps nobody waits on a client's connection: poll it this often, so that the
    # peer's keepalive pings are answered while a party computes.
    "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS": "500",
}
"""Environment variables of gRPC and what Masque wants them to be."""


def choose() -> bool:
    """Set the variables that nobody has set. False if gRPC was imported before and missed them."""
    missing = [name for name in SETTINGS if name not in os.environ]
    for name in missing:
        os.environ[name] = SETTINGS[name]
    return not missing or "grpc" not in sys.modules


CHOSEN_IN_TIME = choose()
"""Whether gRPC sees the settings."""
