"""A computing party: holds one share of everything and runs the agreed program on it."""
