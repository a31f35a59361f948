"""The core: arithmetic on secrets, and the interpreters that run it. Blocks at two doors only."""
