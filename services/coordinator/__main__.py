"""`python -m services.coordinator --config coordinator.yaml`."""

import masque.wire  # noqa: F401, I001 - before grpc, whose settings it chooses

import sys

from services.coordinator.main import run

if __name__ == "__main__":
    sys.exit(run())
