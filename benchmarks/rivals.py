"""What other systems take for the same work, published on such a machine; see README.md.

Two cores, loopback, two computing parties, 64-bit ring. Where a range is published, its better
end stands here. Rounds and bytes are exact; times are worth an order of magnitude.
"""

from __future__ import annotations

CRYPTEN = "CrypTen"
SPU = "SPU, dealer"
SPU_FIRST_PARTY = "SPU, first party deals"
MP_SPDZ = "MP-SPDZ, dealer"
MP_SPDZ_ANY, TF_ENCRYPTED, PUBLISHED = "MP-SPDZ", "TF-Encrypted", "published"
MP_SPDZ_SEGMENTS = "MP-SPDZ, dealer, 3-segment sigmoid"

LR_MILLISECONDS = {
    MP_SPDZ: 30.0,
    MP_SPDZ_SEGMENTS: 6.7,
    SPU: 73.0,
    SPU_FIRST_PARTY: 14.0,
    CRYPTEN: 200.0,
}
LR_ROUNDS = {MP_SPDZ: 324, MP_SPDZ_SEGMENTS: 50, SPU: 59, CRYPTEN: 63}
LR_BYTES = {MP_SPDZ: 447e3, MP_SPDZ_SEGMENTS: 222e3, SPU: 285e3, CRYPTEN: 408e3}
NET_A_MILLISECONDS = {MP_SPDZ: 350.0, SPU: 775.0, SPU_FIRST_PARTY: 700.0, CRYPTEN: 490.0}
NET_A_WAN_SECONDS = {TF_ENCRYPTED: 4.5, MP_SPDZ_ANY: 9.7}
LR_WAN_SECONDS = {PUBLISHED: 0.84}
"""Over 40 ms and 352 Mb/s, hosts of 4 cores each."""

CANCER_SECONDS = {
    MP_SPDZ: 10.8,
    MP_SPDZ_SEGMENTS: 1.7,
    SPU: 29.0,
    SPU_FIRST_PARTY: 5.3,
    CRYPTEN: 125.0,
}
OPERATION_SECONDS = {
    "matmul 512 x 512 x 512": {MP_SPDZ: 2.0, SPU: 0.36, CRYPTEN: 0.08},
    "matmul 1024 x 1024 x 1024": {MP_SPDZ: 18.0, SPU: 1.89, CRYPTEN: 0.45},
    "relu": {MP_SPDZ: 0.62, SPU: 1.3, CRYPTEN: 1.6},
    "sign": {MP_SPDZ: 0.50, SPU: 1.1, CRYPTEN: 1.7},
    "sigmoid": {MP_SPDZ: 20.0, MP_SPDZ_SEGMENTS: 1.2, SPU: 9.2, CRYPTEN: 2.9},
    "softmax 128 x 10": {SPU: 0.136, SPU_FIRST_PARTY: 0.032, CRYPTEN: 0.185},
}
"""Elementwise ones are for 2^20 values, and scale with their number."""

OPERATION_BYTES = {
    "relu": {MP_SPDZ: 48e6, SPU: 75e6, CRYPTEN: 243e6},
    "sign": {MP_SPDZ: 31e6, SPU: 59e6, CRYPTEN: 226e6},
    "sigmoid": {MP_SPDZ: 1.3e9, SPU: 634e6},
}
