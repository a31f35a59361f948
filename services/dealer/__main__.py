"""`python -m services.dealer --config dealer.yaml`."""

import masque.wire  # noqa: F401, I001 - before grpc, whose settings it chooses

import sys

from services.dealer.main import run

if __name__ == "__main__":
    sys.exit(run())
