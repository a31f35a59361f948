"""Real processes that are killed, and that run for long: see `__main__`."""
