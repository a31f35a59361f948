"""Train machine-learning models on data that nobody is allowed to see.

The floors, top to bottom; imports go down only:

    services        thin gRPC shells: dealer, party, coordinator
    masque.client   SDK and command line
    masque.wire     codec, TLS and identities, server plumbing; masque.v1 holds the generated stubs
    masque.jobs     job specification, digest, policy, ledger, state machines
    masque.ml       layers, losses, optimisers, preprocessing, metrics, on secrets only
    masque.data     CSV and Parquet to encoded columns to shares, and back
    masque.mpc      ring, kernels, sharing, correlations, functions, interpreters
    masque.errors   everything raised on purpose
"""

from masque.version import __version__

__all__ = ["__version__"]
