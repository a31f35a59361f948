"""Stubs generated from `protos/masque/v1` by `make protos`; never edited by hand."""
