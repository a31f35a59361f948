"""Measured speed, rounds and bytes; `make bench` runs it."""
