"""The trusted dealer: correlated randomness for the parties, and nothing that depends on data."""
