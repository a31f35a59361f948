"""A project of four organisations: two hospitals, a trustee, a university."""

from __future__ import annotations

PROJECT = """\
project: cancer-study
organisations:
  - name: trustee
    services: [{role: dealer, name: dealer, address: "dealer.trustee.example:7000"}]
  - name: hospital-a
    services: [{role: party, name: hospital-a, address: "masque.hospital-a.example:7000"}]
    owners: [ward-3]
  - name: hospital-b
    services: [{role: party, name: hospital-b, address: "masque.hospital-b.example:7000"}]
    owners: [ward-7]
  - name: university
    services: [{role: coordinator, name: coordinator, address: "masque.university.example:7000"}]
    analysts: [analyst]
"""
