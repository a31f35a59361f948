"""What a job is: its specification, digest, policy, ledger and state machines. Pure."""
