"""What travels between processes: codec, TLS and identities, server plumbing."""
