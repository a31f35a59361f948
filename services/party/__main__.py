"""`python -m services.party --config party.yaml`."""

import masque.wire  # noqa: F401, I001 - before grpc, whose settings it chooses

import sys

from services.party.main import run

if __name__ == "__main__":
    sys.exit(run())
