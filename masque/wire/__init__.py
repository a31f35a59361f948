"""Everything between processes: identities, TLS, server plumbing, codec and streams.

gRPC reads its settings once, when it is first imported, and its Python API has no way to ask for a
minimum TLS version. So this package, imported before `grpc`, leaves TLS 1.2 no cipher suite that
any of our certificates could serve (see `masque.wire.tls`), and lets whoever waits for the network
poll it himself (see `masque.wire.polling`). It also keeps gRPC from writing a line of its own for
every stranger whose handshake fails, among the JSON of a service's log. Start a service's main
module with `import masque.wire`.
"""

from __future__ import annotations

import os
import sys

from masque.wire import polling as polling

CIPHER_SETTING = "GRPC_SSL_CIPHER_SUITES"
"""The variable from which gRPC reads the cipher suites of TLS 1.2; those of 1.3 are fixed."""

NO_TLS_1_2 = "ECDHE-PSK-AES128-CBC-SHA"
"""A suite for pre-shared keys, of which gRPC has none: no TLS 1.2 handshake can succeed."""

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def _leave_tls_1_2_no_cipher() -> bool:
    """Set the variable in time for gRPC to see it; False when gRPC was imported before."""
    in_time = "grpc" not in sys.modules or os.environ.get(CIPHER_SETTING) == NO_TLS_1_2
    os.environ.setdefault(CIPHER_SETTING, NO_TLS_1_2)
    return in_time and os.environ[CIPHER_SETTING] == NO_TLS_1_2


HANDSHAKE_REFUSES_TLS_1_2 = _leave_tls_1_2_no_cipher()
"""Whether TLS 1.2 dies in the handshake; if not, every call over it is refused instead."""
