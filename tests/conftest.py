"""Settings of all tests: speed is measured in `benchmarks/`, never here."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("masque", deadline=None)
settings.load_profile("masque")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # `make test &` in a script: programs that tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
