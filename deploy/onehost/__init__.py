"""All services on one host, each in a container of its own: what `make up` does.

Whoever owns the host can read everything in it: separate hosts, run by separate people, are what
makes the guarantees hold (see SECURITY.md). The networks are drawn as if it were otherwise.
"""
