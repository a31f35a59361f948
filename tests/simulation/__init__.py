"""The whole system in one process, on a simulated network, clock and disk, from a seed.

    make simulate SEEDS=2000

See docs/simulation.md. Services are the real ones; what is simulated is below them: threads
(`threads`), time (`worlds`), gRPC (`calls`, `network`), disks (`disks`, `databases`).
"""
