"""Settings of all tests: speed is measured in `benchmarks/`, never here."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("masque", deadline=None)
settings.load_profile("masque")
